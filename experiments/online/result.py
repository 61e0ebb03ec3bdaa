"""What the experiment comes to: learners on streams, and what batches take on a board."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from experiments.online import streams
from simulation.statistics import Estimate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from experiments.harness.scenario import Scenario
    from experiments.harness.study import Outcome
    from experiments.online.learners import Learner
    from experiments.online.streams import Kind

POINT: Final = 12
"""Samples that a point of a curve is the mean of."""
WINDOW: Final = 8
"""Likewise where the samples to adapt are counted."""
NEAR: Final = 1.1
"""Who has adapted errs at most so many times as much as at the end."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is done for a network."""

    rounds: int
    """In which the fleet learns the start."""
    boards: int
    """On a stream each, in every run."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way of learning that is compared."""

    stored: int
    """Samples that are waited for; of 1 none is stored."""
    is_searched: bool = True
    """Whether its settings are searched, or the rate is the spec's."""
    repeats: bool = False
    """Whether a batch may be gone through in several epochs, which are searched, too."""

    @property
    def name(self) -> str:
        """On the page and in tables."""
        if self.stored == 1:
            return "online-searched" if self.is_searched else "online"
        return f"batch-{self.stored}{'-epochs' if self.repeats else ''}"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Settings of a search, and the error along its streams."""

    rate: float
    epochs: int
    error: float


@dataclass(frozen=True, kw_only=True)
class LearnerRun:
    """What a learner came to with one seed: means over boards."""

    errors: Sequence[float]
    """Of each sample before it was learned from."""
    final: float
    """Of the test samples after the stream."""
    operations: int
    """Multiply-accumulates of one board."""

    @classmethod
    def of(cls, outcome: Outcome) -> LearnerRun:
        """Of what :func:`experiments.online.learners.learn` returned."""
        return cls(
            errors=outcome["errors"], final=outcome["final"], operations=outcome["operations"]
        )

    @property
    def along(self) -> float:
        """Mean error along the stream."""
        return float(np.mean(self.errors))


@dataclass(frozen=True, kw_only=True)
class LearnerResult:
    """What came of a way of learning on a kind of stream."""

    scenario: Scenario
    kind: Kind
    method: Method
    learner: Learner
    candidates: Sequence[Candidate]
    """Of the search; none at the spec's rate."""
    runs: Sequence[LearnerRun]
    """One a seed."""

    @property
    def name(self) -> str:
        """That of the method."""
        return self.method.name

    @property
    def alongs(self) -> list[float]:
        """Each seed's error along the stream."""
        return [run.along for run in self.runs]

    @property
    def along(self) -> Estimate:
        """Their mean."""
        return Estimate.of(self.alongs)

    @property
    def finals(self) -> list[float]:
        """Each seed's error of the test samples, which are of the last task."""
        return [run.final for run in self.runs]

    @property
    def final(self) -> Estimate:
        """Their mean."""
        return Estimate.of(self.finals)

    @property
    def operations(self) -> int:
        """Multiply-accumulates of one board's learning."""
        return self.runs[0].operations

    @property
    def curve(self) -> list[tuple[int, Estimate]]:
        """Samples seen, and the error of the last POINT of them."""
        errors = np.array([run.errors for run in self.runs])
        means = errors.reshape(len(errors), -1, POINT).mean(axis=2)
        return [((at + 1) * POINT, Estimate.of(part.tolist())) for at, part in enumerate(means.T)]

    def after_switch(self) -> NDArray[np.float64]:
        """The error of each sample after a switch, but for the first WINDOW - 1 smoothed."""
        errors = np.mean([run.errors for run in self.runs], axis=0)
        mean = errors.reshape(streams.TASKS, streams.EVERY)[1:].mean(axis=0)
        return np.convolve(mean, np.full(WINDOW, 1 / WINDOW), "valid")

    def settled(self) -> float:
        """The error in the last quarter of a task."""
        return float(self.after_switch()[-streams.EVERY // 4 + WINDOW - 1 :].mean())

    def adapts_in(self, level: float) -> int | None:
        """Samples after a switch until the error is near this level; None where it never is."""
        near = np.flatnonzero(self.after_switch() <= NEAR * level)
        return int(near[0]) + WINDOW if len(near) else None


@dataclass(frozen=True, kw_only=True)
class Heap:
    """Of an emulated board, in bytes."""

    free: int
    """Of the empty board."""
    online: int
    """In use by a whole client after a round."""
    samples: int | None
    """What the stored samples take; None where the network leaves too little; likewise ..."""
    arrays: int | None
    """... with the gradient."""
    fits: bool
    """Whether a whole client plays a round beside them."""


@dataclass(frozen=True, kw_only=True)
class BatchMemory:
    """What storing samples takes on a board."""

    network: str
    stored: int
    """Samples."""
    heap: Heap | None
    """None where there is no emulator; then ..."""
    missing: str | None = None
    """... this is what it wants."""

    @classmethod
    def of(cls, network: str, stored: int, outcome: Outcome) -> BatchMemory:
        """Of what :func:`experiments.online.board_memory.measure` returned."""
        missing: str | None = outcome.get("missing")
        heap = None if missing is not None else Heap(**outcome)
        return cls(network=network, stored=stored, heap=heap, missing=missing)


@dataclass(frozen=True, kw_only=True)
class OnlineResult:
    """Of the whole experiment."""

    learners: Sequence[LearnerResult]
    memory: Sequence[BatchMemory]
    efforts: Mapping[str, Effort]
    """By network."""

    def heap(self, learner: LearnerResult) -> int | None:
        """Bytes in use on a board; None where they were not measured, or there is no room."""
        of_network = [each for each in self.memory if each.network == learner.scenario.network]
        if learner.method.stored == 1:
            heap = of_network[0].heap
            return None if heap is None else heap.online
        heap = next(each.heap for each in of_network if each.stored == learner.method.stored)
        return None if heap is None or heap.arrays is None else heap.online + heap.arrays
