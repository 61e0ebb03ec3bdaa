"""`tinymetafed experiment` refuses what it cannot do, and goes on where it was stopped."""

import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from experiments.catalogue import EXPERIMENTS
from experiments.methods.catalogue import METHODS
from tests.support import interruptible

COMMAND = [*interruptible.COMMAND, "experiment"]
PATIENCE = 100


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
