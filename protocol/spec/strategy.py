"""The spec's part on aggregation: how updates become one change, and how the model follows it.

What the rules compute stands in :mod:`rounds.combine`, :mod:`rounds.optimizers` and
:mod:`rounds.privacy`. Here it is refused what could not work: a rule that needs more updates than a
round has, and a setting that its rule does not have.
"""

from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from protocol.spec.part import Part

Decay = Annotated[float, Field(ge=0, lt=1)]

MAX_COMPARED: Final = 2_000
"""Updates that are compared in pairs at most: their distances take 32 MB."""

_SETTINGS: Final[Mapping[str, frozenset[str]]] = {
    "mean": frozenset(),
    "count": frozenset(),
    "median": frozenset({"byzantine"}),
    "trimmed_mean": frozenset({"trim"}),
    "krum": frozenset({"byzantine"}),
    "multi_krum": frozenset({"byzantine", "keep"}),
    "step": frozenset(),
    "avgm": frozenset({"momentum"}),
    "adagrad": frozenset({"beta1", "tau"}),
    "adam": frozenset({"beta1", "beta2", "tau"}),
    "yogi": frozenset({"beta1", "beta2", "tau"}),
}


class _Rule(Part):
    """A rule by name, and its settings beside it."""

    rule: str

    @model_validator(mode="after")
    def _settings_are_the_rules(self) -> Self:
        for setting, field in type(self).model_fields.items():
            of_a_rule = any(setting in settings for settings in _SETTINGS.values())
            is_default = getattr(self, setting) == field.default
            if is_default or not of_a_rule or setting in _SETTINGS[self.rule]:
                continue
            of = sorted(rule for rule, settings in _SETTINGS.items() if setting in settings)
            msg = f"{setting} is a setting of {' and '.join(of)}, not of {self.rule}"
            raise ValueError(msg)
        return self


class Combine(_Rule):
    """How a round's updates become one change."""

    rule: Literal["mean", "count", "median", "trimmed_mean", "krum", "multi_krum"] = Field(
        default="mean", description="What is taken of the updates."
    )
    trim: int | None = Field(
        default=None, ge=1, description="Updates left out at each end of a parameter."
    )
    byzantine: int | None = Field(
        default=None, ge=1, description="f: so many updates of a round may be anything."
    )
    keep: int | None = Field(default=None, ge=2, description="m: updates that multi-Krum averages.")
    clip_norm: float | None = Field(
        default=None,
        ge=0.001,
        le=10_000,
        description="Largest L2 norm of an update, in weight values.",
    )

    @model_validator(mode="after")
    def _settings_are_given(self) -> Self:
        for setting in sorted(_SETTINGS[self.rule]):
            if getattr(self, setting) is None:
                msg = f"{self.rule} needs {setting}"
                raise ValueError(msg)
        return self

    @property
    def least(self) -> int:
        """Updates without which the rule has no meaning."""
        match self.rule:
            case "median":
                return 2 * (self.byzantine or 0) + 1
            case "trimmed_mean":
                return 2 * (self.trim or 0) + 1
            case "krum":
                return 2 * (self.byzantine or 0) + 3
            case "multi_krum":
                f = self.byzantine or 0
                return max(2 * f + 3, (self.keep or 0) + f)
        return 1


class Optimizer(_Rule):
    """How the model follows the change."""

    rule: Literal["step", "avgm", "adagrad", "adam", "yogi"] = Field(
        default="step", description="What is made of the change."
    )
    momentum: Decay = Field(default=0.9, description="Share of the last movement that goes on.")
    beta1: Decay = Field(default=0.9, description="Decay of the mean of changes.")
    beta2: Decay = Field(default=0.99, description="Decay of the mean of squared changes.")
    tau: float = Field(
        default=1e-3,
        ge=1e-9,
        le=10,
        description="Change, in weight values, below which a parameter is not sped up.",
    )


class Privacy(Part):
    """Gaussian noise on the mean of clipped updates."""

    clip: float = Field(
        ge=0.001, le=10_000, description="Largest L2 norm of an update, in weight values."
    )
    noise_multiplier: float = Field(
        gt=0, le=10_000, description="Standard deviation of the noise on the sum, in clips."
    )
    delta: float = Field(gt=0, lt=1, description="The delta for which epsilon is told.")


def check(combine: Combine, privacy: Privacy | None, cohort: int, closing: int) -> None:
    """Refuse what could not work.

    Args:
        combine: the spec's.
        privacy: the spec's.
        cohort: boards invited to a round.
        closing: updates that close it.

    Raises:
        ValueError: says why, and what to do.
    """
    rule, least = combine.rule, combine.least
    if closing == 1 and rule not in {"mean", "count"}:
        msg = f"{rule} compares updates, and a round closes with one: there take rule 'mean'"
        raise ValueError(msg)
    if closing < least:
        msg = (
            f"{rule} needs {least} updates, and a round closes with {closing}: raise cohort or "
            f"quorum, or take another rule"
        )
        raise ValueError(msg)
    if rule in {"krum", "multi_krum"} and cohort > MAX_COMPARED:
        msg = f"{rule} compares all pairs of updates: cohort {cohort} is above {MAX_COMPARED}"
        raise ValueError(msg)
    if privacy is not None and (rule != "mean" or combine.clip_norm is not None):
        msg = (
            "privacy bounds what one update can do to a mean of updates that it clips itself: "
            "take rule 'mean' without clip_norm"
        )
        raise ValueError(msg)
