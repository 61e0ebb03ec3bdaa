"""The host reads what is a message and refuses the rest, by name; no bytes do anything else."""

from dataclasses import fields, replace
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocol.errors import MessageError
from protocol.messages import (
    CHUNK_BYTES,
    FORMAT,
    MAX_MESSAGE_BYTES,
    Chunk,
    Delta,
    Message,
    Plan,
    Receipt,
    Round,
    Update,
)
from tests.support.parts import mutated

U32 = 2**32 - 1
MESSAGES: list[Message] = [
    Plan(
        lineage=1,
        seed=2,
        loss=1,
        layers=((0, 5, 4, 2, 8, 3, 1, 2, 965), (0, 1, 1, 48, 5, 1, 1, 1, 591)),
        rate_local=655,
        rate_global=328,
        support=32,
        query=32,
        clip=2**15 - 1,
        top=4,
        value_bits=8,
        feedback=0,
    ),
    Round(
        lineage=1,
        round=2,
        version=3,
        ticket_limit=2**32,
        deadline=30_000,
        chosen=b"\1\0\2\0",
        max_age=2,
        canary_version=4,
        canary_share=2**31,
    ),
    Chunk(lineage=1, version=2, chunk=0, chunks=1, checksum=U32, weights=bytes(CHUNK_BYTES)),
    Delta(lineage=1, version=2, checksum=U32, changes=b"\0\0\0\0"),
    Update(
        lineage=1,
        round=2,
        board="board-00",
        nonce=3,
        support=32,
        query=32,
        support_loss=100,
        query_loss=100,
        query_correct=31,
        bytes_up=10,
        bytes_down=20,
        milliseconds=300,
        heap_free=40_000,
        changes=b"\0\0\0\0",
    ),
    Receipt(lineage=1, round=2, boards=("board-00", "board-01")),
]
KINDS = [type(message) for message in MESSAGES]
PLAN, ROUND, CHUNK, DELTA, UPDATE, RECEIPT = MESSAGES
OPEN = msgpack.unpackb(ROUND.pack())[1:]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_arrives_as_it_was_sent(message: Message) -> None:
    data = message.pack()
    assert type(message).unpack(data) == message
    assert data[1] == FORMAT  # The format's number comes first, for readers of another format.


