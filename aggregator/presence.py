"""Which boards are awake, by their state topics."""

import json
from typing import Final

AWAKE: Final = frozenset({"ready", "training"})
"""States in which a board can be asked. In any other, known or not, it is not waited for."""
MAX_STATE_BYTES: Final = 4096


def is_awake(payload: bytes) -> bool:
    """Whether a board's state message says that it can be asked; no bytes make this raise."""
    if len(payload) > MAX_STATE_BYTES:
        return False
    try:
        state = json.loads(payload)
    except (ValueError, RecursionError):
        return False  # Also the empty message that takes a state back.
    word = state.get("state") if isinstance(state, dict) else None
    return isinstance(word, str) and word in AWAKE
