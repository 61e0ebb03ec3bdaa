"""How boards are, by their state topics."""

import json
from typing import Final, NamedTuple

AWAKE: Final = frozenset({"ready", "training"})
"""States in which a board can be asked. In any other, known or not, it is not waited for."""
MAX_STATE_BYTES: Final = 4096


class Presence(NamedTuple):
    """What a board's state message says."""

    is_awake: bool
    """Whether it can be asked."""
    battery: int | None = None
    """Its charge in percent, if it tells."""


ASLEEP: Final = Presence(is_awake=False)


def read_presence(payload: bytes) -> Presence:
    """Read a board's state message; no bytes make this raise."""
    if len(payload) > MAX_STATE_BYTES:
        return ASLEEP
    try:
        state = json.loads(payload)
    except (ValueError, RecursionError):
        return ASLEEP  # Also the empty message that takes a state back.
    if not isinstance(state, dict):
        return ASLEEP
    word, battery = state.get("state"), state.get("battery")
    is_percent = type(battery) is int and 0 <= battery <= 100
    return Presence(isinstance(word, str) and word in AWAKE, battery if is_percent else None)
