"""Boards that share a connection: what they send, hear and send again."""

import asyncio
import json
import random
from dataclasses import replace
from typing import Final, Protocol

import msgpack
import numpy as np
from numpy.typing import NDArray

from protocol import mqtt
from protocol.errors import MessageError, PacketError
from protocol.messages import FORMAT, U32, Receipt, Round, Update
from protocol.topics import Topics, shard_of

KEEPALIVE: Final = 60
"""Seconds, as on a board."""
RESEND_SECONDS: Final = 2.0
"""As on a board: an update without a receipt is sent again after that, then after twice as long."""
RESEND_MOST: Final = 32.0
ANSWER_SECONDS: Final = 5.0
"""From a connection to the broker's word. Where many connect at once the queue of the broker's
machine overflows, and some are left hanging: they are given up and tried again."""
MOST_BOARDS: Final = 2**15 - 1
"""On a connection: each has a packet number for its update and one for its state."""
SUBSCRIPTION: Final = 2**16 - 1
"""The packet number of the subscription."""
READY: Final = json.dumps({"state": "ready", "platform": "load"}).encode()
LOST: Final = json.dumps({"state": "lost"}).encode()


class Fleet(Protocol):
    """Who is told what the boards of a connection hear and send."""

    def rejected(self, code: int) -> None:
        """The broker refuses the connection, for this reason (MQTT 3.1.1, table 3.1)."""

    def there(self, crowd: "Crowd") -> None:
        """The broker has accepted the connection and what it subscribes to."""

    def answers(self, crowd: "Crowd") -> None:
        """The broker has answered a ping: what it had for these boards until then has been read."""

    def lost(self, crowd: "Crowd") -> None:
        """The connection has ended."""

    def invites(self, announced: Round) -> frozenset[str]:
        """A round is announced; the boards that it invites, if it is the newest."""
        ...

    def over(self, round_: int) -> None:
        """A round has ended."""

    def sent(self, first: int, again: int) -> None:
        """So many updates go to the broker: for the first time, and again."""

    def acknowledged(self, round_: int | None, count: int) -> None:
        """The broker has so many updates of a round."""

    def receipted(self, round_: int, count: int) -> None:
        """The aggregator has journaled so many updates of a round."""


