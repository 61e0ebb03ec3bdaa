"""Every topic of a fleet, in one place.

======================================  ========  ================================================
topic                                   retained  what
======================================  ========  ================================================
``tmf/v1/<fleet>/plan``                 yes       :class:`~protocol.messages.Plan`
``tmf/v1/<fleet>/round``                yes       :class:`~protocol.messages.Round`
``tmf/v1/<fleet>/model/full/<chunk>``   yes       :class:`~protocol.messages.Chunk`
``tmf/v1/<fleet>/model/delta``          yes       :class:`~protocol.messages.Delta`
``tmf/v1/<fleet>/model/canary/<chunk>`` yes       The same of the canary version
``tmf/v1/<fleet>/up/<shard>/<board>``   no        :class:`~protocol.messages.Update`, QoS 1
``tmf/v1/<fleet>/receipt/<shard>``      no        :class:`~protocol.messages.Receipt`
``tmf/v1/<fleet>/board/<board>/state``  yes       JSON: a board's presence; last will: ``lost``
``tmf/v1/<fleet>/board/<board>/event``  no        JSON: why an update of this board was rejected
``tmf/v1/<fleet>/progress``             yes       JSON for people: round, loss, counts, bytes
``tmf/v1/<fleet>/command``              no        JSON for the aggregator: pause, roll back, ...
``tmf/v1/<fleet>/event``                no        JSON: what came of a command
======================================  ========  ================================================

The messages named above are MessagePack (:mod:`protocol.messages`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from protocol.fixed import fnv1a

SHARDS: Final = 64
NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,32}")
"""What a fleet or a board may be called: a topic level, and bytes in every message."""


@lru_cache(maxsize=2**11)  # Asked for twice within a group of updates.
def shard_of(board: str) -> int:
    """The shard of a board, 0 to 63: workers share the boards by it."""
    return fnv1a(board) % SHARDS


@dataclass(frozen=True)
class Topics:
    """The topics of one fleet."""

    fleet: str

    @property
    def root(self) -> str:
        """What every topic of the fleet starts with."""
        return f"tmf/v1/{self.fleet}"

    @property
    def plan(self) -> str:
        """Where the plan lies."""
        return f"{self.root}/plan"

    @property
    def round(self) -> str:
        """Where the open round is announced."""
        return f"{self.root}/round"

    @property
    def delta(self) -> str:
        """Where the change from the version before lies."""
        return f"{self.root}/model/delta"

    @property
    def progress(self) -> str:
        """Where people watch."""
        return f"{self.root}/progress"

    def full(self, chunk: int | str) -> str:
        """Where a chunk of the whole model lies; ``+`` for all of them."""
        return f"{self.root}/model/full/{chunk}"

    def canary(self, chunk: int | str) -> str:
        """Where a chunk of the canary version lies; ``+`` for all of them."""
        return f"{self.root}/model/canary/{chunk}"

    @property
    def command(self) -> str:
        """Where the aggregator is told what to do."""
        return f"{self.root}/command"

    @property
    def answer(self) -> str:
        """Where the aggregator says what came of a command."""
        return f"{self.root}/event"

    def receipt(self, shard: int) -> str:
        """Where a shard's boards learn that their updates are journaled."""
        return f"{self.root}/receipt/{shard}"

    def up(self, board: str) -> str:
        """Where a board sends its updates."""
        return f"{self.root}/up/{shard_of(board)}/{board}"

    def state(self, board: str) -> str:
        """Where a board says how it is."""
        return f"{self.root}/board/{board}/state"

    def event(self, board: str) -> str:
        """Where a board's operator reads why an update was rejected."""
        return f"{self.root}/board/{board}/event"

    @property
    def all_updates(self) -> str:
        """The subscription to every board's updates."""
        return f"{self.root}/up/+/+"

    @property
    def all_states(self) -> str:
        """The subscription to every board's presence."""
        return f"{self.root}/board/+/state"

    def board_of_update(self, topic: str) -> tuple[int, str] | None:
        """Shard and board of an update's topic, or None where the topic is another's."""
        match topic.removeprefix(self.root + "/").split("/"):
            case ["up", shard, board] if shard.isdecimal() and len(shard) <= 2:
                return int(shard), board
        return None

    def board_of_state(self, topic: str) -> str | None:
        """The board of a state's topic, or None where the topic is another's."""
        match topic.removeprefix(self.root + "/").split("/"):
            case ["board", board, "state"]:
                return board
        return None
