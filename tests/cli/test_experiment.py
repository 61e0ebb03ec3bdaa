"""`tinymetafed experiment` writes what it promises, refuses what it cannot do, and can stop."""

import csv
import json
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from experiments.catalogue import EXPERIMENTS, compare
from experiments.comparison.result import Effort
from experiments.comparison.run import SINE
from experiments.harness import report
from experiments.harness.request import Request
from experiments.harness.study import Study
from experiments.methods.catalogue import METHODS
from tests.support import interruptible

COMMAND = [*interruptible.COMMAND, "experiment"]
PATIENCE = 100
TINY = Effort(
    rounds=6,
    search_runs=1,
    search_rounds=2,
    validation_tasks=10,
    test_tasks=20,
    curve_tasks=10,
    points=3,
)


def experiment(folder: Path, *flags: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, flags)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        cwd=folder,
        env=os.environ | {"COLUMNS": "200"},
    )


def test_a_wrong_name_is_answered_by_the_right_ones(tmp_path: Path) -> None:
    done = experiment(tmp_path, "sinus")
    assert done.returncode == 2
    assert "there is no experiment 'sinus'" in done.stderr
    assert all(f"  {name}" in done.stderr for name in EXPERIMENTS)
    assert not (tmp_path / "build").exists()


def test_help_names_every_experiment(tmp_path: Path) -> None:
    done = experiment(tmp_path, "--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in EXPERIMENTS)


def test_missing_data_are_asked_for_and_useless_data_refused(tmp_path: Path) -> None:
    done = experiment(tmp_path, "omniglot")
    assert done.returncode == 2
    assert "omniglot needs --data PATH" in done.stderr
    assert "brendenlake/omniglot" in done.stderr
    done = experiment(tmp_path, "omniglot", "--data", tmp_path / "nothing")
    assert done.returncode == 2
    assert "there is no such file or folder" in done.stderr
    images = tmp_path / "drawings.npz"
    np.savez(images, images=np.ones((9, 20, 105, 105), bool))
    done = experiment(tmp_path, "sine", "--data", images)
    assert done.returncode == 2
    assert "sine has no use for --data" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_who_stops_it_goes_on_later(tmp_path: Path, stop: signal.Signals) -> None:
    words = [*COMMAND, "sine", "--quick", "--seeds", "1", "--processes", "1"]
    runs = tmp_path / "build" / "experiments" / "sine-quick" / "runs"
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as running:
        end = time.monotonic() + PATIENCE
        while len(list(runs.glob("*.json"))) < 2 and time.monotonic() < end:
            time.sleep(0.1)  # There is nothing to wait on but files.
        running.send_signal(stop)
        _, said = running.communicate(timeout=20)
    assert running.returncode == 130
    assert "the same command goes on" in said
    assert "Traceback" not in said
    kept = {file.name: file.stat().st_mtime_ns for file in runs.glob("*.json")}
    assert len(kept) >= 2
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as running:
        while len(list(runs.glob("*.json"))) <= len(kept) and time.monotonic() < end:
            time.sleep(0.1)
        running.send_signal(stop)
        _, said = running.communicate(timeout=20)
    assert f"{len(kept)} of {len(METHODS)} runs were made before" in said
    assert all((runs / name).stat().st_mtime_ns == time_ for name, time_ in kept.items())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of six rounds, for its form."""
    folder = tmp_path_factory.mktemp("sine")
    comparison = replace(SINE, quick=TINY)
    with Study(folder, 2, Console(quiet=True)) as study:
        done = compare(comparison, Request({}, seeds=2, quick=True), study)
    report.write(done, folder, {"command": "`tinymetafed experiment sine`", "seeds": "2"})
    return folder


def test_results_say_of_every_method_what_it_came_to_and_cost(made: Path) -> None:
    results = json.loads((made / "results.json").read_text())
    assert list(results) == list(METHODS)
    for name, result in results.items():
        assert set(result) == {"loss", "bytes_up", "bytes_down", "operations", "rounds", "curve"}
        assert set(result["loss"]) == {"mean", "ci95"}
        rounds, total, value = result["curve"][-1]
        assert rounds == result["rounds"] == (0 if name == "scratch" else 6)
        assert total == pytest.approx(result["bytes_up"] + result["bytes_down"], abs=2)
        assert value == pytest.approx(result["loss"]["mean"])
    assert results["tinymetafed"]["bytes_up"] < 0.2 * results["tinyreptile"]["bytes_up"]


def test_tables_hold_every_run_and_every_setting_that_was_tried(made: Path) -> None:
    def rows(name: str) -> list[dict[str, str]]:
        with (made / f"{name}.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    assert len(rows("runs")) == 2 * len(METHODS)
    assert len(rows("search")) == len(METHODS)
    assert {row["method"] for row in rows("curves")} == set(METHODS)
    results = json.loads((made / "results.json").read_text())
    for row in rows("results"):
        assert float(row["loss"]) == results[row["method"]]["loss"]["mean"]


def test_pictures_are_there_for_print_and_for_the_web(made: Path) -> None:
    for name in ("rounds", "bytes", "operations", "parts"):
        with Image.open(made / f"{name}.png") as picture:
            assert min(picture.size) > 600
            assert len(picture.getcolors(2**20) or []) > 50
        drawn = (made / f"{name}.svg").read_text()
        assert "<svg" in drawn
        assert "tinymetafed" in drawn
    assert "fedrecon" in (made / "bytes.svg").read_text()
    assert "no-annealing" in (made / "parts.svg").read_text()


def test_the_page_names_how_it_was_made_and_what_was_found(made: Path) -> None:
    page = (made / "README.md").read_text()
    assert "- command: `tinymetafed experiment sine`" in page
    results = json.loads((made / "results.json").read_text())
    for name, result in results.items():
        assert f"| {name} | {result['loss']['mean']:.3f} ± " in page
    ratio = results["tinymetafed"]["loss"]["mean"] / results["tinyreptile"]["loss"]["mean"]
    assert f"| tinyreptile | {ratio:.2f} | " in page
    assert "1 runs of 2 rounds each" in page
    assert all(name in page for name in ("rounds.png", "bytes.png", "operations.png", "parts.png"))
