"""What boards say of themselves on their state topics, as JSON.

A format of the wire before 2 had no ``format`` in it, but named the client as all since do.
"""

import json
from enum import Enum
from typing import Any, Final, NamedTuple

from protocol.messages import FORMAT


class Availability(Enum):
    """Whether a board can be invited, or why not; the values are words of the metrics."""

    AWAKE = "awake"
    """It can be invited."""
    SLEEPING = "sleeping"
    LOST = "lost"
    """Its connection ended without a word: its last will says so."""
    OTHER = "other"
    """It says something that is unknown here, or speaks another format: it is not waited for."""


WORDS: Final = {
    "ready": Availability.AWAKE,
    "training": Availability.AWAKE,
    "sleeping": Availability.SLEEPING,
    "lost": Availability.LOST,
}
"""Of the state topic."""
MAX_STATE_BYTES: Final = 4096
_FIRST_FORMAT: Final = 1


class Presence(NamedTuple):
    """What a board's state message says."""

    availability: Availability | None
    """None where a board takes back what it said: it is forgotten."""
    battery: int | None = None
    """Its charge in percent, if it tells."""
    format: int = FORMAT
    """Of the wire, that it speaks."""


def read_presence(payload: bytes) -> Presence:
    """Read a board's state message; no bytes make this raise."""
    if not payload:
        return Presence(None)
    state = _object(payload)
    spoken = state.get("format", _FIRST_FORMAT if "client" in state else FORMAT)
    if type(spoken) is not int:
        return Presence(Availability.OTHER)
    if spoken != FORMAT:
        return Presence(Availability.OTHER, format=spoken)
    word, battery = state.get("state"), state.get("battery")
    known = WORDS.get(word) if isinstance(word, str) else None
    is_percent = type(battery) is int and 0 <= battery <= 100
    return Presence(known or Availability.OTHER, battery if is_percent else None)


def _object(payload: bytes) -> dict[str, Any]:
    """The JSON object that a payload is; an empty one where it is none."""
    if len(payload) > MAX_STATE_BYTES:
        return {}
    try:
        state = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return state if isinstance(state, dict) else {}
