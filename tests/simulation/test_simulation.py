"""A simulated fleet does what a real one does, repeats itself, and bears what befalls it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregator.store.store import read_history
from localfleet import processes
from localfleet.processes import PROJECT
from protocol import fixed
from protocol.fixed import Words
from protocol.messages import Update
from protocol.spec.rounds import Canary
from protocol.spec.spec import Spec
from protocol.spec.strategy import Combine, Optimizer
from rounds.learning import Verdict
from runtime.watcher import Watcher
from simulation.boards import AT_ONCE, Crew, Trainer
from simulation.conditions import Conditions, DriftTasks, NoisyLabels, Poison, Poisoning, Sleep
from simulation.engine.fixed import Engine
from simulation.engine.float64 import FloatEngine
from simulation.errors import SimulationError
from simulation.exam import measure
from simulation.record import Record
from simulation.run import Run
from simulation.tasks.base import Tasks
from simulation.tasks.sines import SineTasks
from simulation.traffic import Traffic
from tests.conftest import Broker
from tests.support.fleet import Fleet
from tests.support.oracle import Samples
from tests.support.specs import LETTERS, SINES, spec_text

SINE = Spec.from_file(PROJECT / "specs" / "sine.toml")
CALM = Conditions()
DEADLINE = SINE.rounds.deadline


def with_rounds(spec: Spec, **settings: Any) -> Spec:
    return spec.model_copy(update={"rounds": spec.rounds.model_copy(update=settings)})


def with_training(spec: Spec, **settings: Any) -> Spec:
    return spec.model_copy(update={"training": spec.training.model_copy(update=settings)})


SHORT = with_training(with_rounds(SINE, count=6, cohort=20), support=2, query=2)


@dataclass
class Played:
    """What came of a run."""

    records: list[Record]
    published: list[bytes]
    """After each round."""
    run: Run

    @property
    def last(self) -> Record:
        return self.records[-1]


def play(  # noqa: PLR0917
    spec: Spec,
    names: Sequence[str] | int,
    conditions: Conditions = CALM,
    tasks: Tasks | None = None,
    seed: int = 0,
    processes_: int = 1,
    engine: type[Engine | FloatEngine] = Engine,
) -> Played:
    if isinstance(names, int):
        names = [f"board-{i}" for i in range(names)]
    trainer = Trainer(spec, names, tasks or SineTasks.of(spec), engine, conditions.poisoned, seed)
    with Crew(trainer, processes_) as crew:
        run = Run(spec, names, crew, conditions, seed)
        records, published = [], []
        for record in run.rounds():
            records.append(record)
            published.append(run.model.published.tobytes())
    return Played(records, published, run)


# --- As real boards do


@dataclass
class Recorded(Tasks):
    """The samples that real boards read from files."""

    names: Sequence[str]
    given: Samples

    def samples(self, board: int, round_: int, rng: np.random.Generator) -> tuple[Words, Words]:
        del rng
        x, y = zip(*self.given[self.names[board]][round_], strict=True)
        labels = [fixed.to_activation(np.array(a)) if isinstance(a, list) else [a] for a in y]
        return fixed.to_activation(np.array(x)), np.array(labels)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        spec_text(**SINES),
        spec_text(**(SINES | {"percent": 5, "value_bits": 4, "error_feedback": True})),
        spec_text(**LETTERS),
    ],
    ids=["dense", "error feedback", "convolutions"],
)
def test_a_simulated_fleet_is_the_real_one_bit_for_bit(
    tmp_path: Path, broker: Broker, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight real boards of both word sizes, a real broker and aggregator; then the simulation of
    boards of the same names, given the same samples. Every version is the same, every update and
    every loss; and a round costs as many bytes as the boards have counted.
    """
    names = [f"board-{i}" for i in range(8)]
    for cohort in ("cohort = 2", "cohort = 4"):
        text = text.replace(cohort, "cohort = 8")
    fleet = Fleet(tmp_path, broker, text, names)
    with processes.stopping(fleet.programs):
        fleet.start()
        with Watcher(broker.port, fleet.topics) as watcher:
            fleet.wait_until_done(watcher)
    sent: dict[tuple[int, str], Update] = {}
    note = Traffic.update

    def update(self: Traffic, board: int, payload: bytes) -> None:
        read = Update.unpack(payload)
        sent[read.round, read.board] = read
        note(self, board, payload)

    monkeypatch.setattr(Traffic, "update", update)
    simulated = play(fleet.spec, names, tasks=Recorded(names, fleet.samples))
    assert simulated.published == fleet.journal.versions()
    history = read_history(tmp_path / "state")
    for record, facts in zip(simulated.records, history, strict=True):
        for name in ("round", "loss", "support_loss", "accuracy", "accepted", "late", "invited"):
            assert getattr(record, name) == getattr(facts, name), name
    real = {key: Update.unpack(fleet.journal.payload(*key)) for key in sent}
    assert len(real) == 8 * fleet.spec.rounds.count
    for key, theirs in real.items():
        for name in ("support", "query", "support_loss", "query_loss", "query_correct", "changes"):
            assert getattr(sent[key], name) == getattr(theirs, name), (key, name)
    last = fleet.spec.rounds.count - 1
    for name in names:  # The first round is left out: a real board connects before there is a plan.
        for way in ("bytes_up", "bytes_down"):
            ours, counted = (
                getattr(updates[last, name], way) - getattr(updates[0, name], way)
                for updates in (sent, real)
            )
            # A receipt may come in two, and times on real boards differ.
            assert ours == pytest.approx(counted, rel=0.1), (name, way)


