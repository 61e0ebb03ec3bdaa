"""What :func:`simulation.simulate` plays."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING

from simulation.boards import AT_ONCE
from simulation.conditions import Conditions, DriftTasks, NoisyLabels
from simulation.engine.arithmetic import ENGINES, Arithmetic
from simulation.errors import SimulationError
from simulation.tasks.base import Skew
from simulation.tasks.held_out import tasks_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from protocol.spec.spec import Spec
    from rounds.combine import Rule
    from rounds.optimizers import Optimizer
    from simulation.exam import Evaluation
    from simulation.record import Record
    from simulation.tasks.base import Tasks
    from simulation.tasks.held_out import Split


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A fleet, its data, what befalls it, and how it is evaluated.

    Raises:
        SimulationError: two settings contradict each other, or one is out of its range.
    """

    spec: Spec
    """The fleet's; it has the model, the training plan and the rounds."""
    boards: int = 100
    """Of the fleet, from 1; the spec's cohort is invited to each round."""
    seed: int = 0
    """Of all that is random, from 0; the same one repeats a run, whatever ``processes`` is."""
    arithmetic: Arithmetic = "fixed"
    """What boards compute with: ``fixed`` point, as they do, or ``float64``."""
    processes: int | None = 1
    """That train: 1 is this one alone; None for one a core, as far as there is work. With more than
    one, ``tasks`` are pickled, and a script needs ``if __name__ == "__main__":``."""

    data: Path | None = None
    """Omniglot, Speech Commands or a log, see :mod:`simulation.tasks.held_out`; None for sines."""
    split: Split | None = None
    """How these are partitioned across boards; by default by board of a log, else not at all."""
    alpha: float | None = None
    """Above 0: each board's shares of their classes are Dirichlet distributed with this parameter;
    by default they are even."""
    tasks: Tasks | None = None
    """What boards learn, instead of ``data``."""
    held_out: Tasks | None = None
    """What the model is evaluated on; of ``data`` by default, and of own tasks not at all."""
    label_noise: float = 0.0
    """Share of the labels that boards learn from which are wrong, 0 to 1."""
    drift: float = 0.0
    """By how much all inputs are off after the last round, held-out ones, too."""

    conditions: Conditions = field(default_factory=Conditions)
    """What befalls the fleet."""

    evaluations: int = 100
    """Held-out tasks to evaluate on; 0: none."""
    evaluate_every: int | None = None
    """Rounds from one evaluation to the next, from 1; by default there is one, at the end."""

    rule: Rule | None = None
    """Combines a round's updates, instead of the spec's ``rounds.combine``; privacy's noise, which
    belongs to that, is not added. Norm clipping stays the spec's."""
    optimizer: Optimizer | None = None
    """Follows the rounds' changes, instead of the spec's ``rounds.optimizer``. Its step is the
    spec's, from ``step_max`` to ``step_min``."""

    on_start: Callable[[], None] | None = None
    """Called once, when the data are read and the first round is about to open."""
    on_round: Callable[[Record, Evaluation | None], None] | None = None
    """Called with each closed round, and with its evaluation where there is one."""

    def __post_init__(self) -> None:
        least = {
            "boards": (self.boards, 1),
            "seed": (self.seed, 0),
            "processes": (self.processes, 1),
            "evaluations": (self.evaluations, 0),
            "evaluate_every": (self.evaluate_every, 1),
        }
        for name, (value, lowest) in least.items():
            if value is not None and value < lowest:
                raise SimulationError(f"{name} {value}: at least {lowest} is needed")
        if self.arithmetic not in ENGINES:
            raise SimulationError(
                f"arithmetic {self.arithmetic!r}: there are {' and '.join(ENGINES)}"
            )
        if not 0 <= self.label_noise <= 1:
            raise SimulationError(f"label_noise {self.label_noise}: a share is from 0 to 1")
        if self.alpha is not None and self.alpha <= 0:
            raise SimulationError(f"alpha {self.alpha}: it must be above 0; leave it out for none")
        about_data = (self.data, self.split, self.alpha)
        if self.tasks is None and self.held_out is not None:
            raise SimulationError("held_out are given without tasks: give both, or neither")
        if self.tasks is not None and about_data != (None, None, None):
            raise SimulationError("tasks are given: leave out data, split and alpha")

    @property
    def workers(self) -> int:
        """Processes that train: there is no more than one for each batch of a round's boards."""
        if self.processes is not None:
            return self.processes
        batches = ceil(min(self.spec.rounds.invitations, self.boards) / AT_ONCE)
        return min(os.cpu_count() or 1, batches)

    def read_tasks(self) -> tuple[Tasks, Tasks | None]:
        """What boards learn, and what the model is evaluated on, if it is.

        Raises:
            DataError: the data are absent, are something else, or do not fit.
        """
        spec, learned, held_out = self.spec, self.tasks, self.held_out
        if learned is None:
            skew = None if self.alpha is None else Skew(self.alpha, self.seed)
            learned, held_out = tasks_for(
                spec, self.data, self.split, skew, hold_out=self.evaluations > 0
            )
        if self.label_noise:
            classes = spec.layers[-1].outputs if spec.is_classifier else 1
            learned = NoisyLabels(learned, self.label_noise, classes)
        if self.drift:
            learned = DriftTasks(learned, self.drift, spec.rounds.count)
            held_out = held_out and DriftTasks(held_out, self.drift, spec.rounds.count)
        return learned, held_out if self.evaluations else None
