"""A board takes sound messages and blocks, refuses all others, and nothing else ever happens.

It has no operating system to catch a stray write: what its decoders let through goes to the
kernels. So thousands of mutants are tried on both word sizes, with the heap of a real board.
"""

import itertools
import json
from binascii import crc32
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from localfleet.parts import Bits
from localfleet.processes import HEAP
from protocol import fixed, messages, sparse
from protocol.errors import MessageError, SparseError
from protocol.spec.layers import Kind, LayerShape
from tests.support.networks import random_spec
from tests.support.parts import GOLDEN, mutated, on_both_boards, run_board

MUTANTS = 4000


def blocks(rng: np.random.Generator) -> Iterator[tuple[list[int], bytes]]:
    """Blocks of all sizes, most of them damaged, with the sizes of their tensors."""
    # Seldom come by, each of them refused for one reason.
    for rare in (
        "12010000000405",  # An index just too high,
        "1f010000ff7f8005",  # ... and much,
        "1f010000ff7f" + "00" * 9000 + "8005",  # ... and beyond 32 bits.
        "12010000060105",  # A spare low bit,
        "0003000019f718",  # ... half of a value,
        "100100100001",  # ... scale of a tensor that is not there.
        "100400000f0002fe0701",  # A byte after the last gap,
        "400800000021436587",  # ... and one where there is no gap.
        "100400b00f02fe0701",  # A scale too large,
        "000400f00f1234",
        "200100030101ff",
        "300400000f02fe0701",  # An unknown width,
        "900400000f02fe0701",  # ... and bit 7.
    ):
        yield [4] if rare == "100100100001" else [4, 4], bytes.fromhex(rare)
    while True:
        tensors = rng.integers(1, 60, rng.integers(1, 4)).tolist()
        changes = rng.integers(-3000, 3000, sum(tensors))
        indices = sparse.top_indices(changes, int(rng.integers(0, sum(tensors) + 1)))
        block = sparse.encode(changes, indices, tensors, int(rng.choice(sparse.VALUE_BITS)))
        yield tensors, block
        for _ in range(9):
            yield tensors, mutated(rng, block)
        start = bytes([int(rng.integers(128)), int(rng.integers(20)), 0])
        yield tensors, start + rng.bytes(int(rng.integers(0, 60)))
        yield tensors, recoded(rng, block, len(tensors))


