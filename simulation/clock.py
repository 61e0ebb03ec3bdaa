"""Virtual time: a queue of what will happen, in the order in which it does."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock:
    """Goes from one event to the next."""

    def __init__(self) -> None:
        self.now = 0.0
        """Virtual seconds since the run began."""
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._queued = 0  # Of two events at one moment, the one that was queued first comes first.

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        """Let an event happen so many seconds from now."""
        heappush(self._queue, (self.now + seconds, self._queued, event))
        self._queued += 1

    def wake_after(self, seconds: float) -> None:
        """Stop at that moment, though nothing happens then: a deadline may have passed."""
        self.after(seconds, _nothing)

    def pass_time(self) -> None:
        """Go to the next moment at which something happens, and let all of it happen."""
        self.now = self._queue[0][0]
        while self._queue and self._queue[0][0] <= self.now:
            heappop(self._queue)[2]()


def _nothing() -> None:
    """An event that changes nothing."""
