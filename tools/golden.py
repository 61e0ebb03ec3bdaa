"""Golden vectors: what every part of a fleet must answer, to the last bit, as files.

`.cache/venv/bin/python tools/golden.py` writes `protocol/golden/*.json` anew from the host's code.
A test compares: a change of format or arithmetic is a deliberate act, to be committed with them.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from protocol import cohort, fixed, messages, sparse, topics
from simulation.engine.fixed import cross_entropy
from simulation.replay import make_case, make_spec, replay
from simulation.tasks import speech

if TYPE_CHECKING:
    from collections.abc import Sequence

GOLDEN: Final = Path(__file__).resolve().parent.parent / "protocol" / "golden"

Vectors = list[dict[str, Any]]


# --- Sparse blocks


def sparse_vectors() -> Vectors:
    """Changes, as [index, change] where they are not zero, with the block of the ``top`` largest.

    ``applied`` is what the block adds to a model of zeros, likewise.
    """
    rng = np.random.default_rng(1)
    everywhere = {i: int(c) for i, c in enumerate(rng.integers(1, 100, 40))}
    spread = {int(i): int(rng.integers(-900, 900)) for i in rng.permutation(1000)[:400]}
    return [
        _sparse("nothing changed", (7, 5), {}, 3),
        _sparse("one of one", (1,), {0: -1}, 1),
        _sparse("the first of many", (500,), {0: 5}, 10),
        _sparse("the last of many", (500, 12), {511: -5}, 10),
        _sparse("every parameter", (30, 10), everywhere, 40),
        _sparse("ties go to the lower index", (6, 6), {1: 9, 4: -9, 5: 8, 7: 9, 9: -9, 11: 9}, 4),
        *_each_width("the largest changes", (4, 4), {0: 65535, 3: -65535, 5: 65534, 6: 1}, 8),
        _sparse("each side of each scale", (9,), {i: 127 << i for i in range(9)}, 9),
        _sparse("rounding up to 128 takes the next scale", (3, 3), {0: 255, 1: -255, 4: 254}, 6),
        _sparse("rounding up to 8 takes the next scale", (3, 3), {0: 15, 1: -15, 4: 14}, 6, 4),
        _sparse("rounding up to 32768", (3, 3), {0: 65535, 1: -32768, 4: 32767}, 6, 16),
        _sparse("halves go up", (8,), {0: 200, 1: 3, 2: -3, 3: 1, 4: -1, 5: 5, 6: -5}, 8),
        _sparse("more wanted than there are", (3, 2), {0: 5, 3: -1}, 9),
        _sparse("a tensor without a change", (4, 8, 4), {1: 300, 13: -7}, 4),
        *_each_width("a tenth", (600, 400), spread, 100),
        *_each_width("an odd number of entries", (600, 400), spread, 5),
        *_each_width("a bitmap", (600, 400), spread, 400),
        *_each_width("all but a few", (30, 31), {i: i - 70 for i in range(61) if i % 12}, 61),
        _sparse("half of them", (7, 7), dict.fromkeys(range(1, 14, 2), 1), 14),
        _sparse("one more than half", (7, 6), dict.fromkeys(range(0, 13, 2), 1), 13),
        _sparse("a single low bit", (64, 64), {i: i for i in range(128) if i % 6 in {1, 5}}, 40),
        _sparse("the most low bits", (65535,), {65534: 3}, 1),
    ]


def _each_width(name: str, tensors: tuple[int, ...], changed: dict[int, int], top: int) -> Vectors:
    return [
        _sparse(f"{name}, {bits} bits", tensors, changed, top, bits) for bits in sparse.VALUE_BITS
    ]


def _sparse(
    name: str, tensors: tuple[int, ...], changed: dict[int, int], top: int, value_bits: int = 8
) -> dict[str, Any]:
    changes = np.zeros(sum(tensors), np.int64)
    for index, change in changed.items():
        changes[index] = change
    block = sparse.encode(changes, sparse.top_indices(changes, top), tensors, value_bits)
    applied = np.zeros(len(changes), np.int64)
    decoded = sparse.decode(block, tensors)
    applied[decoded.indices] = np.clip(decoded.changes, fixed.WEIGHT_MIN, fixed.WEIGHT_MAX)
    return {
        "name": name,
        "tensors": tensors,
        "changes": sorted(item for item in changed.items() if item[1]),
        "top": top,
        "value_bits": value_bits,
        "block": block.hex(),
        "applied": [(int(i), int(applied[i])) for i in np.flatnonzero(applied)],
    }


# --- Messages


LINEAGE: Final = 0xCAFE0001
U32: Final = 2**32 - 1
FLEET: Final = tuple(f"board-{i:02}" for i in range(17))
LONG_NAME: Final = "a-board.with_the-longest-of-name"


def message_vectors() -> Vectors:
    """Fields and bytes of each message; byte strings in hexadecimal.

    A board writes its update with wider heads than the host needs to, into a buffer that lasts:
    ``board_bytes``.
    """
    return [*_plans(), *_rounds(), *_models(), *_updates(), *_receipts()]


def _plans() -> Vectors:
    sine = (
        (0, 1, 1, 1, 32, 1, 1, 2, 4096),
        (0, 1, 1, 32, 32, 1, 1, 2, 724),
        (0, 1, 1, 32, 1, 1, 1, 1, 724),
    )
    grid = (
        (0, 300, 9, 2, 8, 3, 2, 2, 965),
        (1, 149, 4, 8, 8, 3, 1, 0, 1365),
        (2, 147, 2, 8, 8, 2, 2, 0, 4096),
        (0, 1, 1, 584, 5, 1, 1, 1, 169),
    )
    least = ((0, 1, 1, 1, 1, 1, 1, 0, 0), (0, 1, 1, 1, 1, 1, 1, 1, 0))
    plan, other = messages.Plan, LINEAGE + 1
    return [
        _message("a plan", plan(LINEAGE, 7, 0, sine, 655, 328, 32, 32, 32767, 112, 8, 0)),
        _message(
            "a plan with layers of all kinds",
            plan(other, U32, 1, grid, 1, 32768, 5, 70000, 16384, 65535, 4, 1),
        ),
        _message("everything at its least", plan(0, 0, 0, least, 0, 0, 0, 0, 0, 0, 4, 0)),
    ]


def _rounds() -> Vectors:
    def round_(  # noqa: PLR0913 - a round has as many fields
        name: str,
        ticket_limit: int,
        deadline: int = 30000,
        *,
        chosen: bytes = b"",
        max_age: int = 0,
        canary: tuple[int, int] = (0, 0),
    ) -> dict[str, Any]:
        some = (LINEAGE, 3, 2, ticket_limit, deadline, chosen, max_age)
        return _message(name, messages.Round(*some, *canary))

    chosen = cohort.name_in(3, FLEET[:3])
    widest = messages.Round(U32, U32, U32, 2**32, U32, chosen, 255, U32, 2**32)
    return [
        round_("a round for some", 0x80000000),
        round_("a round for everyone", 2**32),
        round_("a round for chosen boards", 0, chosen=chosen),
        round_("a round for many", 0, chosen=bytes(range(256)) + b"more"),
        round_("a round that waits for the late", 2**32, 9, max_age=4),
        round_("a round with a canary", 2**32, 9, canary=(5, 2**29)),
        _message("a round at its most", widest),
    ]


def _models() -> Vectors:
    chunk, delta = messages.Chunk, messages.Delta
    return [
        _message("a chunk", chunk(LINEAGE, 2, 1, 3, 0x12345678, b"\0\1\2\xff")),
        _message("a bin16", chunk(LINEAGE, 2, 0, 3, U32, bytes(range(256)) + b"more")),
        _message("a delta", delta(LINEAGE, 2, 0x89ABCDEF, b"\0\0\0\0")),
    ]


def _updates() -> Vectors:
    update = messages.Update(
        lineage=LINEAGE,
        round=12,
        board="board-00",
        nonce=U32,
        support=32,
        query=32,
        support_loss=200,
        query_loss=70000,
        query_correct=31,
        bytes_up=127,
        bytes_down=128,
        milliseconds=255,
        heap_free=256,
        changes=bytes(range(9)),
    )
    longest = messages.Update(
        lineage=U32,
        round=U32,
        board=LONG_NAME,
        nonce=0,
        support=1,
        query=1,
        support_loss=U32,
        query_loss=U32,
        query_correct=U32,
        bytes_up=U32,
        bytes_down=U32,
        milliseconds=65535,
        heap_free=65536,
        changes=bytes(i % 251 for i in range(300)),
    )
    return [
        _message("an update", update),
        _message("str8 and bin16, numbers at their most", longest),
    ]


def _receipts() -> Vectors:
    receipt = messages.Receipt
    return [
        _message("a receipt", receipt(LINEAGE, 3, ("board-00", "b"))),
        _message("an empty receipt", receipt(LINEAGE, 3, ())),
        _message("an array16", receipt(LINEAGE, 300, FLEET)),
        _message("a name in str8", receipt(LINEAGE, 3, (LONG_NAME,))),
    ]


def _message(name: str, message: messages.Message) -> dict[str, Any]:
    values = {field.name: getattr(message, field.name) for field in fields(message)}
    vector = {
        "name": name,
        "message": type(message).__name__,
        "fields": {k: v.hex() if isinstance(v, bytes) else v for k, v in values.items()},
        "bytes": message.pack().hex(),
    }
    if isinstance(message, messages.Update):
        vector["board_bytes"] = as_a_board_writes(list(values.values())).hex()
    return vector


def as_a_board_writes(values: list[Any]) -> bytes:
    """An update with a byte, two or four for an integer, str8 and bin16."""
    out = bytearray([0x90 | len(values) + 1, messages.FORMAT])
    for value in values:
        if isinstance(value, str):
            out += bytes([0xD9, len(value)]) + value.encode()
        elif isinstance(value, bytes):
            out += b"\xc5" + len(value).to_bytes(2, "big") + value
        elif value < 0x80:
            out.append(value)
        elif value < 0x10000:
            out += b"\xcd" + value.to_bytes(2, "big")
        else:
            out += b"\xce" + value.to_bytes(4, "big")
    return bytes(out)


# --- Arithmetic


def arithmetic_vectors() -> Vectors:
    """Rounds of whole networks: a case for a replay, with what comes out of it."""
    return [*_dense_networks(), *_convolutions(), *_channels_and_means(), *_classes_and_limits()]


def _dense_networks() -> Vectors:
    sine = [_dense(32), _dense(32), _dense(1, "none", local=True)]
    last = _dense(3, "none", local=True)
    return [
        _round("the sine task's network", 1, sine, percent=10, amplitude=4),
        _round(
            "one weight and its bias",
            1,
            [_dense(1, "none"), _dense(1, "none", local=True)],
            percent=100,
        ),
        _round("nine inputs, two groups", 9, [_dense(5), last], percent=20),
        _round("seventy inputs, nine groups", 70, [_dense(6), last], percent=5),
        _round("local below global", 5, [_dense(7, local=True), _dense(4, "none")], percent=50),
        _round(
            "a local layer in the middle, no ReLU below it",
            6,
            [_dense(8, "none"), _dense(9, local=True), _dense(3, "none")],
            percent=30,
        ),
        _round(
            "everything saturates",
            11,
            [_dense(10, "none"), _dense(17), _dense(4, "none", local=True)],
            percent=100,
            amplitude=1000,
            extreme=True,
            rate=0.5,
        ),
    ]


def _convolutions() -> Vectors:
    last = _dense(3, "none", local=True)
    return [
        _round("windows of 3 x 3 in one channel", (5, 6, 1), [_conv(4), last], percent=20),
        _round("windows of 3 x 3 in three channels", (5, 4, 3), [_conv(5), last], percent=20),
        _round("a stride of two, which leaves a row out", (8, 7, 2), [_conv(3, stride=2), last]),
        _round("a stride wider than the windows", (9, 8, 2), [_conv(3, stride=4), last]),
        _round("windows of one pixel", (3, 4, 5), [_conv(6, kernel=1), last], percent=20),
        _round("windows of one pixel, far apart", (5, 5, 9), [_conv(4, kernel=1, stride=3), last]),
        _round(
            "a convolution on a convolution",
            (7, 7, 2),
            [_conv(4, activation="none"), _conv(5, stride=2), last],
        ),
        _round("a local convolution", (6, 6, 2), [_conv(3, local=True), _dense(4, "none")]),
        _round(
            "a local convolution in the middle",
            (8, 8, 1),
            [_conv(3), _conv(4, kernel=1, local=True), _dense(4, "none")],
        ),
    ]


def _channels_and_means() -> Vectors:
    last = _dense(3, "none", local=True)
    return [
        _round("each channel on its own", (6, 5, 4), [_depthwise(), last], percent=30),
        _round(
            "each channel on its own, two pixels apart, between others",
            (9, 8, 1),
            [_conv(5, activation="none"), _depthwise(stride=2), _conv(4, kernel=1), last],
        ),
        _round("a local depthwise layer", (5, 5, 3), [_depthwise(local=True), _dense(2, "none")]),
        _round("means of 2 x 2, on the samples", (5, 6, 3), [_pool(2), _dense(4), last]),
        _round("means of 4 x 4", (11, 10, 1), [_conv(4), _pool(4), last]),
        _round(
            "means without a ReLU below them",
            (8, 8, 2),
            [_conv(3, activation="none"), _pool(2), _conv(4, kernel=1), last],
        ),
    ]


def _classes_and_limits() -> Vectors:
    last = _dense(3, "none", local=True)
    return [
        _round("two classes", 4, [_dense(6), _dense(2, "none", local=True)], classes=True),
        _round(
            "seven classes, global above local",
            9,
            [_dense(8, local=True), _dense(7, "none")],
            classes=True,
            amplitude=8,
        ),
        _round(
            "classes far apart, all but one improbable",
            6,
            [_dense(9), _dense(5, "none", local=True)],
            classes=True,
            amplitude=1000,
            extreme=True,
            rate=0.5,
        ),
        _round(
            "drawings of five classes",
            (10, 10, 1),
            [_conv(4, stride=2), _depthwise(), _pool(2), _dense(5, "none", local=True)],
            classes=True,
            rate=0.1,
        ),
        _round("clipped gradients", 8, [_dense(12), last], amplitude=6, clip=0.25),
        _round(
            "clipped gradients of classes",
            (6, 6, 1),
            [_conv(6), _conv(5), _dense(3, "none", local=True)],
            classes=True,
            amplitude=8,
            clip=0.05,
        ),
        _round(
            "everything saturates in a convolution",
            (6, 6, 2),
            [_conv(5, activation="none"), _depthwise(), _pool(2), _dense(4, "none", local=True)],
            percent=100,
            amplitude=1000,
            extreme=True,
            rate=0.5,
        ),
    ]


def _dense(outputs: int, activation: str = "relu", *, local: bool = False) -> dict[str, Any]:
    return {"outputs": outputs, "activation": activation, "local": local}


def _conv(
    outputs: int,
    kernel: int = 3,
    stride: int = 1,
    activation: str = "relu",
    *,
    local: bool = False,
) -> dict[str, Any]:
    layer = {"kind": "conv", "kernel": kernel, "stride": stride}
    return {**layer, **_dense(outputs, activation, local=local)}


def _depthwise(stride: int = 1, *, local: bool = False) -> dict[str, Any]:
    return {"kind": "depthwise", "stride": stride, "activation": "relu", "local": local}


def _pool(size: int) -> dict[str, Any]:
    return {"kind": "pool", "size": size}


def _round(  # noqa: PLR0913
    name: str,
    inputs: int | tuple[int, int, int],
    layers: list[dict[str, Any]],
    *,
    percent: float = 10,
    amplitude: float = 1,
    extreme: bool = False,
    rate: float = 0.02,
    classes: bool = False,
    clip: float = 16.0,
) -> dict[str, Any]:
    """A vector; ``extreme`` puts every weight at an end of its range."""
    rng = np.random.default_rng(fixed.fnv1a(name))
    spec = make_spec(
        inputs,
        layers,
        loss="cross_entropy" if classes else "mse",
        seed=int(rng.integers(2**32)),
        rate_local=rate,
        rate_global=rate,
        percent=percent,
        clip=clip,
    )
    base = spec.start()
    if extreme:
        base = np.where(base < 0, fixed.WEIGHT_MIN, fixed.WEIGHT_MAX).astype(np.int16)
    samples = spec.training.support + spec.training.query
    outputs = spec.layers[-1].outputs
    x = rng.uniform(-amplitude, amplitude, (samples, spec.layers[0].words_in))
    y: Any = rng.uniform(-amplitude, amplitude, (samples, outputs))
    if isinstance(inputs, tuple):
        x = np.round(x * 16) / 16  # Few digits: the file stays small.
    if classes:
        y = rng.integers(0, outputs, samples)
    case = make_case(spec, base, int(rng.integers(2**32)), x, y)
    return {"name": name, **case, "expected": replay(spec, case)}


# --- Hashes and conversions


def hash_vectors() -> Vectors:
    """Functions, each with arguments and answers."""
    texts = ["", "a", "foobar", "board-00", "board-01", "demo/board-00/1", "Grüße"]
    boards = [
        (name, round_) for name in ("board-00", "b", "x" * 32) for round_ in (0, 1, 2**32 - 1)
    ]
    chosen = cohort.name_in(7, ["board-01", "board-03"])
    lists = [b"", chosen, chosen[:3], chosen[1:], chosen[::-1]]
    invitations = [
        ("board-01", 7, limit, these.hex()) for limit in (0, 2**30, 2**32) for these in lists
    ]
    mine = cohort.ticket("board-01/trial", 9)
    canaries = [("board-01", 9, share) for share in (0, 2**31, mine, mine + 1, 2**32)]
    draws = [(1, 5, 4096), (0, 3, 1), (2**32 - 1, 4, 724), (0x80000000, 3, 32768)]
    outputs: list[Any] = [
        ([0, 0], 1),
        ([0], 0),
        ([8191, -8191], 0),
        ([8191, -8191], 1),
        ([5, 5, 5], 2),
        ([-8191] * 5, 3),
        (list(range(-8000, 8001, 1000)), 12),
        *(([100, 100 - distance, 100 - 2 * distance], 1) for distance in (1, 48, 355, 512, 3000)),
    ]
    layer_seeds = [(0, 0), (7, 0), (7, 1), (2**32 - 1, 2), (0x80000000, 11)]
    unit = 2.0**-fixed.ACTIVATION_BITS
    numbers = [0.0, -0.0, 1.0, -1.0, 0.1, -0.1, 3.14159, 1e-5, 1e-40, 1e30, -1e30]
    numbers += [unit * (n + half) for n in (0, 1, 100, -1, -101) for half in (0.25, 0.5, 0.75)]
    numbers += [unit * n for n in (8190.5, 8191, 8191.49, 8191.5, 8192, -8191, -8192, 2**20)]
    return [
        _function("fnv1a", [[text] for text in texts], fixed.fnv1a),
        _function("ticket", boards, cohort.ticket),
        _function("is_invited", invitations, _is_invited),
        _function("is_canary", canaries, cohort.is_canary),
        _function("shard", [[text] for text in texts], topics.shard_of),
        _function(
            "uniform_weights",
            draws,
            lambda seed, count, limit: fixed.uniform_weights(seed, [limit] * count).tolist(),
        ),
        _function(
            "to_activation",
            [[float(np.float32(number))] for number in numbers],
            lambda number: int(fixed.to_activation(np.array([number]))[0]),
        ),
        _function("layer_seed", layer_seeds, fixed.layer_seed),
        _function(
            "exp_of_minus",
            [[0], [1], [2], [47], [48], [354], [355], [512], [5000], [5677], [8191], [16382]],
            lambda distance: int(fixed.exp_of_minus(np.array([distance]))[0]),
        ),
        _function(
            "log_of",
            [[2**15], [2**15 + 1], [40_000], [65535], [65536], [131_071], [2**20 + 3], [2**26]],
            lambda total: int(fixed.log_of(np.array([total]))[0]),
        ),
        _function("cross_entropy", outputs, _cross_entropy),
    ]


def _is_invited(board: str, round_: int, limit: int, chosen: str) -> bool:
    return cohort.is_invited(board, round_, limit, bytes.fromhex(chosen))


def _cross_entropy(outputs: list[int], label: int) -> list[int]:
    """The errors of the outputs, then the loss."""
    loss, error, _ = cross_entropy(np.array([outputs]), np.array([[label]]))
    return [*error[0].tolist(), int(loss[0])]


def _function(name: str, arguments: list[Any], function: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"name": name, "cases": [[list(these), function(*these)] for these in arguments]}


# --- Speech


def speech_vectors() -> Vectors:
    """Clips, and the features that a board hears in them.

    A clip is pulses, ``[start, end, step, value]``, under noise from the generator of
    :func:`protocol.fixed.lcg`, smoothed by so many 16ths, times gain / 256, and an offset.
    """
    return [
        _speech("silence"),
        _speech("a stuck sensor", offset=-32768),
        _speech("white noise as loud as it gets", gain=256),
        _speech("a room's hum over an offset", gain=100, smooth=15, offset=500),
        _speech("clipped", gain=2000, smooth=12, offset=-3000),
        _speech("a quiet room", gain=1, smooth=8, offset=2),
        _speech("clicks", pulses=[[5, 16000, 700, -32768]]),
        _speech("a square wave", pulses=[[i, 16000, 40, 9000] for i in range(20)], gain=1),
    ]


def _speech(  # noqa: PLR0913
    name: str,
    *,
    pulses: Sequence[list[int]] = (),
    seed: int = 1,
    gain: int = 0,
    smooth: int = 0,
    offset: int = 0,
) -> dict[str, Any]:
    samples = np.full(speech.RATE, offset)
    for start, end, step, value in pulses:
        samples[start:end:step] += value
    noise = (fixed.lcg(seed, speech.RATE) >> np.uint32(16)).astype(np.int64) - 2**15
    last = 0
    for i, value in enumerate(noise):
        last = (smooth * last + (16 - smooth) * int(value)) >> 4
        samples[i] += last * gain >> 8
    clip = np.clip(samples, -(2**15), 2**15 - 1).astype(np.int16)
    return {
        "name": name,
        "clip": {"pulses": pulses, "seed": seed, "gain": gain, "smooth": smooth, "offset": offset},
        "words": speech.features(clip[None]).ravel().tolist(),
    }


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=GOLDEN, help="default: protocol/golden")
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    for name, vectors in {
        "sparse": sparse_vectors(),
        "messages": message_vectors(),
        "arithmetic": arithmetic_vectors(),
        "hashes": hash_vectors(),
        "speech": speech_vectors(),
    }.items():
        lines = [json.dumps(vector, separators=(",", ":")) for vector in vectors]
        text = "[\n" + ",\n".join(lines) + "\n]\n"  # A line a vector: a diff names what changed.
        (folder / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
