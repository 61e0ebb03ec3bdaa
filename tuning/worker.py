"""Runs that a search judges, in processes of their own: each tells how it does, may be stopped."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Self

from protocol.spec.spec import Spec
from simulation.boards import Crew, Trainer
from simulation.conditions import Conditions, Poison, Poisoning
from simulation.engine.fixed import Engine
from simulation.errors import SimulationError
from simulation.exam import measure
from simulation.processes import leave_interrupts, spawning
from simulation.run import Run, board_names
from simulation.tasks.characters import CharacterTasks
from simulation.tasks.held_out import three_ways
from simulation.tasks.logged import LogTasks
from simulation.tasks.sines import SineTasks
from simulation.tasks.speakers import SpeakerTasks
from tuning.errors import TuningError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection
    from pathlib import Path

    from simulation.tasks.base import Tasks

RUNGS: Final = (0.1, 0.25, 0.5, 1.0)
"""Shares of its rounds after which a run is asked."""
TASKS: Final = 100
"""Tasks in an exam."""
_VALIDATED, _TESTED = 1_000_003, 2_000_003
"""Seeds of the draws of an exam's tasks."""


@dataclass(frozen=True)
class Job:
    """A run."""

    spec: Spec
    boards: int
    seed: int
    asked: int
    """Query samples of an exam's task."""
    final: bool = False
    """Whether the held-out test tasks are asked, at the end only; else those to choose by."""


@dataclass(frozen=True)
class Score:
    """How a run does."""

    round: int
    loss: float
    """Mean over the exam's tasks."""
    accuracy: float
    bytes: float
    """Up and down since the run began, a board."""
    seconds: float
    """Virtual."""
    over: bool


@dataclass(frozen=True)
class Pools:
    """Where tasks are drawn from: to learn from, to choose settings by, and for the test."""

    learned: Tasks
    validated: Tasks
    tested: Tasks

    @classmethod
    def of(cls, spec: Spec, path: Path | None) -> Pools:
        """Of a data set.

        Raises:
            DataError: see :func:`simulation.tasks.held_out.three_ways`.
        """
        return cls(*three_ways(spec, path))


def _sized(tasks: Tasks, support: int, query: int) -> Tasks:
    match tasks:
        case SineTasks():
            return replace(tasks, count=support + query)
        case CharacterTasks() | SpeakerTasks() | LogTasks():
            return replace(tasks, support=support, query=query)
        case _:
            raise TuningError(f"{type(tasks).__name__} cannot be resized")


def played(job: Job, pools: Pools) -> Iterator[Score]:
    """A run, told of at each rung; a final one at its end."""
    spec, training, count = job.spec, job.spec.training, job.spec.rounds.count
    names = board_names(job.boards)
    learned = _sized(pools.learned, training.support, training.query)
    exam = _sized(pools.tested if job.final else pools.validated, training.support, job.asked)
    trainer = Trainer(spec, names, learned, Engine, Poisoning(0, Poison.FLIP), job.seed)
    rungs = {count} if job.final else {max(1, round(count * share)) for share in RUNGS}
    with Crew(trainer) as crew:
        run, bytes_ = Run(spec, names, crew, Conditions(), job.seed), 0
        for number, record in enumerate(run.rounds(), 1):
            bytes_ += record.bytes_up + record.bytes_down
            if number not in rungs:
                continue
            seed = (_TESTED if job.final else _VALIDATED) + job.seed
            measured = measure(spec, run.model.published, exam, Engine(spec, TASKS), seed)
            loss, accuracy = float(measured.loss.mean()), float(measured.accuracy.mean())
            per_board = bytes_ / job.boards
            yield Score(number, loss, accuracy, per_board, record.seconds, number == count)


class Worker:
    """A process that plays one run at a time.

    Args:
        spec: tells with the path which data are learned from.
        data: where they lie; None for sines.
    """

    def __init__(self, spec: Spec, data: Path | None) -> None:
        context = spawning()
        self.pipe, other = context.Pipe()
        self._process = context.Process(target=_work, args=(other, spec, data), daemon=True)
        self._process.start()
        other.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()

    def begin(self, job: Job) -> None:
        """Play a run."""
        self.pipe.send(job)

    def score(self) -> Score:
        """The run's next one; if it is not over, ``answer`` is awaited.

        Raises:
            SimulationError: the data are not what they should be.
            TuningError: the process has died.
        """
        try:
            said = self.pipe.recv()
        except EOFError as error:
            raise TuningError(
                "a process of the search has died, perhaps for want of memory: --processes 1 "
                "takes less"
            ) from error
        if isinstance(said, Exception):
            raise said
        score: Score = said
        return score

    def answer(self, *, go_on: bool) -> None:
        """Whether a run that is not over goes on."""
        self.pipe.send(go_on)


def _work(pipe: Connection, spec: Spec, data: Path | None) -> None:
    """In the process."""
    leave_interrupts()
    try:
        pools = Pools.of(spec, data)
        while True:
            for score in played(pipe.recv(), pools):
                pipe.send(score)
                if not score.over and not pipe.recv():
                    break
    except (SimulationError, TuningError) as error:
        pipe.send(error)
    except (EOFError, BrokenPipeError):
        pass  # Whoever asked is gone.
