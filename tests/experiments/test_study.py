"""A study keeps what its runs came to, and goes on where it was stopped."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from experiments.errors import ExperimentError
from experiments.harness.scenario import Scenario
from experiments.harness.study import Study
from experiments.methods.runs import MethodRun, play


def runs(count: int) -> list[MethodRun]:
    settings = {"rate": 0.02, "epochs": 1.0}
    return [
        MethodRun(
            scenario=Scenario("sine", 2),
            method="fedavg",
            settings=settings,
            seed=seed,
            test_tasks=5,
        )
        for seed in range(count)
    ]


def study(folder: Path, *, fresh: bool = False) -> Study:
    return Study(folder, 1, Console(quiet=True), fresh=fresh)


def test_what_was_made_is_not_made_again(tmp_path: Path) -> None:
    with study(tmp_path) as first:
        outcomes = first.run(play, runs(2), "runs")
    kept = sorted((tmp_path / "runs").iterdir())
    assert len(kept) == 2
    # Whoever made it again would not come to this.
    said = json.loads(kept[0].read_text())
    said["outcome"]["value"] = -1.0
    kept[0].write_text(json.dumps(said))
    with study(tmp_path) as second:
        again = second.run(play, runs(3), "runs")
    assert min(o["value"] for o in again[:2]) == -1.0
    assert len({o["value"] for o in [*again, *outcomes]}) == 4


def test_a_run_cut_off_in_its_writing_is_made_again(tmp_path: Path) -> None:
    with study(tmp_path) as first:
        outcomes = first.run(play, runs(1), "runs")
    (kept,) = (tmp_path / "runs").iterdir()
    kept.write_text(kept.read_text()[:40])
    with study(tmp_path) as second:
        assert second.run(play, runs(1), "runs") == outcomes


def test_fresh_makes_all_anew(tmp_path: Path) -> None:
    with study(tmp_path) as first:
        outcomes = first.run(play, runs(1), "runs")
    (kept,) = (tmp_path / "runs").iterdir()
    kept.write_text(json.dumps({"seconds": 0, "outcome": {"value": -1.0}}))
    with study(tmp_path, fresh=True) as second:
        assert second.run(play, runs(1), "runs") == outcomes


@dataclass(frozen=True)
class Nobody:
    """A job that kills the process which takes it."""

    name: str = "nobody"


def test_a_process_that_dies_is_told(tmp_path: Path) -> None:
    with study(tmp_path) as one, pytest.raises(ExperimentError, match="has died"):
        one.run(_die, [Nobody()], "runs")


def _die(job: Nobody) -> dict[str, float]:
    del job
    os._exit(1)