# --- Repeats


@pytest.mark.slow
def test_a_seed_repeats_a_run_in_one_process_and_in_two() -> None:
    """Three batches of boards that fail, sleep, straggle and lie."""
    spec = with_rounds(SINE, count=4, cohort=2 * AT_ONCE + 9, quorum=200)
    spec = with_training(spec, support=3, query=3, error_feedback=True)
    rough = Conditions(
        stragglers=0.5, dropout=0.1, sleep=Sleep(0.9, 20), poisoned=Poisoning(0.1, Poison.RANDOM)
    )
    alone = play(spec, 400, rough, seed=5)
    assert len(alone.records) == 4
    again = play(spec, 400, rough, seed=5)
    assert (again.records, again.published) == (alone.records, alone.published)
    together = play(spec, 400, rough, seed=5, processes_=2)
    assert (together.records, together.published) == (alone.records, alone.published)
    other = play(spec, 400, rough, seed=6)
    assert other.published != alone.published


class Fatal(SineTasks):
    """Ends the process that asks for samples, as a system does that is out of memory."""

    def samples(self, board: int, round_: int, rng: np.random.Generator) -> tuple[Words, Words]:
        del board, round_, rng
        os._exit(1)


def test_a_process_that_dies_is_told() -> None:
    with pytest.raises(SimulationError, match="a process of the simulation has died"):
        play(SHORT, 20, tasks=Fatal(4), processes_=2)


def test_float64_learns_as_well() -> None:
    # By the plain step: by Adam two runs part ways in a few rounds, whatever the engine.
    spec = with_rounds(SINE, count=40, optimizer=Optimizer(), step_max=3.0)
    fixed_point, real = (play(spec, 8, engine=engine) for engine in (Engine, FloatEngine))
    assert real.published != fixed_point.published
    assert real.last.loss == pytest.approx(fixed_point.last.loss, rel=0.1)


def test_a_fleet_learns() -> None:
    played = play(with_rounds(SINE, count=80), 30)
    tested, engine = SineTasks.of(SINE), Engine(SINE, 100)
    before = measure(SINE, SINE.start(), tested, engine).loss.mean()
    after = measure(SINE, played.run.model.published, tested, engine).loss.mean()
    assert after < 0.6 * before
    assert {record.accepted for record in played.records} == {8}
    assert [record.version for record in played.records] == list(range(1, 81))


# --- What befalls a fleet


