"""Follows the broker's own count of messages that it has dropped.

Mosquitto publishes it, retained, when it has changed, every ``sys_interval`` seconds; see "BROKER
STATUS" in mosquitto(8). A broker without that topic is never heard of here.
"""

from typing import Final

TOPIC: Final = "$SYS/broker/publish/messages/dropped"
MAX_DIGITS: Final = 20
"""Of an unsigned 64-bit integer."""


class DropCounter:
    """Turns the broker's count since its start into what is new."""

    def __init__(self) -> None:
        self._last: int | None = None

    def moved(self, payload: bytes) -> int:
        """How many messages were dropped since the count before; no bytes make this raise.

        The first count tells of a time before ours: nothing is new. A smaller one than before
        means that the broker was started again and counts from zero. A connection that was lost in
        between makes no difference, for what the broker drops then is most likely ours.
        """
        if not (payload.isdigit() and len(payload) <= MAX_DIGITS):
            return 0
        count, last = int(payload), self._last
        self._last = count
        if last is None:
            return 0
        return count - last if count >= last else count
