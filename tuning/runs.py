"""The runs that a search judges: each yields how it does, and may be given up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from protocol.spec.spec import Spec
from simulation.boards import Crew, Trainer
from simulation.conditions import Conditions, Poison, Poisoning
from simulation.engine.fixed import Engine
from simulation.exam import measure
from simulation.run import Run, board_names
from simulation.tasks.characters import CharacterTasks
from simulation.tasks.held_out import three_ways
from simulation.tasks.logged import LogTasks
from simulation.tasks.sines import SineTasks
from simulation.tasks.speakers import SpeakerTasks
from tuning.errors import TuningError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simulation.tasks.base import Tasks

RUNGS: Final = (0.1, 0.25, 0.5, 1.0)
"""Shares of its rounds after which a run is evaluated."""
TASKS: Final = 100
"""Tasks that it is evaluated on."""
_VALIDATION, _TEST = 1_000_003, 2_000_003
"""Seeds of the draws of these tasks."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where tasks are drawn from."""

    spec: Spec
    """Tells with the path which data they are."""
    path: Path | None
    """None for sines."""


@dataclass(frozen=True, kw_only=True)
class SpecRun:
    """A simulated run of a spec."""

    spec: Spec
    data: Data
    boards: int
    seed: int
    query: int
    """Query samples of a held-out task."""
    is_test: bool = False
    """Whether it is evaluated on the test tasks, at the end only; else on the validation tasks."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """How a run does."""

    round: int
    loss: float
    """Mean over the tasks."""
    accuracy: float
    bytes: float
    """Up and down since the run began, a board."""
    is_last: bool


@dataclass(frozen=True, kw_only=True)
class TaskSets:
    """Tasks to learn from, to choose settings by, and for the test."""

    learned: Tasks
    validation: Tasks
    test: Tasks

    @classmethod
    def of(cls, data: Data) -> TaskSets:
        """Of a data set.

        Raises:
            DataError: see :func:`simulation.tasks.held_out.three_ways`.
        """
        learned, validation, test = three_ways(data.spec, data.path)
        return cls(learned=learned, validation=validation, test=test)


task_sets = lru_cache(maxsize=1)(TaskSets.of)
"""Read once in a process: features take a while."""


def _resized(tasks: Tasks, support: int, query: int) -> Tasks:
    match tasks:
        case SineTasks():
            return replace(tasks, count=support + query)
        case CharacterTasks() | SpeakerTasks() | LogTasks():
            return replace(tasks, support=support, query=query)
        case _:
            raise TuningError(f"{type(tasks).__name__} cannot be resized")


def play(wanted: SpecRun) -> Iterator[Score]:
    """Play a run; yields how it does at each rung, or of a test at its end.

    Raises:
        DataError: the data are not what they should be.
    """
    spec, training, count = wanted.spec, wanted.spec.training, wanted.spec.rounds.count
    sets = task_sets(wanted.data)
    names = board_names(wanted.boards)
    learned = _resized(sets.learned, training.support, training.query)
    held_out = sets.test if wanted.is_test else sets.validation
    held_out = _resized(held_out, training.support, wanted.query)
    trainer = Trainer(spec, names, learned, Engine, Poisoning(0, Poison.FLIP), wanted.seed)
    rungs = {count} if wanted.is_test else {max(1, round(count * share)) for share in RUNGS}
    seed = (_TEST if wanted.is_test else _VALIDATION) + wanted.seed
    with Crew(trainer) as crew:
        run, bytes_ = Run(spec, names, crew, Conditions(), wanted.seed), 0
        for number, record in enumerate(run.rounds(), 1):
            bytes_ += record.bytes_up + record.bytes_down
            if number not in rungs:
                continue
            found = measure(spec, run.model.published, held_out, Engine(spec, TASKS), seed)
            yield Score(
                round=number,
                loss=float(found.loss.mean()),
                accuracy=float(found.accuracy.mean()),
                bytes=bytes_ / wanted.boards,
                is_last=number == count,
            )
