"""The sweep of partitions: what may stay local, and that the page is made of what was run."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError
from rich.console import Console

from experiments.harness.report import write
from experiments.harness.request import Request
from experiments.harness.scenario import Scenario
from experiments.harness.study import Study
from experiments.methods.results import SettingResult, SettingRun
from experiments.methods.settings import Setting, partitioned, play, spec_of
from experiments.partition import page
from experiments.partition import run as partition


def test_a_partition_changes_what_is_shared_and_nothing_else() -> None:
    spec = Scenario(network="sine", rounds=5).spec
    assert partitioned(spec, (2,)).model == spec.model
    first = partitioned(spec, (0,))
    assert [layer.local for layer in first.layers] == [True, False, False]
    assert first.global_count + 64 == sum(layer.parameters for layer in spec.layers)
    assert first.training == spec.training


def test_nothing_local_shares_all_and_all_local_is_refused() -> None:
    spec = Scenario(network="sine", rounds=5).spec
    assert partitioned(spec, ()).global_count == sum(layer.parameters for layer in spec.layers)
    with pytest.raises(ValidationError, match="every layer is local"):
        partitioned(spec, (0, 1, 2))


def test_a_setting_says_all_that_its_spec_is() -> None:
    setting = Setting(
        scenario=Scenario(network="sine", rounds=7),
        tasks=10,
        points=1,
        local=(0,),
        percent=3.0,
        bits=16,
        feedback=True,
        rate=0.5,
        step=2.0,
    )
    spec, given = spec_of(setting), Scenario(network="sine", rounds=7).spec
    assert (spec.training.percent, spec.training.value_bits) == (3.0, 16)
    assert spec.training.error_feedback
    assert spec.training.rate_local == given.training.rate_local / 2
    assert spec.rounds.step_max == given.rounds.step_max * 2
    assert spec.rounds.count == 7


def test_a_run_costs_what_its_partition_says() -> None:
    own = play(Setting(scenario=Scenario(network="sine", rounds=4), tasks=20, points=2))
    none = play(
        Setting(
            scenario=Scenario(network="sine", rounds=4),
            tasks=20,
            points=2,
            local=(),
            percent=100.0,
            percent_down=100.0,
        )
    )
    assert none["bytes_up"] > 2 * own["bytes_up"]
    assert none["operations"] > own["operations"]
    assert [point[0] for point in own["curve"]] == [2, 4]
    assert own == play(Setting(scenario=Scenario(network="sine", rounds=4), tasks=20, points=2))


def result(*values: float) -> SettingResult:
    setting = Setting(scenario=Scenario(network="sine", rounds=4), tasks=20, points=2)
    runs = [
        SettingRun(value=value, bytes_up=1, bytes_down=1, operations=1, curve=())
        for value in values
    ]
    return SettingResult(setting=setting, runs=runs)


def test_a_difference_is_taken_seed_by_seed() -> None:
    gap = result(2.0, 1.0, 3.0).difference(result(1.5, 0.5, 2.5))
    assert gap.mean == pytest.approx(0.5)
    assert gap.ci95 == pytest.approx(0)


def test_one_seed_distinguishes_nothing() -> None:
    gap = result(2.0).difference(result(1.5))
    assert gap.mean == pytest.approx(0.5)
    assert gap.ci95 > abs(gap.mean)


@pytest.mark.slow
def test_the_experiment_writes_a_page_of_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition, "QUICK", {"sine": replace(partition.QUICK["sine"], rounds=4)})
    with Study(tmp_path, 2, Console(stderr=True)) as study:
        sweeps = partition.run(Request(data={}, seeds=2, quick=True), study)
    (sweep,) = sweeps
    assert sweep.own == (2,)
    assert sweep.find((), all_sent=True).bytes > sweep.find(()).bytes
    text = write(page.report(sweeps), tmp_path, {"seeds": "2"}).read_text()
    gap = sweep.find((2,)).difference(sweep.find(()))
    assert f"{gap.mean:+.3f}" in text
    assert "local=0,1,2 was left out: every layer is local" in text
    assert "$" not in text
    assert (tmp_path / "partition-sine.svg").exists()
    records = json.loads((tmp_path / "results.json").read_text())["partitions"]
    kinds = [(tuple(record["local"]), record["all_sent"]) for record in records]
    assert kinds == [(each.local, each.all_sent) for each in sweep.partitions]
    assert {((), False), ((2,), False), ((0, 1), False), ((), True)} <= set(kinds)
    for record in records:
        curve, finals = record["curve"], record["finals"]
        assert (
            record["loss"]["mean"] == pytest.approx(curve[-1][2]) == pytest.approx(sum(finals) / 2)
        )
        assert curve[-1][1] == pytest.approx(record["bytes_up"] + record["bytes_down"])
