"""What boards say of themselves on their state topics."""

import json
from enum import Enum
from typing import Final, NamedTuple


class Standing(Enum):
    """Whether a board can be asked, or why not; the values are words of the metrics."""

    AWAKE = "awake"
    """It can be asked."""
    SLEEPING = "sleeping"
    LOST = "lost"
    """Its connection ended without a word: its last will says so."""
    OTHER = "other"
    """It says something that is unknown here, and is not waited for."""


WORDS: Final = {
    "ready": Standing.AWAKE,
    "training": Standing.AWAKE,
    "sleeping": Standing.SLEEPING,
    "lost": Standing.LOST,
}
"""Of the state topic."""
MAX_STATE_BYTES: Final = 4096


class Presence(NamedTuple):
    """What a board's state message says."""

    standing: Standing | None
    """None where a board takes back what it said: it is forgotten."""
    battery: int | None = None
    """Its charge in percent, if it tells."""


def read_presence(payload: bytes) -> Presence:
    """Read a board's state message; no bytes make this raise."""
    if not payload:
        return Presence(None)
    if len(payload) > MAX_STATE_BYTES:
        return Presence(Standing.OTHER)
    try:
        state = json.loads(payload)
    except (ValueError, RecursionError):
        return Presence(Standing.OTHER)
    if not isinstance(state, dict):
        return Presence(Standing.OTHER)
    word, battery = state.get("state"), state.get("battery")
    standing = WORDS.get(word, Standing.OTHER) if isinstance(word, str) else Standing.OTHER
    is_percent = type(battery) is int and 0 <= battery <= 100
    return Presence(standing, battery if is_percent else None)
