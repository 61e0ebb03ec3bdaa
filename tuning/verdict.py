"""Which spec is written: the found one beside the given one, by fresh runs on the test tasks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from simulation.statistics import Estimate
from tuning.runs import Score, SpecRun, play

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocol.spec.spec import Spec
    from tuning.pool import Pool


@dataclass(frozen=True, kw_only=True)
class Performance:
    """How a spec does on the test tasks, over fresh runs."""

    loss: Estimate
    accuracy: Estimate | None
    """None where there are no classes."""
    bytes: Estimate
    """Up and down of a board in a whole run."""
    heap: int
    """Bytes that a board needs."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The given and the found spec, on the same test tasks."""

    given: Performance
    found: Performance
    gain: Estimate
    """By how much the found one's loss is lower, run by run."""
    given_fits: bool
    """Whether the given one is within the budget of bytes."""

    @property
    def keeps_given(self) -> bool:
        """Whether the given spec stays: nothing was found that is better beyond the interval."""
        return self.given_fits and self.gain.mean <= self.gain.ci95


def compare(pool: Pool, given: SpecRun, found: Spec, *, seeds: range, given_fits: bool) -> Verdict:
    """Run both specs with the same fresh seeds.

    Args:
        pool: where they are run.
        given: a run of the given spec.
        found: the other spec.
        seeds: of the runs, none of which the search had.
        given_fits: see :class:`Verdict`.

    Raises:
        TuningError: a process died.
    """
    runs = [
        replace(given, spec=spec, seed=seed, is_test=True)
        for spec in (given.spec, found)
        for seed in seeds
    ]
    scores: dict[int, Score] = {}

    def heard(number: int, score: Score) -> bool:
        scores[number] = score
        return True

    pool.run(play, runs, heard)
    first = [scores[number] for number in range(len(seeds))]
    second = [scores[number] for number in range(len(seeds), len(runs))]
    gains = [a.loss - b.loss for a, b in zip(first, second, strict=True)]
    return Verdict(
        given=_performance(given.spec, first),
        found=_performance(found, second),
        gain=Estimate.of(gains),
        given_fits=given_fits,
    )


def _performance(spec: Spec, scores: Sequence[Score]) -> Performance:
    accuracy = Estimate.of([score.accuracy for score in scores]) if spec.is_classifier else None
    return Performance(
        loss=Estimate.of([score.loss for score in scores]),
        accuracy=accuracy,
        bytes=Estimate.of([score.bytes for score in scores]),
        heap=spec.heap_needed,
    )
