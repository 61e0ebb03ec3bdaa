"""What boards of the user's recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simulation.errors import DataError
from simulation.tasks.base import Skew, Tasks, classes_of, halves

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from protocol.fixed import Words
    from protocol.spec.spec import Spec
    from simulation.tasks.log import Log


@dataclass(frozen=True)
class LogTasks(Tasks):
    """A board meets what boards of the user's recorded, in random order; no row twice in a round.

    Board b has the record of board b modulo their number, or with ``mixed`` or a skew, of all.
    """

    log: Log
    support: int
    query: int
    mixed: bool = False
    skew: Skew | None = None

    @classmethod
    def of(cls, spec: Spec, log: Log, *, mixed: bool = False, skew: Skew | None = None) -> LogTasks:
        """Tasks for a spec.

        Raises:
            DataError: a board recorded fewer rows than a round takes.
        """
        training = spec.training
        needed = training.support + training.query
        pooled = mixed or skew is not None
        counts = [len(log.y)] if pooled else np.bincount(log.board).tolist()
        for name, rows in zip(["all boards"] if pooled else log.boards, counts, strict=True):
            if rows < needed:
                raise DataError(
                    f"{log.name}: {rows} rows of {name}; a round takes {needed} (support and "
                    f"query): leave it out, or lower them in the spec"
                )
        if skew is not None:
            classes, rows_of = np.unique(log.y, return_counts=True)
            if not spec.is_classifier:
                raise DataError(f"{log.name}: its labels are values; only classes can be skewed")
            if rows_of.min() < 2:
                raise DataError(
                    f"{log.name}: one row of class {classes[rows_of.argmin()]}; a skew needs two"
                )
        return cls(log, training.support, training.query, mixed, skew)

    def samples(self, board: int, round_: int, rng: np.random.Generator) -> tuple[Words, Words]:
        """Rows of a record."""
        del round_
        log = self.log
        rows: NDArray[np.int64]
        if self.skew is not None:
            met = np.unique(log.y)
            orders = [rng.permutation(np.flatnonzero(log.y[:, 0] == class_)) for class_ in met]
            support, query = (
                classes_of(rng, len(met), samples, board, self.skew)
                for samples in (self.support, self.query)
            )
            rows = np.array(halves(orders, support, query))
        else:
            known = np.arange(len(log.y))
            if not self.mixed:
                known = np.flatnonzero(log.board == board % len(log.boards))
            rows = rng.choice(known, self.support + self.query, replace=False)
        return log.x[rows], log.y[rows]
