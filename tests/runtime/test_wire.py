"""The socket below paho: messages are taken out, all else reaches paho, and writes gather."""

import select
import socket
from collections.abc import Iterator

import pytest

from protocol import mqtt
from protocol.mqtt import Message
from runtime.wire import READ_BYTES, Wire

PINGRESP = b"\xd0\x00"


class Line:
    """A wire and the broker's end of its connection."""

    def __init__(self) -> None:
        mine, self.broker = socket.socketpair()
        self.wire = Wire(mine)
        self.wire.setblocking(False)  # noqa: FBT003 - a socket's signature

    def paho_reads(self) -> bytes:
        """Byte by byte, as paho reads the head of a packet, until there is nothing."""
        read = b""
        while self.wire.wants_paho and (byte := self.wire.recv(1)):
            read += byte
        return read


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.wire.close()
    made.broker.close()


def test_messages_and_other_packets_are_told_apart_byte_by_byte(line: Line) -> None:
    messages = [Message("a", b"one", 1), Message("b", b"", 2)]
    first, second = (mqtt.publish(*message[:3]) for message in messages)
    sent = first + PINGRESP + second + PINGRESP
    arrived, others = [], b""
    for byte in sent:
        line.broker.send(bytes([byte]))
        arrived += line.wire.read()
        others += line.paho_reads()
    assert (arrived, others) == (messages, 2 * PINGRESP)


def test_paho_must_wait_where_there_is_nothing_for_it(line: Line) -> None:
    assert line.wire.read() == []
    with pytest.raises(BlockingIOError):
        line.wire.recv(1)


def test_a_read_is_bounded_and_says_that_there_is_more(line: Line) -> None:
    packet = mqtt.publish("t", bytes(1000), 1)
    line.broker.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * READ_BYTES)
    line.broker.setblocking(False)  # noqa: FBT003
    sent = line.broker.send(packet * (3 * READ_BYTES // len(packet)))
    assert sent > READ_BYTES
    reads = [line.wire.read()]
    while line.wire.has_more:
        reads.append(line.wire.read())
    assert len(reads) > 1
    assert READ_BYTES // 2 < sum(len(message.payload) for message in reads[0]) <= READ_BYTES
    assert sum(map(len, reads)) == sent // len(packet)


@pytest.mark.parametrize("last", [b"", b"\x30\xff\xff\xff\xff\xff", b"\x36\x03\x00\x01t"])
def test_at_the_end_and_after_garbage_paho_reads_an_end(line: Line, last: bytes) -> None:
    line.broker.send(mqtt.publish("t", b"", 1) + PINGRESP + last)
    line.broker.close()
    line.wire.read()
    assert line.paho_reads().startswith(PINGRESP if not last else b"")
    assert line.wire.wants_paho
    assert line.wire.recv(1) == b""


def test_what_is_written_goes_out_together_and_in_order(line: Line) -> None:
    line.wire.send(b"\xc0\x00")
    line.wire.acknowledge([1, 2])
    assert select.select([line.broker], [], [], 0) == ([], [], [])
    line.wire.flush()
    assert line.broker.recv(100) == b"\xc0\x00" + mqtt.acknowledge([1, 2])


def test_what_the_socket_does_not_take_waits_and_nothing_is_lost(line: Line) -> None:
    data = bytes(range(256)) * 8000
    assert line.wire.send(data) == len(data)
    line.wire.flush()
    received = b""
    while len(received) < len(data):
        received += line.broker.recv(2**20)
        line.wire.flush()
    assert received == data
    assert not line.wire.wants_write


def test_a_connection_that_breaks_while_writing_is_an_end(line: Line) -> None:
    line.broker.close()
    line.wire.send(b"\xc0\x00")
    line.wire.flush()
    line.wire.read()
    assert line.wire.recv(1) == b""


def test_closing_writes_what_waits(line: Line) -> None:
    line.wire.send(b"\xe0\x00")
    line.wire.close()
    assert line.broker.recv(100) == b"\xe0\x00"
    assert line.wire.fileno() == -1
