"""What boards send and receive, in bytes of whole MQTT packets.

Every message is made by the real code, and the packets around it are those of
:mod:`protocol.mqtt`. A board's own count starts behind CONNECT and CONNACK; here they count.
Keep-alive pings are left out, and so is what gets lost: here, nothing does.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import numpy as np

from protocol import mqtt
from protocol.messages import Receipt
from protocol.topics import SHARDS, Topics, shard_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from numpy.typing import NDArray

    from protocol.messages import Chunk
    from protocol.spec.spec import Spec

_KEEPALIVE: Final = 60
"""Seconds; whatever they are, they take two bytes."""
_LOST: Final = b'{"state":"lost"}'
_SUBACK: Final = len(mqtt.suback(1))


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
        will = topics.state(name), _LOST
        filters = (topics.plan, topics.delta, topics.round, topics.receipt(self._shards[board]))
        self.up[board] += len(mqtt.connect(f"tmf-{topics.fleet}-{name}", _KEEPALIVE, will))
        self.up[board] += sum(len(mqtt.subscribe(1, [topic])) for topic in filters)
        self.down[board] += mqtt.ACK_BYTES + _SUBACK * len(filters)
        self._report(board, "ready")
        self.down[board] += sum(self._retained.values())
        self.up[board] += mqtt.ACK_BYTES * len(self._retained)
        self.connected[board] = True

    def leave(self, board: int) -> None:
        """A board says that it sleeps, and disconnects."""
        self._report(board, "sleeping")
        self.up[board] += len(mqtt.DISCONNECT)
        self.connected[board] = False

    def fail(self, board: int) -> None:
        """A board is gone without a word."""
        self.connected[board] = False

    def sizes(self, chunks: Iterable[Chunk]) -> list[int]:
        """Packets that bring a model."""
        return [
            mqtt.publish_size(self._topics.full(chunk.chunk), len(chunk.pack())) for chunk in chunks
        ]

    def fetch(self, board: int, chunks: Sequence[int]) -> None:
        """A board subscribes to a model's chunks, of these sizes, until it has them all."""
        topic = [self._topics.full("+")]
        self.up[board] += len(mqtt.subscribe(1, topic)) + len(mqtt.unsubscribe(2, topic))
        self.up[board] += mqtt.ACK_BYTES * len(chunks)
        self.down[board] += _SUBACK + mqtt.ACK_BYTES + sum(chunks)

    def announce(self, payload: bytes) -> None:
        """A round is published, to all who are connected."""
        self._publish(self._topics.round, len(payload))

    def model(self, delta: bytes) -> None:
        """A version is published, as the change from the one before."""
        self._publish(self._topics.delta, len(delta))

    def update(self, board: int, payload: bytes) -> None:
        """A board sends its update."""
        self.up[board] += mqtt.publish_size(self._topics.up(self._names[board]), len(payload))
        self.down[board] += mqtt.ACK_BYTES

    def receipts(self, round_: int, boards: Collection[str]) -> None:
        """All boards of a shard hear whose updates are journaled."""
        shards: dict[int, list[str]] = {}
        for name in sorted(boards):
            shards.setdefault(int(self._shards[self._numbers[name]]), []).append(name)
        sizes = np.zeros(SHARDS, np.int64)
        for shard, names in shards.items():
            receipt = Receipt(self._lineage, round_, tuple(names)).pack()
            sizes[shard] = mqtt.publish_size(self._topics.receipt(shard), len(receipt), qos=0)
        self.down += np.where(self.connected, sizes[self._shards], 0)

    def _publish(self, topic: str, payload: int) -> None:
        size = self._retain(topic, payload)
        self.down[self.connected] += size
        self.up[self.connected] += mqtt.ACK_BYTES

    def _retain(self, topic: str, payload: int) -> int:
        size = mqtt.publish_size(topic, payload)
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
        self.up[board] += mqtt.publish_size(topic, len(json.dumps(facts)))
        self.down[board] += mqtt.ACK_BYTES
