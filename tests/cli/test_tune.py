"""`tinymetafed tune` finds settings within its budget, and writes a spec with the evidence."""

import csv
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import commands
from localfleet.processes import PROJECT
from protocol.spec.spec import Spec
from tests.support import interruptible
from tuning.space import bytes_most, values_of
from tuning.spec_search import SearchResult

SINE = PROJECT / "specs" / "sine.toml"
COMMAND = [*interruptible.COMMAND, "tune"]
PATIENCE = 110
CPU = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "COLUMNS": "200"}


def short(tmp_path: Path, *changes: tuple[str, str], rounds: int = 20) -> Path:
    """The sine spec with few rounds and other values."""
    text = SINE.read_text()
    for old, new in (("count = 300", f"count = {rounds}"), *changes):
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "spec.toml"
    path.write_text(text)
    return path


def tune(*flags: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, flags)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=os.environ | CPU,
    )


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_bad_rate_is_found_out_within_the_bytes(tmp_path: Path) -> None:
    spec = short(tmp_path, ("rate_global = 0.005", "rate_global = 0.0005"), rounds=40)
    out = tmp_path / "found.toml"
    fixed = "percent,percent_down,support,local,rate_local,optimizer"
    flags = ("--spec", spec, "--fix", fixed, "--runs", 12, "--out", out, "--json")
    done = tune(*flags)
    assert done.returncode == 0, done.stderr
    *runs, last = map(json.loads, done.stdout.splitlines())
    summary: dict[str, Any] = last["summary"]
    given, found = Spec.from_file(spec), Spec.from_file(out)
    assert len(runs) == 12
    assert not summary["kept_given"]
    assert summary["gain"]["mean"] > summary["gain"]["ci95"] > 0
    assert summary["values"] == values_of(found)
    assert found.training.rate_global > 0.0005
    # What was to stay has stayed, and so have the comments.
    changed = {name for name, value in values_of(found).items() if value != values_of(given)[name]}
    assert changed <= {"rate_global", "step_max"}
    text = out.read_text()
    assert text.startswith("# Written by `tinymetafed tune ")
    assert "# P: share of the global parameters that it sends back" in text
    # No run took more than the given spec may, and none that would was begun.
    budget = bytes_most(given)
    table = rows(tmp_path / "found.runs.csv")
    begun = [row for row in table if row["state"] != "skipped"]
    assert len(begun) == 12
    assert all(float(row["bytes"]) <= budget for row in begun)
    assert all("bytes" in row["reason"] for row in table if row["state"] == "skipped")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_who_stops_it_gets_the_best_so_far(tmp_path: Path, stop: signal.Signals) -> None:
    spec, out = short(tmp_path, rounds=4), tmp_path / "found.toml"
    process = subprocess.Popen(
        [*COMMAND, "--spec", spec, "--out", out, "--json", "--runs", "100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | CPU,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["state"] == "finished":
                break
        process.send_signal(stop)
        _, said = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "Stopped early" in out.read_text()
    losses = {
        row["run"]: float(row["loss"])
        for row in rows(tmp_path / "found.runs.csv")
        if row["state"] == "finished"
    }
    best = min(losses, key=losses.__getitem__)
    (row,) = (row for row in rows(tmp_path / "found.runs.csv") if row["run"] == best)
    found = values_of(Spec.from_file(out))
    assert {name: str(value) for name, value in found.items()} == {
        name: row[name] for name in found
    }


def test_ctrl_c_before_the_first_run_is_over_leaves_what_was_found_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, runs = tmp_path / "found.toml", tmp_path / "found.runs.csv"
    runs.write_text("of another search")

    def interrupted(*_: object, **__: object) -> SearchResult:
        return SearchResult(candidates=[], importances={}, was_interrupted=True)

    # A signal to a process would come now before, now after its search began.
    monkeypatch.setattr("tuning.tune.search", interrupted)
    done = CliRunner().invoke(commands, ["tune", "--spec", str(SINE), "--out", str(out)])
    assert done.exit_code == 130, done.output
    assert "stopped before the first run was over; nothing is written" in done.stderr
    assert runs.read_text() == "of another search"
    assert not out.exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--fix", "colour"], "--fix colour: there are percent, percent_down"),
        (["--out", "no/folder/spec.toml"], "there is no folder no/folder; make it first"),
        (["--bytes", "100"], "takes at most 100 bytes"),
    ],
)
def test_what_cannot_be_done_is_one_line(flags: list[str], message: str) -> None:
    done = tune("--spec", SINE, *flags)
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("tinymetafed: ")
    assert message in last
