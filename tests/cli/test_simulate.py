"""`tinymetafed simulate` shows a run to people and to scripts, and ends in order."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localfleet.processes import PROJECT
from protocol.spec.spec import Spec
from tests.support import interruptible

SINE = PROJECT / "specs" / "sine.toml"
COMMAND = [*interruptible.COMMAND, "simulate"]
PATIENCE = 60


def simulate(*flags: object, spec: Path = SINE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "--spec", spec, *map(str, flags)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=os.environ | {"COLUMNS": "200"},
    )


def lines(done: subprocess.CompletedProcess[str]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    *records, last = map(json.loads, done.stdout.splitlines())
    return records, last["summary"]


def test_a_run_for_people_says_what_it_does_and_what_it_came_to() -> None:
    done = simulate("--boards", 20, "--rounds", 3, "--held-out", 10)
    assert done.returncode == 0, done.stderr
    assert "20 boards, 3 rounds; a round invites 8." in done.stderr
    assert "1,120 parameters are shared and 33 local" in done.stderr
    assert re.search(r"│ updates accepted +│ +24 │", done.stdout)
    assert re.search(r"│ loss on held-out tasks +│ +\d\.\d+ │", done.stdout)


def test_a_run_for_scripts_is_a_line_a_round_and_a_summary(tmp_path: Path) -> None:
    out = tmp_path / "model.npz"
    flags = ["--boards", 30, "--rounds", 4, "--cohort", 12, "--seed", 7, "--held-out", 5]
    done = simulate(*flags, "--every", 2, "--json", "--out", out)
    records, summary = lines(done)
    assert [record["round"] for record in records] == [0, 1, 2, 3]
    assert [record["accepted"] for record in records] == [12] * 4
    assert ["held_out_loss" in record for record in records] == [False, True, False, True]
    assert summary["held_out_loss"] == records[-1]["held_out_loss"]
    assert summary["bytes_up"] == sum(record["bytes_up"] for record in records)
    with np.load(out) as model:
        spec = Spec.model_validate_json(str(model["spec"]))
        assert (spec.rounds.count, spec.rounds.cohort, int(model["version"])) == (4, 12, 4)
        shapes = [model[f"layer{i}_weights"].shape for i in (0, 1)]
        assert shapes == [(32, 2), (32, 33)]
        weights = np.concatenate([model[f"layer{i}_weights"].ravel() for i in (0, 1)])
        assert (weights != spec.start()).any()
        assert (model["layer2_start"].ravel() == spec.local_start()).all()
    again, _ = lines(simulate(*flags, "--every", 2, "--json"))
    assert again == records
    changed, _ = lines(simulate(*flags, "--json", "--seed", 8))
    assert changed[0]["loss"] != records[0]["loss"]


@pytest.mark.slow
def test_every_condition_is_a_flag() -> None:
    """What they do is tested where they are; here, that each reaches the run."""
    flags = ["--boards", 12, "--rounds", 3, "--held-out", 0, "--json"]
    calm, _ = lines(simulate(*flags))
    for condition in (
        ("--dropout", 0.5),
        ("--stragglers", 1),
        ("--seconds", 2),
        ("--awake", 0.3, "--period", 5),
        ("--drift", 5),
        ("--label-noise", 0.5),
        ("--poisoned", 0.3, "--poison", "constant"),
        ("--engine", "float64"),
    ):
        records, summary = lines(simulate(*flags, *condition))
        assert records != calm, condition
        assert summary["held_out_loss"] is None


def test_ctrl_c_ends_a_run_with_what_there_is(tmp_path: Path) -> None:
    out = tmp_path / "model.npz"
    process = subprocess.Popen(
        [*COMMAND, "--spec", SINE, "--rounds", "100000", "--json", "--out", out],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, said = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "simulate: stopped after" in said
    *_, last = [first, *rest.splitlines()]
    summary = json.loads(last)["summary"]
    assert summary["rounds"] >= 1
    with np.load(out) as model:
        assert model["version"] == summary["version"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "nowhere"], "nowhere: there is no such file or folder. Omniglot: give"),
        (["--out", "no/folder/model.npz"], "there is no folder no/folder; make it first"),
        (["--split", "alphabet"], "these data cannot be split by alphabet; take iid"),
        (["--alpha", "0.5"], "sines have no classes"),
    ],
)
def test_what_cannot_be_done_is_one_line(flags: list[str], message: str) -> None:
    done = simulate(*flags)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("tinymetafed: ")
    assert message in done.stderr


def test_a_cohort_below_the_quorum_is_refused(tmp_path: Path) -> None:
    spec = tmp_path / "spec.toml"
    spec.write_text(SINE.read_text().replace("cohort = 8", "cohort = 8\nquorum = 6"))
    done = simulate("--cohort", 4, spec=spec)
    assert done.returncode == 2
    assert "--cohort 4: quorum 6 is more than the cohort's 4 boards" in done.stderr


def test_a_log_of_ones_own(tmp_path: Path) -> None:
    """Twelve boards recorded two sensors that tell an idle pump from a running one."""
    rng = np.random.default_rng(0)
    rows = ["board,label,flow,heat"]
    for board in range(12):
        for label, flow in (("idle", 0.2), ("runs", 1.0)):
            rows += [
                f"pump-{board},{label},{flow + rng.normal() / 9:.3f},{rng.random():.3f}"
                for _ in range(30)
            ]
    log, spec = tmp_path / "log.csv", tmp_path / "spec.toml"
    log.write_text("\n".join(rows))
    text = SINE.read_text().replace("inputs = 1", "inputs = 2")
    text = text.replace('"mse"', '"cross_entropy"').replace("outputs = 1 ", "outputs = 2 ")
    text = re.sub(r"(support|query) = 32", r"\1 = 12", text)
    spec.write_text(re.sub(r"(?m)^outputs = 1$", "outputs = 2", text))
    done = simulate("--data", log, "--rounds", 40, "--held-out", 30, "--json", spec=spec)
    records, summary = lines(done)
    assert summary["held_out_accuracy"] > 0.8
    assert records[-1]["accuracy"] > records[0]["accuracy"]