def test_without_any_trouble_a_round_takes_what_a_board_takes() -> None:
    played = play(SHORT, 20, Conditions(seconds=3))
    assert [record.seconds for record in played.records] == [3, 6, 9, 12, 15, 18]
    assert all(record.accepted == record.invited == 20 for record in played.records)


def test_boards_that_fail_cost_their_round_the_deadline() -> None:
    """They are back in the next round, without a model: they fetch it whole."""
    calm, played = play(SHORT, 20), play(SHORT, 20, Conditions(dropout=0.3))
    assert all(record.invited == 20 for record in played.records)
    accepted = sum(record.accepted for record in played.records)
    assert 0.5 * 120 < accepted < 0.9 * 120
    assert played.last.seconds == pytest.approx(6 * DEADLINE)
    fetched = (120 - accepted) * 2 * SHORT.global_count
    assert played.run.traffic.down.sum() > calm.run.traffic.down.sum() + 0.5 * fetched


def test_over_selection_makes_up_for_boards_that_fail() -> None:
    spec = with_rounds(SHORT, cohort=10, extra=1.0)
    played = play(spec, 20, Conditions(dropout=0.3))
    assert all(record.accepted >= 10 for record in played.records)
    assert played.last.seconds == 6


def test_if_all_boards_fail_the_round_is_announced_again() -> None:
    spec = with_rounds(SHORT, count=2, cohort=2)
    played = play(spec, 2, Conditions(dropout=0.9))
    assert len(played.records) == 2
    assert played.last.seconds > 4 * DEADLINE


def test_a_synchronous_round_waits_for_stragglers_and_a_buffered_one_does_not() -> None:
    slow = Conditions(stragglers=1)
    waited = play(SHORT, 20, slow)
    names = [f"board-{i}" for i in range(20)]
    slowest = max(slow.takes(0, name) for name in names)
    assert waited.last.seconds == pytest.approx(6 * min(slowest, DEADLINE))
    assert all(record.accepted == 20 for record in waited.records)
    buffered = play(with_rounds(SHORT, mode="buffered", quorum=5), 20, slow)
    assert buffered.last.seconds < waited.last.seconds / 2
    assert sum(record.late for record in buffered.records) > 0
    assert all(record.accepted >= 5 for record in buffered.records)


def test_with_a_quorum_the_slow_are_never_heard() -> None:
    slow = Conditions(stragglers=1)
    played = play(with_rounds(SHORT, quorum=10), 20, slow)
    fastest = sorted(slow.takes(0, f"board-{i}") for i in range(20))
    assert played.last.seconds == pytest.approx(6 * fastest[9])
    assert len(played.run.core.known.last_seen) == 10


def test_who_sleeps_is_not_asked_and_all_come_to_their_turn() -> None:
    """Boards are awake for 2 s of 10, each in its own time; a round takes 1 s."""
    spec = with_rounds(SHORT, count=20, cohort=5)
    names = [f"board-{i}" for i in range(20)]
    conditions = Conditions(sleep=Sleep(awake=0.2, period=10))
    with Crew(Trainer(spec, names, SineTasks.of(spec), Engine, Poisoning(), 0)) as crew:
        run = Run(spec, names, crew, conditions)
        awake = [len(run.core.awake) for _ in run.rounds()]
    assert 2 < np.mean(awake) < 10
    assert run.core.known.last_seen.keys() > set(names[:10])
    # Each time that they wake up they connect anew, and fetch what they have missed.
    calm = play(spec, 20)
    assert run.traffic.up.sum() > 1.2 * calm.run.traffic.up.sum()


def held_out_loss(played: Played) -> float:
    """After a round of boards that all are honest."""
    spec, published = played.run.spec, played.run.model.published
    return float(measure(spec, published, SineTasks.of(spec), Engine(spec, 200)).loss.mean())


# The paper's plain step and the rates that suit it: what poison does depends on both.
PLAIN = with_training(
    with_rounds(SINE, optimizer=Optimizer(), step_max=3.0), rate_local=0.02, rate_global=0.01
)
POISONED = with_rounds(PLAIN, count=25, cohort=20)


