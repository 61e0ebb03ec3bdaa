"""The sweep of partitions: what may stay local, and that the page is made of what was run."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from rich.console import Console

from experiments.harness.report import write
from experiments.harness.request import Request
from experiments.harness.scenario import Scenario
from experiments.harness.study import Study
from experiments.methods.settings import Setting, difference, partitioned, play, spec_of
from experiments.partition import run as partition


def test_a_partition_changes_what_is_shared_and_nothing_else() -> None:
    spec = Scenario("sine", 5).spec
    assert partitioned(spec, (2,)).model == spec.model
    first = partitioned(spec, (0,))
    assert [layer.local for layer in first.layers] == [True, False, False]
    assert first.global_count + 64 == sum(layer.parameters for layer in spec.layers)
    assert first.training == spec.training


def test_nothing_local_shares_all_and_all_local_is_refused() -> None:
    spec = Scenario("sine", 5).spec
    assert partitioned(spec, ()).global_count == sum(layer.parameters for layer in spec.layers)
    with pytest.raises(ValidationError, match="every layer is local"):
        partitioned(spec, (0, 1, 2))


def test_a_setting_says_all_that_its_spec_is() -> None:
    setting = Setting(
        *(Scenario("sine", 7), 10, 1, (0,)), percent=3.0, bits=16, feedback=True, rate=0.5, step=2.0
    )
    spec, given = spec_of(setting), Scenario("sine", 7).spec
    assert (spec.training.percent, spec.training.value_bits) == (3.0, 16)
    assert spec.training.error_feedback
    assert spec.training.rate_local == given.training.rate_local / 2
    assert spec.rounds.step_max == given.rounds.step_max * 2
    assert spec.rounds.count == 7


def test_a_run_costs_what_its_partition_says() -> None:
    own = play(Setting(Scenario("sine", 4), 20, 2))
    none = play(Setting(Scenario("sine", 4), 20, 2, local=(), percent=100.0, percent_down=100.0))
    assert none["bytes_up"] > 2 * own["bytes_up"]
    assert none["operations"] > own["operations"]
    assert [point[0] for point in own["curve"]] == [2, 4]
    assert own == play(Setting(Scenario("sine", 4), 20, 2))


def test_one_seed_tells_no_difference() -> None:
    one: dict[str, dict[str, Any]] = {"a": {"finals": [2.0]}, "b": {"finals": [1.5]}}
    gap = difference(one, "a", "b")
    assert gap.mean == pytest.approx(0.5)
    assert gap.ci95 > abs(gap.mean)


@pytest.mark.slow
def test_the_experiment_writes_a_page_of_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition, "QUICK", {"sine": 4})
    with Study(tmp_path, 2, Console(stderr=True)) as study:
        report = partition.make(Request({}, 2, quick=True), study)
    assert {"local=2", "local=none", "local=none/all sent", "local=0,1"} <= report.results.keys()
    for result in report.results.values():
        assert {"loss", "bytes_up", "bytes_down", "operations", "rounds", "curve"} <= result.keys()
    gap = difference(report.results, "local=2", "local=none")
    assert f"{gap.mean:+.3f}" in report.findings
    page = write(report, tmp_path, {"seeds": "2"}).read_text()
    assert "local=0,1,2 was left out: every layer is local" in page
    assert (tmp_path / "partition-sine.svg").exists()
