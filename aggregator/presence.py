"""What boards say of themselves on their state topics."""

import json
from enum import Enum
from typing import Final


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


def standing(payload: bytes) -> Standing | None:
    """What a board's state message says; no bytes make this raise.

    Returns:
        None for the empty message, which takes a state back.
    """
    if not payload:
        return None
    if len(payload) > MAX_STATE_BYTES:
        return Standing.OTHER
    try:
        state = json.loads(payload)
    except (ValueError, RecursionError):
        return Standing.OTHER
    word = state.get("state") if isinstance(state, dict) else None
    return WORDS.get(word, Standing.OTHER) if isinstance(word, str) else Standing.OTHER
