"""What boards send and receive, in bytes of whole MQTT packets.

Every message is made by the real code; the packets around it are counted after MQTT 3.1.1 (OASIS
standard, 2014, whose sections are named). A board's own count starts behind CONNECT and CONNACK;
here they count. Keep-alive pings are left out, and so is what gets lost: here, nothing does.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import numpy as np

from protocol.messages import Receipt
from protocol.topics import SHARDS, Topics, shard_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from numpy.typing import NDArray

    from protocol.messages import Chunk
    from protocol.spec.spec import Spec

ACK: Final = 4
"""A PUBACK, UNSUBACK or CONNACK (3.4, 3.11, 3.2)."""
_SUBACK: Final = 5
_DISCONNECT: Final = 2
_TEXT: Final = 2
"""Bytes before a text, which say its length (1.5.3)."""
_CONNECT: Final = 10
"""Protocol, flags and keep-alive (3.1.2)."""
_LOST: Final = b'{"state":"lost"}'


def packet(length: int) -> int:
    """A packet whose header is followed by so many bytes (2.2)."""
    head = 2
    while length >> 7 * (head - 1):
        head += 1
    return head + length


def publish(topic: str, payload: int, qos: int = 1) -> int:
    """A PUBLISH packet with a payload of so many bytes (3.3)."""
    return packet(_TEXT + len(topic) + (2 if qos else 0) + payload)


class Traffic:
    """Every board's counters.

    Args:
        spec: the fleet's.
        names: of the boards, by number.
    """

    def __init__(self, spec: Spec, names: Sequence[str]) -> None:
        self.up: NDArray[np.int64] = np.zeros(len(names), np.int64)
        """Bytes that each board has sent."""
        self.down: NDArray[np.int64] = np.zeros(len(names), np.int64)
        """Bytes that each board has received."""
        self._names = names
        self._numbers = {name: board for board, name in enumerate(names)}
        self._topics = Topics(spec.fleet)
        self._lineage = spec.lineage
        self.connected: NDArray[np.bool_] = np.zeros(len(names), np.bool_)
        """Who is on the network."""
        self._shards = np.array([shard_of(name) for name in names])
        self._retained: dict[str, int] = {}  # What who subscribes hears at once, in bytes.
        self._retain(self._topics.plan, len(spec.plan.pack()))

    def connect(self, board: int) -> None:
        """A board connects, subscribes, says that it is ready, and hears what is retained."""
        name, topics = self._names[board], self._topics
        client = f"tmf-{topics.fleet}-{name}"
        will = 2 * _TEXT + len(topics.state(name)) + len(_LOST)
        filters = (topics.plan, topics.delta, topics.round, topics.receipt(self._shards[board]))
        self.up[board] += packet(_CONNECT + _TEXT + len(client) + will)
        self.up[board] += sum(packet(2 + _TEXT + len(topic) + 1) for topic in filters)
        self.down[board] += ACK + _SUBACK * len(filters)
        self._report(board, "ready")
        self.down[board] += sum(self._retained.values())
        self.up[board] += ACK * len(self._retained)
        self.connected[board] = True

    def leave(self, board: int) -> None:
        """A board says that it sleeps, and disconnects."""
        self._report(board, "sleeping")
        self.up[board] += _DISCONNECT
        self.connected[board] = False

    def fail(self, board: int) -> None:
        """A board is gone without a word."""
        self.connected[board] = False

    def sizes(self, chunks: Iterable[Chunk]) -> list[int]:
        """Packets that bring a model."""
        return [publish(self._topics.full(chunk.chunk), len(chunk.pack())) for chunk in chunks]

    def fetch(self, board: int, chunks: Sequence[int]) -> None:
        """A board subscribes to a model's chunks, of these sizes, until it has them all."""
        topic = _TEXT + len(self._topics.full("+"))
        self.up[board] += packet(2 + topic + 1) + packet(2 + topic) + ACK * len(chunks)
        self.down[board] += _SUBACK + ACK + sum(chunks)

    def announce(self, payload: bytes) -> None:
        """A round is published, to all who are connected."""
        self._publish(self._topics.round, len(payload))

    def model(self, delta: bytes) -> None:
        """A version is published, as the change from the one before."""
        self._publish(self._topics.delta, len(delta))

    def update(self, board: int, payload: bytes) -> None:
        """A board sends its update."""
        self.up[board] += publish(self._topics.up(self._names[board]), len(payload))
        self.down[board] += ACK

    def receipts(self, round_: int, boards: Collection[str]) -> None:
        """All boards of a shard hear whose updates are journaled."""
        shards: dict[int, list[str]] = {}
        for name in sorted(boards):
            shards.setdefault(int(self._shards[self._numbers[name]]), []).append(name)
        sizes = np.zeros(SHARDS, np.int64)
        for shard, names in shards.items():
            receipt = Receipt(self._lineage, round_, tuple(names)).pack()
            sizes[shard] = publish(self._topics.receipt(shard), len(receipt), qos=0)
        self.down += np.where(self.connected, sizes[self._shards], 0)

    def _publish(self, topic: str, payload: int) -> None:
        size = self._retain(topic, payload)
        self.down[self.connected] += size
        self.up[self.connected] += ACK

    def _retain(self, topic: str, payload: int) -> int:
        size = publish(topic, payload)
        self._retained[topic] = size
        if not payload:
            del self._retained[topic]  # An empty message takes back what was retained (3.3.1.3).
        return size

    def _report(self, board: int, state: str) -> None:
        """What a board says of itself; the figures are as wide as on a small board."""
        facts = {
            "state": state,
            "client": "0.1.0",
            "firmware": "1.26.1",
            "platform": "rp2",
            "heap_free": 100_000,
        }
        topic = self._topics.state(self._names[board])
        self.up[board] += publish(topic, len(json.dumps(facts)))
        self.down[board] += ACK
