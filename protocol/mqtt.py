"""The packets of MQTT 3.1.1 (OASIS standard, 2014), read, written and counted. No I/O.

A client library handles one packet at a time; who takes in or sends thousands a second wants all
that a buffer holds. Section numbers are the standard's.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from protocol.errors import PacketError

if TYPE_CHECKING:
    from collections.abc import Iterable

CONNACK: Final = 2
PUBLISH: Final = 3
PUBACK: Final = 4
SUBACK: Final = 9
UNSUBACK: Final = 11
PINGRESP: Final = 13
"""Kinds of packets: the upper half of their first byte (2.2.1)."""
PINGREQ: Final = b"\xc0\x00"
DISCONNECT: Final = b"\xe0\x00"
_LENGTH_BYTES: Final = 4
"""Most bytes in which a packet says its length."""
_ACKNOWLEDGEMENT: Final = struct.Struct(">BBH")
ACK_BYTES: Final = _ACKNOWLEDGEMENT.size
"""Of a PUBACK, an UNSUBACK or a CONNACK (3.4, 3.11, 3.2)."""


class Packet(NamedTuple):
    """A packet as it came."""

    head: int
    """Its first byte: the kind, and four flags."""
    body: bytes
    """What follows its length."""

    @property
    def kind(self) -> int:
        """As PUBLISH and the others above."""
        return self.head >> 4


class Message(NamedTuple):
    """A published message."""

    topic: str
    """Empty where it is not UTF-8."""
    payload: bytes
    packet: int
    """By which it is acknowledged; 0 where that is not wanted."""
    is_retained: bool = False
    """Whether it was published before we subscribed, and kept by the broker (3.3.1.3)."""


# --- Reading


def split(buffer: bytearray) -> list[Packet]:
    """Take the whole packets off the front of a buffer; what is left in it has yet to be completed.

    Raises:
        PacketError: a packet's length is none.
    """
    packets = []
    start, end = 0, len(buffer)
    data = bytes(buffer)  # Slices of it are the bodies, without another copy.
    while end - start >= 2:
        length = data[start + 1]
        at = start + 2
        if length > 127:  # Seven bits a byte, the lowest first; the last one is below 128 (2.2.3).
            length &= 127
            shift = 7
            while at < end:
                byte = data[at]
                at += 1
                length |= (byte & 127) << shift
                if byte < 128:
                    break
                shift += 7
                if shift == 7 * _LENGTH_BYTES:
                    msg = f"MQTT packet: its length takes more than {_LENGTH_BYTES} bytes"
                    raise PacketError(msg)
            else:
                break
        if at + length > end:
            break
        packets.append(Packet(data[start], data[at : at + length]))
        start = at + length
    del buffer[:start]
    return packets


def message_of(packet: Packet) -> Message:
    """What a PUBLISH packet (3.3) says.

    Raises:
        PacketError: it is cut short, or its quality of service is none.
    """
    head, body = packet
    qos = head >> 1 & 3
    end = 2 + int.from_bytes(body[:2], "big")
    start = end + 2 if qos else end
    if len(body) < max(2, start) or qos == 3:
        msg = f"MQTT packet: no PUBLISH with first byte 0x{head:02x} and {len(body)} bytes"
        raise PacketError(msg)
    try:
        topic = body[2:end].decode()
    except UnicodeDecodeError:
        topic = ""
    return Message(topic, body[start:], int.from_bytes(body[end:start], "big"), bool(head & 1))


# --- Writing: what a client sends


def join(head: int, body: bytes) -> bytes:
    """A packet's bytes, of its first byte and what follows its length."""
    length = bytearray()
    left = len(body)
    while left > 127:
        length.append(left & 127 | 128)
        left >>= 7
    length.append(left)
    return bytes([head]) + length + body


def connect(client_id: str, keepalive: int, will: tuple[str, bytes] | None = None) -> bytes:
    """Ask for a session that ends with the connection (3.1); the will is retained, with QoS 1."""
    flags = 0b10 | (0b101100 if will else 0)
    parts = [_text("MQTT"), bytes([4, flags]), keepalive.to_bytes(2, "big"), _text(client_id)]
    if will:
        topic, payload = will
        parts += [_text(topic), len(payload).to_bytes(2, "big"), payload]
    return join(0x10, b"".join(parts))


def subscribe(packet: int, topics: Iterable[str]) -> bytes:
    """Subscribe with QoS 1 (3.8)."""
    filters = b"".join(_text(topic) + b"\x01" for topic in topics)
    return join(0x82, packet.to_bytes(2, "big") + filters)


def unsubscribe(packet: int, topics: Iterable[str]) -> bytes:
    """Take subscriptions back (3.10)."""
    return join(0xA2, packet.to_bytes(2, "big") + b"".join(map(_text, topics)))


def publish(topic: str, payload: bytes, packet: int = 0, *, retain: bool = False) -> bytes:
    """Publish (3.3) with QoS 1, or with QoS 0 where no packet's number is given."""
    if packet:
        return join(0x32 | retain, _text(topic) + packet.to_bytes(2, "big") + payload)
    return join(0x30 | retain, _text(topic) + payload)


def acknowledge(packets: Iterable[int]) -> bytes:
    """A PUBACK for each (3.4)."""
    return b"".join(_acknowledgement(PUBACK, packet) for packet in packets)


# --- Writing: what a broker answers


def connack() -> bytes:
    """The connection is accepted; there was no session (3.2)."""
    return _acknowledgement(CONNACK, 0)


def suback(packet: int) -> bytes:
    """One topic is subscribed to, with QoS 1 (3.9)."""
    return join(SUBACK << 4, packet.to_bytes(2, "big") + b"\x01")


def unsuback(packet: int) -> bytes:
    """A subscription is taken back (3.11)."""
    return _acknowledgement(UNSUBACK, packet)


# --- Counting


def packet_size(length: int) -> int:
    """Bytes of a packet whose first byte and length are followed by so many (2.2)."""
    head = 2
    while length >> 7 * (head - 1):
        head += 1
    return head + length


def publish_size(topic: str, payload: int, qos: int = 1) -> int:
    """Bytes of a PUBLISH packet (3.3) with a payload of so many; they need not exist."""
    return packet_size(len(_text(topic)) + (2 if qos else 0) + payload)


def _acknowledgement(kind: int, number: int) -> bytes:
    return _ACKNOWLEDGEMENT.pack(kind << 4, 2, number)


def _text(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2, "big") + data
