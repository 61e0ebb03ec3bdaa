"""What boards say of themselves on their state topics."""

import json
from collections import Counter
from collections.abc import Iterable
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


def standing(payload: bytes) -> Standing:
    """What a board's state message says; no bytes make this raise."""
    if len(payload) > MAX_STATE_BYTES:
        return Standing.OTHER
    try:
        state = json.loads(payload)
    except (ValueError, RecursionError):
        return Standing.OTHER
    word = state.get("state") if isinstance(state, dict) else None
    return WORDS.get(word, Standing.OTHER) if isinstance(word, str) else Standing.OTHER


class Presence:
    """Counts the boards that cannot be asked. Those who can, the round core knows."""

    def __init__(self) -> None:
        self.away = Counter[Standing]()
        """Boards by standing, but for those that are awake."""
        self._away: dict[str, Standing] = {}

    def heard(self, board: str, payload: bytes) -> bool:
        """Take in a board's state message; whether the board is awake.

        The empty message takes a state back: the board counts nowhere.
        """
        self.answered((board,))
        now = standing(payload)
        if payload and now is not Standing.AWAKE:
            self._away[board] = now
            self.away[now] += 1
        return now is Standing.AWAKE

    def answered(self, boards: Iterable[str]) -> None:
        """These boards sent updates: they are awake, whatever they said."""
        for board in boards:
            if (before := self._away.pop(board, None)) is not None:
                self.away[before] -= 1
