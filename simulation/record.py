"""A closed round of a simulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from rounds.outcome import RoundOutcome

_KEYS: Final = (
    "round",
    "version",
    "loss",
    "support_loss",
    "accuracy",
    "accepted",
    "late",
    "invited",
    "canary",
    "note",
    "bytes_up",
    "bytes_down",
    "seconds",
)
"""Of a line of ``simulate --json``."""


@dataclass(frozen=True, kw_only=True)
class Record(RoundOutcome):
    """A closed round: its outcome, and what it took."""

    version: int
    """The newest, which came of the round; perhaps the canary."""
    bytes_up: int
    """That all boards sent since the round before closed; in whole MQTT packets."""
    bytes_down: int
    """That all boards received."""
    seconds: float
    """Virtual, since the run began."""

    def to_json(self) -> dict[str, Any]:
        """Its line of ``simulate --json``."""
        return {key: getattr(self, key) for key in _KEYS}
