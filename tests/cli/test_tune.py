"""`tinymetafed tune` finds settings within its budget, and writes a spec with the evidence."""

import csv
import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomlkit
from typer.testing import CliRunner

from cli.main import commands
from localfleet.processes import PROJECT
from protocol.spec.spec import Spec
from protocol.spec.strategy import Optimizer
from tests.support import interruptible
from tuning.errors import TuningError
from tuning.search import Budget, Found, Search
from tuning.space import Space, Values, applied, bytes_most, values_of
from tuning.spec_file import rewritten
from tuning.worker import Job, Pools, played

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
    flags = ("--spec", spec, "--fix", fixed, "--trials", 12, "--out", out, "--json")
    done = tune(*flags)
    assert done.returncode == 0, done.stderr
    *trials, last = map(json.loads, done.stdout.splitlines())
    summary: dict[str, Any] = last["summary"]
    given, found = Spec.from_file(spec), Spec.from_file(out)
    assert len(trials) == 12
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
    table = rows(tmp_path / "found.trials.csv")
    run = [row for row in table if row["state"] != "skipped"]
    assert len(run) == 12
    assert all(float(row["bytes"]) <= budget for row in run)
    assert all("bytes" in row["reason"] for row in table if row["state"] == "skipped")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_who_stops_it_gets_the_best_so_far(tmp_path: Path, stop: signal.Signals) -> None:
    spec, out = short(tmp_path, rounds=4), tmp_path / "found.toml"
    process = subprocess.Popen(
        [*COMMAND, "--spec", spec, "--out", out, "--json", "--trials", "100000"],
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
        row["trial"]: float(row["loss"])
        for row in rows(tmp_path / "found.trials.csv")
        if row["state"] == "finished"
    }
    best = min(losses, key=losses.__getitem__)
    (row,) = (row for row in rows(tmp_path / "found.trials.csv") if row["trial"] == best)
    found = values_of(Spec.from_file(out))
    assert {name: str(value) for name, value in found.items()} == {
        name: row[name] for name in found
    }


def test_ctrl_c_before_the_first_run_is_over_leaves_what_was_found_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, trials = tmp_path / "found.toml", tmp_path / "found.trials.csv"
    trials.write_text("of another search")

    def interrupted(*_: object, **__: object) -> Found:
        return Found([], {}, was_interrupted=True)

    # A signal to a process would come now before, now after its search began.
    monkeypatch.setattr("cli.tune.search", interrupted)
    done = CliRunner().invoke(commands, ["tune", "--spec", str(SINE), "--out", str(out)])
    assert done.exit_code == 130, done.output
    assert "stopped before the first run was over; nothing is written" in done.stderr
    assert trials.read_text() == "of another search"
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


def test_a_board_takes_no_more_bytes_than_was_reckoned(tmp_path: Path) -> None:
    spec = Spec.from_file(short(tmp_path, rounds=6))
    pools = Pools.of(spec, None)
    for percent, down in ((1.0, 1.0), (10.0, 20.0), (100.0, 100.0)):
        other = applied(spec, {"percent": percent, "percent_down": down})
        *_, last = played(Job(other, 8, 0, 10), pools)
        assert last.over
        assert 0.7 * bytes_most(other) < last.bytes <= bytes_most(other)


def test_a_partition_that_fits_no_board_is_skipped_before_it_costs_anything() -> None:
    """Shared parameters take more heap than local ones, and the board has no byte to spare."""
    spec = applied(Spec.from_file(SINE), {"local": "1,2", "percent": 1.0})
    assert set(Space(spec).partitions()) == {"2", "1,2"}
    heap = spec.heap_needed
    tight = Spec.model_validate(spec.model_dump() | {"heap": heap})
    search = Search(Space(tight, ["percent"]), Budget(10**9, 60, 30), seed=0)
    for _ in range(10):
        assert search.propose() is not None
    skipped = [tried for tried in search.tried if tried.skipped]
    assert skipped
    assert all("bytes of heap" in tried.skipped for tried in skipped)
    assert {tried.values["local"] for tried in skipped} == {"2"}  # What was drawn, as the CSV says.
    begun = [tried for tried in search.tried if not tried.skipped]
    assert {values_of(tried.spec)["local"] for tried in begun} == {"1,2"}


def test_a_file_keeps_its_comments_and_its_columns() -> None:
    text = SINE.read_text()
    values = values_of(Spec.from_toml(text)) | {"percent": 2.5, "local": "1,2", "support": 40}
    new = rewritten(text, values)
    assert values_of(Spec.from_toml(new)) == values
    assert re.findall("#.*", new) == re.findall("#.*", text)
    assert "support = 40            # samples that rebuild" in new
    back = rewritten(new, values_of(Spec.from_toml(text)))
    assert Spec.from_toml(back) == Spec.from_toml(text)


