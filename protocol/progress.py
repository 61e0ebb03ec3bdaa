"""What the aggregator says of its fleet on the progress topic, as JSON for people."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from protocol.errors import ProgressError
from protocol.validation import reason_of


class Progress(BaseModel):
    """How a fleet is doing. A newer aggregator may say more."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    state: str
    """``gathering``, ``collecting``, ``paused`` or ``done``: see :class:`rounds.core.State`."""
    round: int
    """Rounds that are over."""
    rounds: int
    """Of the spec."""
    lineage: str
    """Eight hexadecimal digits."""
    version: int
    """Of the model, on which boards work."""
    canary_version: int | None = None
    """Of the model, that some of them try out first."""
    loss: float | None
    """Of the last closed round's query samples, each before it was learned from."""
    support_loss: float | None
    accuracy: float | None
    """Share of those query samples whose class was predicted correctly; of classes."""
    note: str = ""
    """What the rule that combined the last round's updates has to say."""
    epsilon: float | None = None
    """What privacy has cost so far, for the spec's delta."""
    accepted: int
    """Updates that count, in all rounds."""
    rejected: dict[str, int] = Field(default_factory=dict)
    """Updates that do not, by reason: see :class:`rounds.core.RejectReason`."""
    bytes_up: int
    """MQTT bytes that boards say they have sent."""
    bytes_down: int
    awake: int
    """Boards."""
    invited: int
    """Boards known to be invited to the open round."""
    answered: int
    """Boards whose updates are in it."""
    empty_deadlines: int
    """Deadlines that passed without an update."""
    degraded_rounds: int
    """Rounds during which the broker dropped messages."""

    @classmethod
    def parse(cls, payload: bytes | str) -> Self:
        """Read a progress message.

        Raises:
            ProgressError: it is none; says why.
        """
        try:
            return cls.model_validate_json(payload)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(str(step) for step in problem["loc"])
            raise ProgressError(
                f"no progress message of this version: {where + ': ' if where else ''}"
                f"{reason_of(problem)}"
            ) from error