@pytest.fixture(scope="module")
def honest_loss() -> float:
    return held_out_loss(play(POISONED, 20))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "times"), [(Poison.FLIP, 50), (Poison.RANDOM, 1.1), (Poison.CONSTANT, 1.5)]
)
def test_four_poisoned_boards_of_twenty_spoil_the_mean(
    kind: Poison, times: float, honest_loss: float
) -> None:
    spoilt = play(POISONED, 20, Conditions(poisoned=Poisoning(0.2, kind)))
    assert held_out_loss(spoilt) > times * honest_loss


@pytest.mark.slow
def test_krum_leaves_poisoned_boards_out(honest_loss: float) -> None:
    rule = Combine(rule="multi_krum", byzantine=4, keep=12)
    guarded = play(with_rounds(POISONED, combine=rule), 20, Conditions(poisoned=Poisoning(0.2)))
    assert held_out_loss(guarded) < 1.2 * honest_loss


@pytest.mark.slow
def test_a_canary_takes_back_what_poisoned_boards_have_made(honest_loss: float) -> None:
    spec = with_rounds(POISONED, canary=Canary(share=0.3, tolerance=0.1))
    guarded = play(spec, 20, Conditions(poisoned=Poisoning(0.2)))
    assert Verdict.ROLLED_BACK.value in [record.canary for record in guarded.records]
    assert held_out_loss(guarded) < 5 * honest_loss
    honest = play(with_rounds(spec, count=3), 20)
    assert Verdict.PROMOTED.value in [record.canary for record in honest.records]


def test_as_many_boards_are_poisoned_as_asked_for() -> None:
    names = [f"board-{i}" for i in range(30)]
    few, many = (Poisoning(share).among(names, 0) for share in (0.1, 0.5))
    assert (len(few), len(many)) == (3, 15)
    assert few < many < set(names)
    assert Poisoning(0.1).among(names, 1) != few


class Seen(Tasks):
    """Sines, and whose were drawn."""

    def __init__(self) -> None:
        self.seen: dict[tuple[int, int], bytes] = {}

    def samples(self, board: int, round_: int, rng: np.random.Generator) -> tuple[Words, Words]:
        x, y = SineTasks.of(SHORT).samples(board, round_, rng)
        self.seen[board, round_] = x.tobytes()
        return x, y


def test_a_board_meets_the_same_samples_whatever_befalls_the_others() -> None:
    calm, rough = Seen(), Seen()
    play(SHORT, 20, tasks=calm)
    trouble = Conditions(dropout=0.5, stragglers=1, poisoned=Poisoning(0.2))
    play(with_rounds(SHORT, quorum=5), 20, trouble, tasks=rough)
    assert len(set(calm.seen.values())) == len(calm.seen) == 120
    assert 30 < len(rough.seen) < 100
    assert rough.seen.items() <= calm.seen.items()


def test_wrong_labels_are_as_many_as_asked_for() -> None:
    tasks = SineTasks(1000)
    noisy = NoisyLabels(tasks, 0.3, 1)
    x, y = tasks.samples(0, 0, np.random.default_rng(1))
    same, wrong = noisy.samples(0, 0, np.random.default_rng(1))
    assert (x == same).all()
    assert (y != wrong).mean() == pytest.approx(0.3, abs=0.05)
    assert set(wrong.ravel()) <= set(y.ravel())


def test_wrong_labels_and_old_sensors_raise_the_loss() -> None:
    spec = with_rounds(SINE, count=30)
    tasks = SineTasks.of(spec)
    calm = play(spec, 8, tasks=tasks)
    noisy = play(spec, 8, tasks=NoisyLabels(tasks, 0.3, 1))
    assert noisy.last.loss > 1.2 * calm.last.loss
    drifted = play(spec, 8, tasks=DriftTasks(tasks, 8.0, 30))
    assert drifted.records[0] == calm.records[0]
    assert drifted.last.loss > 1.2 * calm.last.loss
