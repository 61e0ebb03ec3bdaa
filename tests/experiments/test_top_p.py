"""Top-P and its rivals: who sends what, what is kept, and what an observer makes of it."""

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
from experiments.methods.selections import Rival, rival
from experiments.top_p import observer
from experiments.top_p import run as top_p
from experiments.top_p.attack import Attack, attack, auc
from protocol import sparse
from protocol.spec.spec import Spec
from simulation.boards import LocalUpdate, Order, Trainer
from simulation.conditions import Poisoning
from simulation.engine.fixed import Engine

if TYPE_CHECKING:
    from simulation.boards import Selection

BOARDS = 6
NAMES = [f"board-{number}" for number in range(BOARDS)]
SPEC = Scenario("sine", 10).spec
EVERYTHING = SPEC.training.model_copy(update={"percent": 100.0, "value_bits": 16})


def learn(
    sends: "Selection | None", round_: int = 0, residuals: np.ndarray | None = None
) -> list[LocalUpdate]:
    spec = SPEC.model_copy(update={"training": EVERYTHING})
    tasks, _ = Scenario("sine", 10).tasks()
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
def test_what_is_sent_and_what_is_kept_make_up_what_was_learned(name: Rival, round_: int) -> None:
    kept = np.random.default_rng(1).integers(-50, 50, (BOARDS, SPEC.global_count)).astype(np.int16)
    wanted = dense(learn(None, round_)) + kept
    learned = learn(rival(name, 50.0, 0), round_, kept)
    left = np.array([each.residual for each in learned])
    assert np.array_equal(dense(learned) + left, wanted)


def test_random_draws_p_percent_and_others_in_another_round() -> None:
    chosen = [
        rival("random", 10.0, 0)(np.ones((BOARDS, 200), np.int64), order)
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
    chooses = rival("threshold", 10.0, 0)
    shares = []
    for round_ in range(60):
        scale = 400 * 0.97**round_ * np.array([[3.0], [1.0]])  # Changes become smaller.
        wanted = np.rint(rng.normal(0, scale, (2, 1000))).astype(np.int64)
        shares.append(chooses(wanted, Order(round_, SPEC.start(), (0, 1), None)).mean(axis=1))
    much, little = np.mean(shares, axis=0)
    assert (much + little) / 2 == pytest.approx(0.1, abs=0.02)
    assert much > 2 * little


def test_periodic_is_silent_between_its_rounds() -> None:
    counts = [np.count_nonzero(dense(learn(rival("periodic", 25.0, 0), n))) for n in range(5)]
    assert [count > 0 for count in counts] == [False, False, False, True, False]


@given(st.lists(st.integers(0, 9), min_size=1), st.lists(st.integers(0, 9), min_size=1))
def test_the_auc_counts_pairs(members: list[float], others: list[float]) -> None:
    pairs = [(a > b) + (a == b) / 2 for a in members for b in others]
    assert auc(members, others) == pytest.approx(np.mean(pairs))


def test_an_observer_tells_sines_from_updates_and_less_where_little_is_sent() -> None:
    job = Attack(Scenario("sine", 10), (), 0, 60, 600, (0.1, 100.0), (8,))
    found = attack(job)
    assert found["100/8"]["task"] > 0.8
    assert found["0.1/8"]["task"] < found["100/8"]["task"] - 0.05


@pytest.mark.slow
def test_the_experiment_writes_a_page_of_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(top_p, "QUICK_ROUNDS", {"sine": 4})
    monkeypatch.setattr(observer, "QUICK_ROUNDS", {"sine": 1})
    with Study(tmp_path, 2, Console(stderr=True)) as study:
        report = top_p.make(Request({}, 2, quick=True), study)
    assert {"P=1", "P=10", "P=100", "random/P=10", "threshold+feedback/P=10", "int4/P=10"} <= (
        report.results.keys()
    )
    full = report.results["P=100"]
    assert full["bytes_up"] > report.results["P=10"]["bytes_up"]
    assert full["rounds_to_target"] <= full["rounds"]
    seen = report.results["observer/sine/full/round 0/P=100/int8"]["task"]["mean"]
    assert f"{seen:.3f}" in report.findings
    page = write(report, tmp_path, {"seeds": "2"}).read_text()
    assert "![sine: loss by P](top-p-sine.png)" in page