class Crowd(asyncio.Protocol):
    """Boards on one connection.

    Args:
        fleet: is told what happens.
        topics: the fleet's.
        updates: one a board, at most MOST_BOARDS.
    """

    def __init__(self, fleet: Fleet, topics: Topics, updates: list[Update]) -> None:
        self._fleet = fleet
        self._topics = topics
        self._boards = [update.board for update in updates]
        self._places = {board: place for place, board in enumerate(self._boards)}
        self._packets, self._ends, self._rounds = _packets(topics, updates)
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._is_back = False  # Connected, and nothing sent since.
        self._round: int | None = None
        self._waiting: set[int] = set()  # Places of boards without a receipt, ...
        self._sent: set[int] = set()  # of those that have sent an update in this round ...
        self._on_the_way: set[int] = set()  # and of those whose update is not acknowledged.
        self._resend = RESEND_SECONDS
        self._timer: asyncio.TimerHandle | None = None
        self._patience: asyncio.TimerHandle | None = None  # With the broker's word.

    # --- The connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say who we are, and all that a board says and asks at first."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a socket's is one
        self._transport = transport
        self._is_back = True
        wait = ANSWER_SECONDS * random.uniform(1, 1.5)
        self._patience = asyncio.get_running_loop().call_later(wait, self.cut)
        topics, first = self._topics, self._boards[0]
        # A connection has one last will. Where boards share it, nobody tells that they are gone.
        will = (topics.state(first), LOST) if len(self._boards) == 1 else None
        shards = sorted({shard_of(board) for board in self._boards})
        heard = [topics.plan, topics.delta, topics.round, *map(topics.receipt, shards)]
        transport.write(mqtt.connect(f"tmf-{topics.fleet}-{first}", KEEPALIVE, will))
        transport.write(mqtt.subscribe(SUBSCRIPTION, heard))
        self._report(READY)

    def connection_lost(self, _error: Exception | None) -> None:
        """Forget what was on its way: it is sent again on the next connection."""
        self._transport = None
        self._trust()
        self._buffer.clear()
        self._on_the_way.clear()
        self._fleet.lost(self)

    def _trust(self) -> None:
        """Wait no longer for the broker's word."""
        if self._patience:
            self._patience.cancel()
            self._patience = None

    def cut(self) -> None:
        """End the connection as a power cut would."""
        if self._transport:
            self._transport.abort()

    def leave(self) -> None:
        """Say good-bye, without a trace: no state of these boards stays retained."""
        self._stop_timer()
        if self._transport:
            self._report(b"")
            self._transport.write(mqtt.DISCONNECT)

    def ping(self) -> None:
        """Keep the connection alive."""
        if self._transport:
            self._transport.write(mqtt.PINGREQ)

    def _report(self, state: bytes) -> None:
        """Publish this state of every board."""
        if self._transport:
            packets = (
                mqtt.publish(self._topics.state(board), state, number, retain=True)
                for number, board in enumerate(self._boards, MOST_BOARDS + 1)
            )
            self._transport.write(b"".join(packets))

    # --- What is heard

    def data_received(self, data: bytes) -> None:
        """Take in what the broker says."""
        self._buffer += data
        try:
            packets = mqtt.split(self._buffer)
            messages = [mqtt.message_of(it) for it in packets if it.head >> 4 == mqtt.PUBLISH]
        except PacketError:
            self.cut()
            return
        self._confirmed(packets)
        if self._transport:
            self._transport.write(mqtt.acknowledge(it.packet for it in messages if it.packet))
        for message in messages:
            try:
                self._hear(message)
            except MessageError:
                continue  # As a board goes on.

    def _confirmed(self, packets: list[mqtt.Packet]) -> None:
        """What the broker says of what we have sent."""
        acknowledged = 0
        for head, body in packets:
            if head >> 4 == mqtt.PUBACK:
                place = int.from_bytes(body, "big") - 1
                if place in self._on_the_way:
                    self._on_the_way.remove(place)
                    acknowledged += 1
            elif head >> 4 == mqtt.SUBACK:
                self._trust()
                self._fleet.there(self)
            elif head >> 4 == mqtt.PINGRESP:
                self._fleet.answers(self)
            elif head >> 4 == mqtt.CONNACK and body[-1]:
                self._fleet.rejected(body[-1])
        if acknowledged:
            self._fleet.acknowledged(self._round, acknowledged)

    def _hear(self, message: mqtt.Message) -> None:
        if message.topic == self._topics.round:
            self._on_round(Round.unpack(message.payload) if message.payload else None)
        elif message.topic.startswith(f"{self._topics.root}/receipt/"):
            self._on_receipt(Receipt.unpack(message.payload))

    def _on_round(self, announced: Round | None) -> None:
        number = announced.round if announced else None
        if self._round is not None and self._round != number:
            self._fleet.over(self._round)
        if number != self._round:
            self._round = number
            self._sent.clear()
            self._waiting.clear()
            if number is not None:
                self._write_round(number)
        if announced:
            invited = self._fleet.invites(announced)
            new = {place for board, place in self._places.items() if board in invited}
            self._waiting |= new - self._sent
            self._send(again=self._is_back)
            self._is_back = False

    def _on_receipt(self, receipt: Receipt) -> None:
        if receipt.round != self._round:
            return
        places = {place for b in receipt.boards if (place := self._places.get(b)) is not None}
        count = len(self._waiting & places)
        self._waiting -= places
        if count:
            self._fleet.receipted(receipt.round, count)

    # --- What is sent

    def _write_round(self, number: int) -> None:
        content = np.frombuffer(self._packets, np.uint8)
        for i, byte in enumerate(number.to_bytes(4, "big")):
            content[self._rounds + i] = byte

    def _send(self, *, again: bool) -> None:
        """Send what waits for a receipt; look after it again in a while.

        Args:
            again: also what was sent before.
        """
        places = self._waiting - self._on_the_way
        if not again:
            places -= self._sent
        if not places:
            return
        if self._transport:
            if len(places) == len(self._boards):
                self._transport.write(bytes(self._packets))
            else:
                cuts = ((self._ends[place], self._ends[place + 1]) for place in sorted(places))
                parts = (self._packets[start:end] for start, end in cuts)
                self._transport.write(b"".join(parts))
            self._fleet.sent(len(places - self._sent), len(places & self._sent))
            if not places & self._sent:
                self._resend = RESEND_SECONDS
            self._sent |= places
            self._on_the_way |= places
        # Also without a connection: the next one may come after the round, and hear of none.
        self._stop_timer()
        wait = self._resend * random.uniform(1, 1.5)
        self._timer = asyncio.get_running_loop().call_later(wait, self._send_again)

    def _send_again(self) -> None:
        self._resend = min(2 * self._resend, RESEND_MOST)
        self._send(again=True)

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()


def _packets(
    topics: Topics, updates: list[Update]
) -> tuple[bytearray, list[int], NDArray[np.int64]]:
    """PUBLISH packets, where each ends, and where in them the round's four bytes stand.

    MessagePack writes a number as short as it can but reads any: the largest makes room for all.
    """
    content = bytearray()
    ends, rounds = [0], []
    for number, update in enumerate(updates, 1):
        payload = replace(update, round=U32).pack()
        packet = mqtt.publish(topics.up(update.board), payload, number)
        before = len(msgpack.packb((FORMAT, update.lineage)))
        at = payload.index(msgpack.packb(U32), before) + 1
        rounds.append(len(content) + len(packet) - len(payload) + at)
        content += packet
        ends.append(len(content))
    return content, ends, np.array(rounds)