def recoded(rng: np.random.Generator, block: bytes, tensors: int) -> bytes:
    """A block whose coding or scales are others: the sizes of its parts are seldom right then."""
    out = bytearray(block)
    out[0] ^= 1 << int(rng.integers(8))
    out[3 + int(rng.integers(tensors)) // 2] = int(rng.integers(256))
    return bytes(out)


def checksum(tensors: list[int], block: bytes) -> int | None:
    """What a board must answer: see tests/board/fuzz.py."""
    try:
        indices, changes = sparse.decode(block, tensors)
    except SparseError:
        return None
    base = np.full(sum(tensors), 3)
    base[indices] += changes
    return crc32(np.clip(base, -(2**15), 2**15 - 1).astype("<i2").tobytes())


@pytest.mark.real
@on_both_boards
def test_a_board_and_the_host_agree_about_every_block(bits: Bits, tmp_path: Path) -> None:
    rng = np.random.default_rng(bits)
    tried = list(itertools.islice(blocks(rng), MUTANTS))
    lines = [f"{','.join(map(str, tensors))}:{block.hex()}" for tensors, block in tried]
    (tmp_path / "blocks").write_text("\n".join(lines))
    answers = run_board("fuzz.py", bits, "blocks", tmp_path / "blocks", heap=HEAP[bits])
    for (tensors, block), answer in zip(tried, answers, strict=True):
        assert answer == checksum(tensors, block), f"{tensors}: {block.hex()}"
    refused = answers.count(None)
    assert MUTANTS * 0.2 < refused < MUTANTS * 0.9  # Else this tries only one of the two.


def damaged_messages(rng: np.random.Generator) -> Iterator[bytes]:
    """Messages, most of them damaged."""
    golden = json.loads((GOLDEN / "messages.json").read_text(encoding="utf-8"))
    sound = [bytes.fromhex(vector["bytes"]) for vector in golden]
    odd: list[Any] = [
        0,
        1,
        127,
        2**32 - 1,
        2**32,
        2**32 + 1,
        2**64 - 1,
        -1,
        None,
        True,
        1.5,
        "",
        b"",
        [],
        {},
    ]
    while True:
        message = sound[rng.integers(len(sound))]
        yield message
        for _ in range(6):
            yield mutated(rng, message)
        fields = msgpack.unpackb(message)
        fields[rng.integers(len(fields))] = odd[rng.integers(len(odd))]
        yield msgpack.packb(fields)
        yield rng.bytes(int(rng.integers(0, 30)))


ONE = [0, 1, 1, 1, 1, 1, 1, 0, 1]
LOCAL = [0, 1, 1, 1, 1, 1, 1, 1, 1]
FIELDS = {
    "lineage": 1,
    "seed": 1,
    "loss": 0,
    "layers": [ONE, LOCAL],
    "rate_local": 9,
    "rate_global": 9,
    "support": 1,
    "query": 1,
    "clip": 9,
    "top": 1,
    "value_bits": 8,
    "feedback": 0,
}


def plan(**changed: Any) -> bytes:
    """A small plan, some of whose fields no aggregator would send."""
    return bytes(msgpack.packb([messages.FORMAT, *{**FIELDS, **changed}.values()]))


OPEN = messages.Round(1, 2, 3, 4, 5, b"\6\7", 8, 9, 10)

# What a random generator does not find.
NASTY = {
    "nothing": b"",
    "nested a thousand deep": b"\x91" * 1000,
    "nested wide and deep": b"\xdc\xff\xff" * 300,
    "an array that fills the heap": b"\xdc\x27\x10" + bytes(10_000),
    "an array that announces 65,535": b"\xdc\xff\xff\1",
    "a byte string that announces 4 GB": b"\x92\1\xc6\xff\xff\xff\xff\0",
    "a name that is not UTF-8": b"\x94\1\0\0\x91\xa2\xff\xfe",
    "a name cut within a character": b"\x94\1\0\0\x91\xa1\xc3",
    "an integer of 64 bits": b"\x96\1" + b"\xcf" + b"\xff" * 8 + b"\0\0\0\0",
    "a sound round and a byte more": OPEN.pack() + b"\0",
    "more chosen boards than a round names": replace(OPEN, chosen=bytes(1025)).pack(),
    "an age of 256 rounds": replace(OPEN, max_age=256).pack(),
    "format true": b"\x9a\xc3" + OPEN.pack()[2:],
    "a rate above 1": plan(rate_local=2**16),
    "a third loss": plan(loss=2),
    "a clip above the range of errors": plan(clip=2**15),
    "more entries than a block counts": plan(top=2**16),
    "values of five bits": plan(value_bits=5),
    "feedback twice": plan(feedback=2),
    **{
        f"layers: {name}": plan(layers=layers)
        for name, layers in {
            "none": [],
            "one is a number": [3, ONE, LOCAL],
            "one has eight numbers": [ONE[:8], LOCAL],
            "one has a text": [[*ONE[:8], b"5"], LOCAL],
            "nothing local": [ONE, ONE],
            "nothing global": [LOCAL, LOCAL],
            "only a pool is global": [[2, 2, 2, 1, 1, 2, 2, 0, 1], LOCAL],
            "they do not meet": [[0, 1, 1, 1, 5, 1, 1, 0, 1], [0, 1, 1, 9, 1, 1, 1, 1, 1]],
            "a grid that does not meet": [[0, 9, 9, 1, 4, 3, 1, 0, 1], [0, 7, 7, 3, 1, 7, 1, 1, 1]],
            "a fourth kind": [[3, *ONE[1:]], LOCAL],
            "no inputs": [[0, 1, 1, 0, 1, 1, 1, 0, 1], LOCAL],
            "no height": [[0, 0, 1, 1, 1, 1, 1, 0, 1], LOCAL],
            "no outputs": [[0, 1, 1, 1, 0, 1, 1, 0, 1], [0, 1, 1, 0, 1, 1, 1, 1, 1]],
            "no windows": [[0, 1, 1, 1, 1, 0, 1, 0, 1], [0, 2, 2, 1, 1, 2, 1, 1, 1]],
            "windows that do not move": [[0, 1, 1, 1, 1, 1, 0, 0, 1], LOCAL],
            "windows that leap": [[0, 1, 1, 1, 1, 1, 2**31, 0, 1], LOCAL],
            "windows higher than the grid": [[0, 2, 9, 1, 1, 3, 1, 0, 1], LOCAL],
            "windows wider than the grid": [[0, 9, 2, 1, 1, 3, 1, 0, 1], LOCAL],
            "a pool of three": [ONE, LOCAL, [2, 3, 3, 1, 1, 3, 3, 0, 1]],
            "a pool whose windows overlap": [[2, 4, 4, 1, 1, 2, 1, 0, 1], [0, 3, 3, *ONE[3:]]],
            "a pool that makes channels": [[2, 2, 2, 1, 2, 2, 2, 0, 1], [0, 1, 1, 2, *LOCAL[4:]]],
            "depthwise makes channels": [[1, 3, 3, 1, 2, 3, 1, 0, 1], [0, 1, 1, 2, *LOCAL[4:]]],
            "too many products": [[0, 1, 1, 32761, 1, 1, 1, 0, 1], LOCAL],
            "too many outputs": [ONE, [0, 1, 1, 1, 2049, 1, 1, 1, 1]],
            "a start outside the range of weights": [[*ONE[:8], 32769], LOCAL],
            "sizes of 64 bits": [[0, 2**40, 2**40, 2**40, 2**40, 1, 1, 0, 1], LOCAL],
        }.items()
    },
}


def board_reads(messages_: list[bytes], bits: Bits, folder: Path) -> Any:
    (folder / "messages").write_text("\n".join(message.hex() for message in messages_) + "\n")
    return run_board("fuzz.py", bits, "messages", folder / "messages", heap=HEAP[bits])


@pytest.mark.real
@on_both_boards
def test_a_board_refuses_every_nasty_message(bits: Bits, tmp_path: Path) -> None:
    for name, outcome in zip(NASTY, board_reads(list(NASTY.values()), bits, tmp_path), strict=True):
        assert outcome == dict.fromkeys(outcome), name


@pytest.mark.real
@on_both_boards
def test_a_board_reads_a_message_as_the_host_does_or_refuses_it(bits: Bits, tmp_path: Path) -> None:
    rng = np.random.default_rng(bits)
    tried = list(itertools.islice(damaged_messages(rng), MUTANTS))
    read = 0
    for data, outcome in zip(tried, board_reads(tried, bits, tmp_path), strict=True):
        for name, fields in outcome.items():
            assert fields is None or isinstance(fields, list), f"{data.hex()} as {name}: {fields}"
            try:
                message = getattr(messages, name).unpack(data)
            except MessageError:
                continue
            if fields is not None:
                assert fields == shown(message), data.hex()
                read += 1
    assert read > MUTANTS / 20


def shown(message: messages.Message) -> Any:
    """Its fields as tests/board/fuzz.py prints them."""
    values = [getattr(message, name) for name in message.__dataclass_fields__]
    return [v.hex() if isinstance(v, bytes) else json.loads(json.dumps(v)) for v in values]


# --- Plans: what is let through decides where the kernels write


def is_sound(layers: list[list[int]]) -> bool:
    """Whether layers may be trained, as the host says it."""
    below = None
    sides = set()
    for kind, height, width, channels, outputs, kernel, stride, flags, limit in layers:
        if kind > Kind.POOL or not 0 < kernel <= min(height, width) or not 0 < stride <= 255:
            return False
        shape = LayerShape(
            *(Kind(kind), height, width, channels, outputs, kernel, stride),
            relu=False,
            local=bool(flags & 1),
        )
        if 0 in {channels, outputs} or below not in {None, shape.words_in} or limit > 2**15:
            return False
        if kind == Kind.POOL:
            if (channels, stride) != (outputs, kernel) or kernel not in {2, 4}:
                return False
        else:
            sides.add(shape.local)
            if kind == Kind.DEPTHWISE and channels != outputs:
                return False
            if shape.dot_shift > fixed.WEIGHT_BITS or shape.error_shift >= fixed.WEIGHT_BITS:
                return False
        below = shape.words_out
    return sides == {False, True}


def plans(rng: np.random.Generator) -> Iterator[tuple[list[list[int]], bytes]]:
    """Plans of random networks, in most of which a size or two are something else."""
    odd = [0, 1, 2, 3, 4, 5, 7, 255, 256, 2047, 32768, 65535, 2**30, 2**31, 2**32 - 1, 2**63]
    while True:
        spec = random_spec(rng)
        layers = [list(layer) for layer in spec.plan.layers]
        for _ in range(rng.integers(4)):
            layer = layers[rng.integers(len(layers))]
            at = rng.integers(9)
            layer[at] = odd[rng.integers(len(odd))] if rng.random() < 0.7 else layer[at] + 1
        yield layers, plan(layers=layers, loss=spec.plan.loss, top=int(rng.integers(2**16)))


@pytest.mark.real
@on_both_boards
def test_a_plan_is_refused_or_too_large_or_trained_with_and_nothing_else_is_written_to(
    bits: Bits, tmp_path: Path
) -> None:
    rng = np.random.default_rng(bits)
    tried = list(itertools.islice(plans(rng), 600))
    (tmp_path / "plans").write_text("\n".join(data.hex() for _, data in tried) + "\n")
    answers = run_board("fuzz.py", bits, "plans", tmp_path / "plans", heap=HEAP[bits])
    for (layers, _), answer in zip(tried, answers, strict=True):
        assert answer in ({"trained", "too large"} if is_sound(layers) else {"refused"}), layers
    for answer, least in (("refused", 100), ("trained", 100), ("too large", 1)):
        assert answers.count(answer) >= least, answer
