"""What the experiment comes to: settings beside each other, and what an observer infers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from experiments.harness.scenario import Scenario
    from experiments.methods.results import SettingResult
    from simulation.statistics import Estimate

Secret = Literal["task", "drawing", "character"]
"""What an observer infers: a board's sine, or whether a drawing, or its character, was learned."""


@dataclass(frozen=True, kw_only=True)
class TargetCost:
    """What a setting takes to reach the target: means over the seeds that do."""

    rounds: float | None
    """None where no seed does; likewise ..."""
    bytes: float | None
    """Both ways, of all boards."""
    seeds: int
    """That do."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A setting of a comparison."""

    result: SettingResult
    to_target: TargetCost

    @property
    def percent(self) -> float:
        """P of the way up."""
        return self.result.spec.training.percent

    @property
    def is_top(self) -> bool:
        """Whether it differs from the spec in P alone."""
        setting = self.result.setting
        return (
            self.result.selection == "top"
            and setting.bits is None
            and setting.percent_down is None
            and not setting.feedback
        )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The settings of one network."""

    scenario: Scenario
    entries: Sequence[Entry]
    target: float
    """Loss or accuracy: what P = 100 ends at, with ..."""
    margin: float
    """... this share more loss, or less accuracy."""
    tasks: int
    """Held-out tasks at the end of each run."""
    points: int
    """Of a run's curve, at which the target is looked for."""
    seeds: int
    is_tuned: bool
    """Whether each setting has the best of some factors of the server's step."""

    @property
    def tops(self) -> list[Entry]:
        """Top-P at each P."""
        return [entry for entry in self.entries if entry.is_top]

    def top(self, percent: float) -> Entry:
        """Top-P at one P.

        Raises:
            StopIteration: it was not run.
        """
        return next(entry for entry in self.tops if entry.percent == percent)


@dataclass(frozen=True, kw_only=True)
class Situation:
    """In which boards are observed."""

    network: str
    partition: Literal["partial", "full"]
    """That of the spec, or with nothing local."""
    rounds: int
    """Over when they learn."""


@dataclass(frozen=True, kw_only=True)
class Inference:
    """What is inferred from one update."""

    situation: Situation
    percent: float
    """P of the way up."""
    value_bits: int
    secret: Secret
    local_known: bool
    """Whether the observer has the board's reconstructed local layers, too."""
    value: Estimate
    """Of a task the share of the sine that is inferred, else an AUC."""


@dataclass(frozen=True, kw_only=True)
class ObserverResult:
    """All that observers infer."""

    inferences: Sequence[Inference]
    boards: Mapping[str, int]
    """Observed in each run, by network."""
    own: int
    """Boards that an observer simulates ..."""
    nearest: int
    """... and those of them whose sines it averages."""
    seeds: int
    """Of the sines' runs."""

    @property
    def situations(self) -> list[Situation]:
        """In order."""
        return list(dict.fromkeys(inference.situation for inference in self.inferences))

    def select(
        self,
        situation: Situation,
        secret: Secret,
        *,
        local_known: bool = False,
        value_bits: int = 8,
    ) -> dict[float, Estimate]:
        """By P; empty where the secret was not looked for."""
        return {
            each.percent: each.value
            for each in self.inferences
            if each.situation == situation
            and each.secret == secret
            and each.local_known == local_known
            and each.value_bits == value_bits
        }


@dataclass(frozen=True, kw_only=True)
class TopPResult:
    """Of the whole experiment."""

    comparisons: Sequence[Comparison]
    observer: ObserverResult
