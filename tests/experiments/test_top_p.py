"""Top-P and its baselines: who sends what, what is kept, and what an observer makes of it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from experiments.harness.report import write
from experiments.harness.request import Request
from experiments.harness.scenario import Scenario
from experiments.harness.study import Study
from experiments.methods.results import CurvePoint, SettingResult, SettingRun
from experiments.methods.selections import Baseline, baseline
from experiments.methods.settings import Setting
from experiments.top_p import observer, page
from experiments.top_p import run as top_p
from experiments.top_p.attack import Attack, attack, auc
from experiments.top_p.result import Situation
from protocol import sparse
from protocol.spec.spec import Spec
from simulation.boards import LocalUpdate, Order, Trainer
from simulation.conditions import Poisoning
from simulation.engine.fixed import Engine

if TYPE_CHECKING:
    from simulation.boards import Selection

BOARDS = 6
NAMES = [f"board-{number}" for number in range(BOARDS)]
SPEC = Scenario(network="sine", rounds=10).spec
EVERYTHING = SPEC.training.model_copy(update={"percent": 100.0, "value_bits": 16})


def learn(
    sends: "Selection | None", round_: int = 0, residuals: np.ndarray | None = None
) -> list[LocalUpdate]:
    spec = SPEC.model_copy(update={"training": EVERYTHING})
    tasks, _ = Scenario(network="sine", rounds=10).tasks()
    trainer = Trainer(spec, NAMES, tasks, Engine, Poisoning(), 0, sends=sends)
    return trainer.train(Order(round_, spec.start(), tuple(range(BOARDS)), residuals))


def dense(learned: list[LocalUpdate], spec: Spec = SPEC) -> np.ndarray:
    rows = np.zeros((len(learned), spec.global_count), np.int64)
    for row, each in zip(rows, learned, strict=True):
        found = sparse.decode(each.block, spec.tensors)
        row[found.indices] = found.changes
    return rows


@pytest.mark.parametrize("name", ["random", "threshold", "periodic"])
@pytest.mark.parametrize("round_", [0, 1])
def test_what_is_sent_and_what_is_kept_make_up_what_was_learned(
    name: Baseline, round_: int
) -> None:
    kept = np.random.default_rng(1).integers(-50, 50, (BOARDS, SPEC.global_count)).astype(np.int16)
    wanted = dense(learn(None, round_)) + kept
    learned = learn(baseline(name, 50.0, 0), round_, kept)
    left = np.array([each.residual for each in learned])
    assert np.array_equal(dense(learned) + left, wanted)


def test_random_draws_p_percent_and_others_in_another_round() -> None:
    chosen = [
        baseline("random", 10.0, 0)(np.ones((BOARDS, 200), np.int64), order)
        for order in (
            Order(round_, SPEC.start(), tuple(range(BOARDS)), None) for round_ in (0, 0, 1)
        )
    ]
    assert [each.sum(axis=1).tolist() for each in chosen] == [[20] * BOARDS] * 3
    assert np.array_equal(chosen[0], chosen[1])
    assert not np.array_equal(chosen[0], chosen[2])
    assert not np.array_equal(chosen[0][0], chosen[0][1])


def test_the_threshold_sends_p_percent_on_average_and_more_of_who_learned_more() -> None:
    rng = np.random.default_rng(0)
    chooses = baseline("threshold", 10.0, 0)
    shares = []
    for round_ in range(60):
        scale = 400 * 0.97**round_ * np.array([[3.0], [1.0]])  # Changes become smaller.
        wanted = np.rint(rng.normal(0, scale, (2, 1000))).astype(np.int64)
        shares.append(chooses(wanted, Order(round_, SPEC.start(), (0, 1), None)).mean(axis=1))
    much, little = np.mean(shares, axis=0)
    assert (much + little) / 2 == pytest.approx(0.1, abs=0.02)
    assert much > 2 * little


def test_periodic_is_silent_between_its_rounds() -> None:
    counts = [np.count_nonzero(dense(learn(baseline("periodic", 25.0, 0), n))) for n in range(5)]
    assert [count > 0 for count in counts] == [False, False, False, True, False]


@given(st.lists(st.integers(0, 9), min_size=1), st.lists(st.integers(0, 9), min_size=1))
def test_the_auc_counts_pairs(members: list[float], others: list[float]) -> None:
    pairs = [(a > b) + (a == b) / 2 for a in members for b in others]
    assert auc(members, others) == pytest.approx(np.mean(pairs))


def test_an_observer_infers_sines_from_updates_and_less_where_little_is_sent() -> None:
    job = Attack(
        scenario=Scenario(network="sine", rounds=10),
        local=(),
        rounds=0,
        boards=60,
        own=600,
        percents=(0.1, 100.0),
        bits=(8,),
    )
    few, everything = attack(job)["inferences"]
    assert (few["percent"], everything["percent"]) == (0.1, 100.0)
    assert everything["secret"] == "task"
    assert everything["value"] > 0.8
    assert few["value"] < everything["value"] - 0.05


@pytest.mark.slow
def test_the_experiment_writes_a_page_of_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = replace(top_p.QUICK["sine"], rounds=4)
    monkeypatch.setattr(top_p, "QUICK", {"sine": few})
    monkeypatch.setattr(observer, "QUICK", {"sine": replace(observer.QUICK["sine"], rounds=1)})
    with Study(tmp_path, 2, Console(stderr=True)) as study:
        result = top_p.run(Request(data={}, seeds=2, quick=True), study)
    (comparison,) = result.comparisons
    full = comparison.top(100.0)
    assert full.result.bytes_up > comparison.top(10.0).result.bytes_up
    assert full.to_target.rounds is not None
    assert full.to_target.rounds <= few.rounds
    text = write(page.report(result), tmp_path, {"seeds": "2"}).read_text()
    assert "![sine: loss by P](top-p-sine.png)" in text
    assert "$" not in text
    first = Situation(network="sine", partition="full", rounds=0)
    assert f"P = 100: {result.observer.select(first, 'task')[100.0].text()}" in text
    records = json.loads((tmp_path / "results.json").read_text())
    kinds = {
        (each["selection"], each["percent"], each["value_bits"], each["feedback"])
        for each in records["settings"]
    }
    assert {("top", 1, 8, False), ("top", 100, 8, False), ("top", 10, 4, False)} <= kinds
    assert {("random", 10, 8, False), ("threshold", 10, 8, True)} <= kinds
    assert len(records["observer"]) == len(result.observer.inferences) == 2 * 2 * 13 * 3


def result_of(percent: float, *curve: float) -> SettingResult:
    setting = Setting(
        scenario=Scenario(network="sine", rounds=3), tasks=1, points=3, percent=percent
    )
    points = [
        CurvePoint(rounds=at + 1, bytes=10 * (at + 1), value=value)
        for at, value in enumerate(curve)
    ]
    run = SettingRun(value=curve[-1], bytes_up=1, bytes_down=1, operations=1, curve=tuple(points))
    return SettingResult(setting=setting, runs=[run, run])


def test_the_target_is_reached_at_the_first_point_that_is_as_good() -> None:
    results = [result_of(10, 1.5, 1.0, 0.5), result_of(1, 9, 3, 2), result_of(100, 3, 2, 1.0)]
    comparison = top_p.comparison_of(results, top_p.QUICK["sine"])
    assert comparison.target == pytest.approx(1.1)
    assert [entry.to_target.rounds for entry in comparison.entries] == [2, None, 3]
    assert [entry.to_target.bytes for entry in comparison.entries] == [20, None, 30]
    assert [entry.to_target.seeds for entry in comparison.entries] == [2, 0, 2]