@pytest.mark.parametrize(
    ("message", "field", "value", "wanted"),
    [
        (PLAN, "seed", -1, "an integer from 0"),
        (PLAN, "seed", 2**32, "an integer from 0 to 4294967295"),
        (PLAN, "seed", 1.0, "an integer"),
        (PLAN, "seed", True, "an integer"),
        (PLAN, "rate_local", 2**15 + 1, "from 0 to 32768"),
        (PLAN, "top", 2**16, "from 0 to 65535"),
        (PLAN, "loss", 2, "from 0 to 1"),
        (PLAN, "clip", 2**15, "from 0 to 32767"),
        (PLAN, "value_bits", 17, "from 0 to 16"),
        (PLAN, "feedback", 2, "from 0 to 1"),
        (PLAN, "layers", 3, "a list of layers"),
        (PLAN, "layers", (3,), "a list of layers"),
        (PLAN, "layers", ((0, 1, 1, 8, 8, 1, 1, 0),), "nine integers each"),
        (PLAN, "layers", ((0, 1, 1, 8, 8, 1, 1, 0, 5, 6),), "nine integers each"),
        (PLAN, "layers", ((0, 1, 1, 8, 8, 1, 1, 0, -5),), "nine integers each"),
        (PLAN, "layers", ((0, 1, 1, 8, 8, 1, 1, True, 5),), "nine integers each"),
        (ROUND, "ticket_limit", 2**32 + 1, "from 0 to 4294967296"),
        (ROUND, "deadline", None, "an integer"),
        (ROUND, "chosen", bytes(CHUNK_BYTES + 1), "at most 1024 bytes"),
        (ROUND, "chosen", "text", "bytes"),
        (ROUND, "max_age", 256, "from 0 to 255"),
        (ROUND, "canary_version", 2**32, "from 0 to 4294967295"),
        (ROUND, "canary_share", 2**32 + 1, "from 0 to 4294967296"),
        (CHUNK, "weights", bytes(CHUNK_BYTES + 1), "at most 1024 bytes"),
        (CHUNK, "weights", "text", "bytes"),
        (DELTA, "checksum", b"", "an integer"),
        (UPDATE, "board", "", "a name"),
        (UPDATE, "board", "a/b", "a name"),
        (UPDATE, "board", "x" * 33, "a name"),
        (UPDATE, "board", "board\n", "a name"),
        (UPDATE, "board", b"board", "a name"),
        (UPDATE, "query_loss", -1, "an integer"),
        (UPDATE, "query_correct", None, "an integer"),
        (RECEIPT, "boards", ("a", ""), "a list of names"),
        (RECEIPT, "boards", "a", "a list of names"),
    ],
)
def test_a_wrong_field_is_named(message: Message, field: str, value: Any, wanted: str) -> None:
    data = replace(message, **{field: value}).pack()
    with pytest.raises(MessageError, match=f"'{field}' must be .*{wanted}"):
        type(message).unpack(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "not MessagePack", id="nothing"),
        pytest.param(ROUND.pack()[:-1], "not MessagePack", id="cut short"),
        pytest.param(ROUND.pack() + b"\0", "not MessagePack", id="a byte too many"),
        pytest.param(b"\x91" * 100_000, "not MessagePack", id="nested too deep"),
        pytest.param(b"\xc1" * 6, "not MessagePack", id="a byte that means nothing"),
        pytest.param(b"\xdd\xff\xff\xff\xff\1", "not MessagePack", id="4 billion announced"),
        pytest.param(bytes(MAX_MESSAGE_BYTES + 1), "at most 131072 are read", id="too long"),
        pytest.param(msgpack.packb(7), "not an array", id="a number"),
        pytest.param(msgpack.packb({"1": 2}), "not an array", id="a map"),
        pytest.param(msgpack.packb([]), "not an array", id="an empty array"),
        pytest.param(
            msgpack.packb([1, *OPEN]),
            "of format 1, and this aggregator speaks 2",
            id="another format",
        ),
        pytest.param(msgpack.packb([True, *OPEN]), "format number", id="format true"),
        pytest.param(msgpack.packb([1.0, *OPEN]), "format number", id="format 1.0"),
        pytest.param(
            msgpack.packb([FORMAT, *OPEN[1:]]), "8 fields instead of 9", id="a field less"
        ),
        pytest.param(
            msgpack.packb([FORMAT, 1, *OPEN]), "10 fields instead of 9", id="a field more"
        ),
    ],
)
def test_what_is_no_round_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(MessageError, match=f"^round: .*{reason}"):
        Round.unpack(data)


def test_a_message_is_not_taken_for_another() -> None:
    for message in MESSAGES:
        for kind in KINDS:
            if kind is not type(message) and len(fields(kind)) != len(fields(message)):
                with pytest.raises(MessageError):
                    kind.unpack(message.pack())


@given(st.binary(max_size=60))
@example(msgpack.packb({b"k": {}}))
@example(b"\x81\x90\0")  # A map whose key cannot be one.
@example(b"\xc7\x0c\xff" + b"\xff" * 12)  # A date out of range.
@settings(max_examples=300)
def test_no_bytes_do_harm(data: bytes) -> None:
    for kind in KINDS:
        read_or_refuse(kind, data)
        read_or_refuse(kind, bytes([0x90 | len(fields(kind)) + 1, 1]) + data)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_no_mutant_does_harm(message: Message) -> None:
    rng = np.random.default_rng(1)
    for _ in range(500):
        read_or_refuse(type(message), mutated(rng, message.pack()))


def read_or_refuse(kind: type[Message], data: bytes) -> None:
    try:
        message = kind.unpack(data)
    except MessageError:
        return
    assert kind.unpack(message.pack()) == message
