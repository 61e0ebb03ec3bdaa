"""What a comparison of methods is made of, and what it comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.harness.scenario import Scenario
    from experiments.methods.catalogue import Settings
    from simulation.statistics import Estimate


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is done."""

    rounds: int
    search_runs: int
    """Of the search for each method's settings, each with other settings."""
    search_rounds: int
    search_repeats: int = 1
    """Of each of these runs, with seeds of their own."""
    validation_tasks: int
    """Held-out tasks by which settings are chosen."""
    test_tasks: int
    """Held-out tasks on which a run is evaluated at its end."""
    curve_tasks: int
    """Those of them that are taken at the curve's points."""
    points: int = 12


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """Some methods once more, with other samples or rounds; settings are searched anew."""

    name: str
    """In results.json it stands behind the methods' names."""
    methods: tuple[str, ...]
    shots: int | None = None
    rounds: int | None = None
    """Of runs and of the search."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One of the three experiments."""

    network: str
    title: str
    full: Effort
    quick: Effort
    repeat: Repeat | None = None
    """Not made in a quick one."""


@dataclass(frozen=True, kw_only=True)
class SearchRun:
    """Settings that were tried, and what they came to."""

    settings: Settings
    value: float
    """Loss or accuracy on the validation tasks."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A method after some rounds: means over seeds."""

    rounds: int
    bytes_up: float
    """Of all boards."""
    bytes_down: float
    operations: float
    """Multiply-accumulates of all boards' training."""
    value: Estimate
    """Loss or accuracy on held-out tasks."""

    @property
    def bytes(self) -> float:
        """Both ways."""
        return self.bytes_up + self.bytes_down


@dataclass(frozen=True, kw_only=True)
class MethodResult:
    """What came of a method's runs."""

    method: str
    """A name of METHODS."""
    repeat: str = ""
    """That of the :class:`Repeat` of which it is a part; empty in the comparison itself."""
    scenario: Scenario
    settings: Settings
    search: tuple[SearchRun, ...]
    finals: tuple[float, ...]
    """Loss or accuracy at the end of each seed's run."""
    curve: tuple[Point, ...]
    """From the first rounds to the end."""

    @property
    def name(self) -> str:
        """As results.json has it."""
        return f"{self.method}/{self.repeat}" if self.repeat else self.method

    @property
    def end(self) -> Point:
        """The last models."""
        return self.curve[-1]

    def first(self, target: float) -> Point | None:
        """The first point of the curve that is as good as the target."""
        is_loss = self.scenario.metric == "loss"
        good = (
            point
            for point in self.curve
            if (point.value.mean <= target if is_loss else point.value.mean >= target)
        )
        return next(good, None)


@dataclass(frozen=True, kw_only=True)
class ComparisonResult:
    """What a comparison came to."""

    comparison: Comparison
    effort: Effort
    seeds: int
    methods: tuple[MethodResult, ...]
    """TinyMetaFed first; those of the repeat behind the others."""

    def of_repeat(self, name: str) -> tuple[MethodResult, ...]:
        """The methods of the repeat, or under an empty name those of the comparison itself."""
        return tuple(each for each in self.methods if each.repeat == name)