@pytest.mark.parametrize(
    ("name", "rule"), [("sine", "step"), ("keywords", "adam"), ("omniglot", "adam")]
)
def test_a_file_gets_another_optimizer_without_the_settings_of_the_old(
    name: str, rule: str
) -> None:
    text = (PROJECT / "specs" / f"{name}.toml").read_text()
    values = values_of(Spec.from_toml(text)) | {"optimizer": rule, "step_max": 0.5}
    new = Spec.from_toml(rewritten(text, values))
    assert values_of(new) == values
    assert new.rounds.optimizer == Optimizer.model_validate({"rule": rule})


def test_every_optimizer_is_tried_with_steps_of_its_own() -> None:
    given = Spec.from_file(SINE)
    search = Search(Space(given), Budget(10**9, 60, 60), seed=1)
    for _ in range(40):
        assert search.propose() is not None
    steps: dict[str, list[float]] = {}
    for tried in search.tried:
        steps.setdefault(str(tried.values["optimizer"]), []).append(float(tried.values["step_max"]))
    assert search.tried[0].values == values_of(given)
    assert set(steps) == {"step", "avgm", "adam"}
    assert 0.3 <= min(steps["step"]) <= max(steps["step"]) <= 10
    assert 0.03 <= min(steps["avgm"]) <= max(steps["avgm"]) <= 1
    assert 0.003 <= min(steps["adam"]) <= max(steps["adam"]) <= 0.3
    same = [tried.spec for tried in search.tried if tried.values["optimizer"] == "adam"]
    assert {spec.rounds.optimizer.tau for spec in same} == {given.rounds.optimizer.tau}


def inline(table: str) -> str:
    """The values under a table's header, as they stand between braces."""
    return ", ".join(re.findall(r"^\w+ = [^#\n]*[^#\s]", table, re.MULTILINE))


def layouts() -> dict[str, str]:
    """The shipped spec in other layouts that TOML allows."""
    text = SINE.read_text()
    optimizer = text[text.index("[rounds.optimizer]") :]
    rest = text.removesuffix(optimizer)
    training = rest[rest.index("[training]") : rest.index("[rounds]")]
    rounds = rest[rest.index("[rounds]") :]
    before = rest.removesuffix(rounds)
    dotted = "".join(f"optimizer.{pair}\n" for pair in inline(optimizer).split(", "))
    within = f"rounds = {{ {inline(rounds)}, optimizer = {{ {inline(optimizer)} }} }}\n"
    return {
        "a quoted name": text.replace("percent = 10 ", '"percent" = 10 '),
        "tables between braces": within
        + f"training = {{ {inline(training)} }}  # all of it\n"
        + before.removesuffix(training),
        "no optimizer": f"rounds = {{ {inline(rounds)} }}\n{before}",
        "parts of a table apart": f"{before.removesuffix(training)}{optimizer}\n{training}{rounds}",
        "dotted names": f"{before}{rounds}{dotted}",
        "lines of another system": text.replace("\n", "\r\n"),
        "no end of the last line": text.rstrip(),
    }


@pytest.mark.parametrize("layout", layouts())
@pytest.mark.parametrize(
    "changed",
    [
        {"percent": 5.0, "local": "1,2"},
        {"optimizer": "step", "step_max": 2.0, "percent_down": 3.0},
        {"optimizer": "avgm", "step_max": 0.4},
    ],
)
def test_a_file_of_another_layout_is_rewritten_as_well(layout: str, changed: Values) -> None:
    text = layouts()[layout]
    given = Spec.from_toml(text)
    values = values_of(given) | changed
    new = rewritten(text, values)
    assert Spec.from_toml(new) == applied(given, values)
    assert re.findall("#.*", new) == re.findall("#.*", text)


def test_a_file_that_cannot_be_rewritten_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    text = SINE.read_text()
    monkeypatch.setattr(tomlkit, "dumps", lambda _: text)  # As if nothing had been found.
    with pytest.raises(TuningError, match="a line of its own"):
        rewritten(text, values_of(Spec.from_toml(text)) | {"percent": 5.0})


def test_no_character_is_learned_and_judged_by(tmp_path: Path) -> None:
    """Each character is drawn in an ink of its own, so that it is told wherever it comes."""
    spec = Spec.from_file(PROJECT / "specs" / "omniglot.toml")
    images = np.ones((45, 20, 105, 105), np.bool_)  # Paper.
    corner = np.arange(49).reshape(7, 7)
    for character in range(45):
        images[character, :, :7, :7] = corner > character
    path = tmp_path / "characters.npz"
    np.savez_compressed(path, images=images)
    pools = Pools.of(spec, path)
    seen = []
    for tasks in (pools.learned, pools.validated, pools.tested):
        x, _ = tasks.draw(np.random.default_rng(0), 200)
        seen.append(set(x.max(axis=2).ravel().tolist()))
    learned, validated, tested = seen
    assert all(seen)
    assert not learned & validated
    assert not (learned | validated) & tested
