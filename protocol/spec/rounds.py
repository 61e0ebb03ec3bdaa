"""The spec's part on rounds: what the aggregator does."""

from __future__ import annotations

from math import ceil
from typing import Literal, Self

from pydantic import Field, model_validator

from protocol.cohort import MOST_CHOSEN
from protocol.messages import U32
from protocol.spec.part import Part, Percent
from protocol.spec.strategy import Combine, Optimizer, Privacy, check


class Canary(Part):
    """A new version of the model is tried out by some boards before the others get it."""

    share: float = Field(gt=0, lt=1, description="Share of the boards that try it out.")
    tolerance: float = Field(
        ge=0,
        le=100,
        description="It is rolled back when their loss exceeds the others' by more than this.",
    )


class Rounds(Part):
    """What the aggregator does."""

    count: int = Field(ge=1, le=U32, description="Rounds until the fleet is done.")
    mode: Literal["synchronous", "buffered"] = Field(
        default="synchronous",
        description="Whether an update counts in its own round only, or may come late.",
    )
    cohort: int = Field(ge=1, le=1_000_000, description="Boards at work in a round.")
    choose: Literal["sampling", "fairness", "battery"] = Field(
        default="sampling",
        description="Whom it invites: each alike, the longest unseen, or the best charged.",
    )
    extra: float = Field(
        default=0.0,
        ge=0,
        le=10,
        description="Boards invited beyond the cohort, as a share of it, in case some fail.",
    )
    quorum: int | None = Field(
        default=None, ge=1, description="Updates that close a round; the whole cohort if not given."
    )
    max_age: int = Field(
        default=8,
        ge=1,
        le=255,
        description="Buffered: rounds by which an update may be late; an older one is refused.",
    )
    discount: float = Field(
        default=0.5,
        ge=0,
        le=10,
        description="Buffered: an update that is a rounds late weighs (1 + a) ** -discount.",
    )
    deadline: float = Field(
        gt=0, le=1_000_000, description="Seconds for which a round stays open at most."
    )
    step_max: float = Field(
        ge=0, le=100, description="The first round's step, a_max of the cosine rule."
    )
    step_min: float = Field(default=0.0, ge=0, le=100, description="The step at the end, a_min.")
    percent_down: Percent = Field(
        description="Share of the global parameters that the aggregator sends after a round."
    )
    canary: Canary | None = None
    combine: Combine = Combine()
    optimizer: Optimizer = Optimizer()
    privacy: Privacy | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.quorum is not None and self.quorum > self.cohort:
            msg = f"quorum {self.quorum} is more than the cohort's {self.cohort} boards"
            raise ValueError(msg)
        if self.step_min > self.step_max:
            msg = f"step_min {self.step_min} is above step_max {self.step_max}"
            raise ValueError(msg)
        if self.mode == "buffered" and self.quorum is None:
            msg = "buffered rounds need a quorum: the updates after which a version is made"
            raise ValueError(msg)
        one_each = self.privacy is not None or self.combine.rule not in {"mean", "count"}
        if self.mode == "buffered" and one_each:
            msg = (
                "privacy and rules that compare updates take one update of a board for a version, "
                "and a buffered round may hold two: take mode = 'synchronous'"
            )
            raise ValueError(msg)
        if self.choose != "sampling" and self.invitations > MOST_CHOSEN:
            msg = (
                f"a round can name at most {MOST_CHOSEN} boards, and this one invites "
                f"{self.invitations}: take choose = 'sampling', or a smaller cohort"
            )
            raise ValueError(msg)
        check(self.combine, self.privacy, self.invitations, self.closing)
        return self

    @property
    def invitations(self) -> int:
        """Boards that a round invites."""
        return ceil(self.cohort * (1 + self.extra))

    @property
    def oldest(self) -> int:
        """Rounds by which an update may be late; 0 if it must be in time."""
        return self.max_age if self.mode == "buffered" else 0

    @property
    def closing(self) -> int:
        """Updates that close a round."""
        return self.cohort if self.quorum is None else self.quorum

    @property
    def clip(self) -> float | None:
        """Largest L2 norm of an update that counts as it is, in weight values."""
        return self.combine.clip_norm if self.privacy is None else self.privacy.clip
