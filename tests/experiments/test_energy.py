"""What is modelled follows from bytes, operations and constants, and is said to be modelled."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from experiments.catalogue import EXPERIMENTS
from experiments.comparison.result import Effort, MethodResult, Point
from experiments.energy import run as energy
from experiments.energy.page import savings, target, variations
from experiments.energy.power import (
    CHIPS,
    ESP32,
    LINK,
    STEP,
    STEP_OPERATIONS,
    Link,
    Work,
    parts,
    saved,
    total,
)
from experiments.energy.result import METHODS, Stage
from experiments.harness import report
from experiments.harness.request import Request
from experiments.harness.scenario import Scenario
from experiments.harness.study import Study
from experiments.methods import cost
from localfleet.processes import PROJECT
from simulation.engine.passes import ONLINE
from simulation.statistics import Estimate

WORK = Work(bytes_up=276, bytes_down=464, operations=145_536, messages=4)
SINE = Scenario("sine", 4)


def test_joules_are_those_of_a_calculation_by_hand() -> None:
    chip = replace(ESP32, tx=0.2, rx=0.1, cpu=0.05, hertz=1e6, instructions=10, cycles=2, volts=3)
    link = Link(bits=8e6, frame=40, packet=60, segment=1000, preamble=1e-3, idle=2e-3, connect=0.5)
    # 3 segments up, 2 down, and an acknowledgement of 100 bytes for each: 5 frames each way.
    work = Work(bytes_up=3000, bytes_down=1000, operations=50_000, messages=2)
    made = parts(chip, link, work)
    sent = 5 * 1e-3 + (3000 + 5 * 100) * 1e-6
    heard = 5 * 1e-3 + (1000 + 5 * 100) * 1e-6 + 10 * 2e-3
    assert made["connecting"].joules == pytest.approx(0.5 * 0.1 * 3)
    assert made["radio"].seconds == pytest.approx(sent + heard)
    assert made["radio"].joules == pytest.approx(3 * (0.2 * sent + 0.1 * heard))
    assert made["computing"].seconds == pytest.approx(1.0)
    assert made["computing"].joules == pytest.approx(0.15)


amounts = st.floats(0, 1e7)


@given(
    st.builds(Work, bytes_up=amounts, bytes_down=amounts, operations=amounts, messages=st.just(2)),
    st.builds(Work, bytes_up=amounts, bytes_down=amounts, operations=amounts, messages=st.just(0)),
)
def test_who_does_more_takes_more(small: Work, more: Work) -> None:
    large = Work(
        bytes_up=small.bytes_up + more.bytes_up,
        bytes_down=small.bytes_down + more.bytes_down,
        operations=small.operations + more.operations,
        messages=small.messages,
    )
    for each in CHIPS:
        assert total(each, LINK, small).joules <= total(each, LINK, large).joules
        assert total(each, LINK, small).seconds <= total(each, LINK, large).seconds


def test_the_longer_it_takes_to_connect_the_less_is_saved() -> None:
    dense = replace(WORK, bytes_up=4644.0, bytes_down=4644.0, operations=217_280.0)
    shares = [
        saved(total(ESP32, link, WORK).joules, total(ESP32, link, dense).joules)
        for link in (replace(LINK, connect=seconds) for seconds in (0.0, 0.1, 1.0, 10.0))
    ]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.2
    assert 0 < shares[-1] < 0.01


def test_instructions_are_those_of_the_documents() -> None:
    text = (PROJECT / "docs" / "engine.md").read_text(encoding="utf-8")
    assert f"| {STEP['viper']:,} | {STEP['asm_thumb']:,} |" in text
    training = SINE.spec.training
    samples = training.support + training.query
    assert round(cost.round_operations(SINE.spec, ONLINE) / samples) == STEP_OPERATIONS


def test_every_constant_has_a_source_and_is_varied() -> None:
    for chip in CHIPS:
        stated = {what for what, _, source in chip.sources if source}
        assert stated == {"sending", "receiving", "computing", "instructions", "cycles"}
    as_stated, *others = variations().values()
    assert as_stated == (list(CHIPS), LINK)
    assert all(other != as_stated for other in others)


def result(method: str, *values: float) -> MethodResult:
    """A run with so many points, ten rounds and a thousand bytes apart."""
    curve = [
        Point(
            rounds=10 * n,
            bytes_up=600 * n,
            bytes_down=400 * n,
            operations=5000 * n,
            value=Estimate(value, 0.0),
        )
        for n, value in enumerate(values, start=1)
    ]
    return MethodResult(
        method=method,
        scenario=SINE,
        settings={},
        search=(),
        finals=values[-1:],
        curve=tuple(curve),
    )


def test_equal_value_is_what_both_reached() -> None:
    ours, other = result("tinymetafed", 3.0, 1.5, 0.5), result("fedavg", 4.0, 2.0, 1.6)
    assert target(ours, other) == 1.6
    mine, its = ours.first(1.6), other.first(1.6)
    assert mine is not None
    assert its is not None
    assert (mine.rounds, its.rounds) == (20, 30)
    stages = Stage(method=ours, point=mine), Stage(method=other, point=its)
    assert savings(*stages, ESP32, LINK).bytes == pytest.approx(1 / 3)
    assert ours.first(0.1) is None


@pytest.mark.slow
def test_the_page_says_what_is_modelled_and_what_was_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    effort = Effort(
        rounds=4,
        search_runs=1,
        search_rounds=2,
        validation_tasks=20,
        test_tasks=20,
        curve_tasks=20,
        points=2,
    )
    monkeypatch.setitem(energy.QUICK, "sine", effort)
    with Study(tmp_path, 1, Console(quiet=True)) as study:
        done = EXPERIMENTS["energy"].make(Request({}, seeds=2, quick=True), study)
    page = report.write(done, tmp_path, {"seeds": "2"}).read_text()
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results) == [f"sine/{method}" for method in METHODS]
    ours, theirs = results["sine/tinymetafed"], results["sine/tinyreptile"]
    assert ours["rounds"] == theirs["rounds"] == 4
    for how, mine in ours["modelled"].items():
        assert 0 < mine["joules"] < theirs["modelled"][how]["joules"]
        chip, connects = how.split(", ")
        sent = [each["bytes_up"] + each["bytes_down"] for each in (ours, theirs)]
        shares = (
            saved(*sent),
            saved(mine["seconds"], theirs["modelled"][how]["seconds"]),
            saved(mine["joules"], theirs["modelled"][how]["joules"]),
        )
        line = " | ".join(["sine: tinyreptile", chip, connects, *(f"{s:.0%}" for s in shares)])
        assert f"| {line} |" in page
    assert "No board was measured" in page
    assert "not checked" in page
    for name in ("sine-each-round", "sine-stays-connected", "sine-connecting"):
        assert (tmp_path / f"{name}.png").exists()
        assert f"]({name}.png)" in page
