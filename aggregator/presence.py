"""How many boards are away, and why. Those that are awake, the round core knows."""

from collections import Counter
from collections.abc import Iterable

from protocol.presence import Availability


class AvailabilityCounter:
    """Counts boards by what they last said of themselves."""

    def __init__(self) -> None:
        self.count = Counter[Availability]()
        """Boards by standing, but for those that are awake."""
        self._boards: dict[str, Availability] = {}

    def seen(self, board: str, now: Availability | None) -> None:
        """A board says how it is; None: it takes back what it said, and counts nowhere."""
        self.answered((board,))
        if now is not None and now is not Availability.AWAKE:
            self._boards[board] = now
            self.count[now] += 1

    def answered(self, boards: Iterable[str]) -> None:
        """These boards sent updates: they are awake, whatever they said."""
        for board in boards:
            if (before := self._boards.pop(board, None)) is not None:
                self.count[before] -= 1
