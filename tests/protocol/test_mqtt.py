"""MQTT packets: what was written is read, however it arrives; what is none is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import mqtt
from protocol.errors import PacketError
from protocol.mqtt import Message, Packet

TOPICS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
MESSAGES = st.builds(Message, TOPICS, st.binary(max_size=400), st.integers(1, 2**16 - 1))


def parts(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


@given(st.lists(MESSAGES, max_size=6), st.integers(1, 600))
def test_messages_arrive_as_they_were_sent_whatever_the_reads(
    messages: list[Message], size: int
) -> None:
    sent = b"".join(mqtt.publish(*message[:3], retain=message.is_retained) for message in messages)
    buffer = bytearray()
    arrived = []
    for part in parts(sent, size):
        buffer += part
        arrived += [mqtt.message_of(packet) for packet in mqtt.split(buffer)]
    assert arrived == messages
    assert not buffer


@pytest.mark.parametrize("length", [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152])
def test_a_packet_of_any_length_is_read_once_it_is_whole(length: int) -> None:
    sent = mqtt.join(0x30, bytes(length))
    cut = bytearray(sent[:-1])
    assert mqtt.split(cut) == []
    assert bytes(cut) == sent[:-1]
    whole = bytearray(sent + b"\xd0")
    assert mqtt.split(whole) == [Packet(0x30, bytes(length))]
    assert bytes(whole) == b"\xd0"


def test_a_length_that_does_not_end_is_refused() -> None:
    with pytest.raises(PacketError, match="its length takes more than 4 bytes"):
        mqtt.split(bytearray(b"\x30\xff\xff\xff\xff\x01"))


@pytest.mark.parametrize(
    ("head", "body"),
    [(0x30, b""), (0x30, b"\0"), (0x30, b"\0\5tmf"), (0x32, b"\0\3tmf\0"), (0x36, b"\0\1t\0\1")],
    ids=["empty", "half a length", "half a topic", "half a number", "QoS 3"],
)
def test_what_is_no_message_is_refused(head: int, body: bytes) -> None:
    with pytest.raises(PacketError, match="no PUBLISH with first byte"):
        mqtt.message_of(Packet(head, body))


def test_a_message_without_acknowledgement_and_one_whose_topic_is_no_text() -> None:
    assert mqtt.message_of(Packet(0x30, b"\0\1tpayload")) == Message("t", b"payload", 0)
    assert mqtt.message_of(Packet(0x32, b"\0\1\xff\0\7")) == Message("", b"", 7)


@given(st.binary(max_size=300))
def test_no_bytes_do_harm(data: bytes) -> None:
    buffer = bytearray(data)
    try:
        packets = mqtt.split(buffer)
    except PacketError:
        return
    # A length may have been written longer than it need be.
    assert len(b"".join(mqtt.join(*packet) for packet in packets) + buffer) <= len(data)
    for packet in packets:
        try:
            mqtt.message_of(packet)
        except PacketError:
            continue


def test_what_a_board_sends_first() -> None:
    """Byte by byte as the standard has it: sections 3.1, 3.8 and 3.4."""
    assert mqtt.connect("b", 60) == bytes.fromhex("100d 0004 4d515454 04 02 003c 0001 62")
    will = ("t", b"lost")
    expected = "1016 0004 4d515454 04 2e 003c 0001 62 0001 74 0004 6c6f7374"
    assert mqtt.connect("b", 60, will) == bytes.fromhex(expected)
    assert mqtt.subscribe(7, ["a", "b"]) == bytes.fromhex("820a 0007 0001 61 01 0001 62 01")
    assert mqtt.acknowledge([1, 258]) == bytes.fromhex("4002 0001 4002 0102")
    assert mqtt.unsubscribe(7, ["a", "b"]) == bytes.fromhex("a208 0007 0001 61 0001 62")
    assert mqtt.publish("t", b"p", 7, retain=True) == bytes.fromhex("3306 0001 74 0007 70")
    assert mqtt.publish("t", b"p") == bytes.fromhex("3004 0001 74 70")


def test_what_a_broker_answers() -> None:
    """Sections 3.2, 3.9 and 3.11."""
    assert mqtt.connack() == bytes.fromhex("2002 0000")
    assert mqtt.suback(258) == bytes.fromhex("9003 0102 01")
    assert mqtt.unsuback(7) == bytes.fromhex("b002 0007")
    assert {len(mqtt.connack()), len(mqtt.unsuback(7)), len(mqtt.acknowledge([1]))} == {
        mqtt.ACK_BYTES
    }


@given(TOPICS, st.integers(0, 3), st.sampled_from([0, 1]), st.integers(0, 200))
def test_a_packets_size_is_what_its_bytes_are(topic: str, width: int, qos: int, more: int) -> None:
    """Around the lengths at which the length itself takes another byte, too."""
    payload = bytes(max(0, (128**width if width < 3 else 0) - 100 + more))
    sent = mqtt.publish(topic, payload, packet=qos)
    assert mqtt.publish_size(topic, len(payload), qos) == len(sent)
