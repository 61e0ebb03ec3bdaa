"""A whole client on an emulated board: from its connection to the receipt of its update.

The board has no network, so a broker's answers lie in a file (on_board/loopback.py). All else is as
shipped: umqtt.simple, the client with its link, the features of speech where the spec listens.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import numpy as np

from localfleet import parts
from localfleet.errors import ProcessError
from protocol import mqtt
from protocol.cohort import EVERYONE
from protocol.fixed import ACTIVATION_BITS, fnv1a
from protocol.messages import CHUNK_BYTES, Chunk, Message, Receipt, Round, Update
from protocol.topics import Topics, shard_of
from simulation.replay import make_case, replay
from simulation.tasks import speech

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from localfleet.emulator import Emulator
    from protocol.spec.spec import Spec

    Floats = NDArray[np.floating]

ON_BOARD: Final = Path(__file__).parent / "on_board"
BOARD: Final = "board-00"
FLEET: Final = "bench"
ROUND: Final = 5
SAMPLES: Final = 3
"""Of each phase."""


@dataclass(frozen=True)
class ClientRun:
    """What a round took.

    Attributes:
        peak: bytes of heap in use at its end: the client, its network, sample and update.
        by_samples: bytes that learning took, none of them given back; 0 unless something is wrong.
        update: what the board sent.
        expected: what the host makes of the same round, see simulation.replay.
    """

    peak: int
    by_samples: int
    update: Update
    expected: dict[str, Any]


def run(board: Emulator, spec: Spec, heap: int = 0) -> ClientRun:
    """Let a board take part in a round, with a few of the spec's samples.

    Args:
        board: one with the compiled client on it.
        spec: the fleet's.
        heap: bytes that the board is to have for the client and its samples; 0 for all there are.

    Raises:
        ProcessError: the heap did not do, or the board failed.
        PartsError: umqtt.simple is missing.
    """
    training = spec.training.model_copy(update={"support": SAMPLES, "query": SAMPLES})
    spec = spec.model_copy(update={"training": training, "fleet": FLEET})
    what, x, y, data = _samples(spec)
    (board.folder / "samples").write_bytes(data)
    (board.folder / "broker").write_bytes(_answers(spec))
    for name in ("loopback", "client"):
        board.compile(f"{name}.mpy", (ON_BOARD / f"{name}.py").read_text(encoding="utf-8"))
    source = parts.umqtt() / "umqtt" / "simple.py"
    board.compile("simple.mpy", source.read_text(encoding="utf-8"))
    (board.folder / "umqtt").mkdir(exist_ok=True)
    (board.folder / "simple.mpy").rename(board.folder / "umqtt" / "simple.mpy")
    lines = board.run("client.mpy", str(heap), what, str(spec.layers[0].words_in))
    said = json.loads(lines[-1])
    if said["skipped"]:
        raise ProcessError(f"the board skipped {said['skipped']} samples: {lines[-2]}")
    sent = bytes.fromhex("".join(line[1:] for line in lines if line.startswith(">")))
    case = make_case(spec, spec.start(), fnv1a(f"{FLEET}/{BOARD}/{ROUND}"), x, y)
    return ClientRun(said["peak"], said["taken"], _update(sent), replay(spec, case))


def least_heap(board: Emulator, spec: Spec) -> int:
    """Bytes of heap with which a board can take part, to 256: more than are in use at the end.

    Messages come and go, and what lies free is in pieces.

    Raises:
        ProcessError: the emulated board itself has too little; or it failed.
    """
    least = run(board, spec).peak
    most = least + 16 * 1024
    run(board, spec, most)
    while most - least > 256:
        middle = (least + most) // 2
        try:
            run(board, spec, middle)
        except ProcessError:
            least = middle
        else:
            most = middle
    return most


def _samples(spec: Spec) -> tuple[str, Floats, NDArray[Any], bytes]:
    """What they are, inputs and labels, and how the board reads them."""
    rng = np.random.default_rng(0)
    count = 2 * SAMPLES
    inputs = spec.layers[0].words_in
    if not spec.is_classifier:
        x = rng.uniform(-5, 5, (count, inputs)).astype("<f4")
        y = np.sin(x[:, :1])
        return "numbers", x, y, np.hstack([x, y]).astype("<f4").tobytes()
    classes = rng.integers(0, spec.layers[-1].outputs, count)
    if inputs == speech.FRAMES * speech.BANDS:
        clips = rng.normal(0, 2000, (count, speech.RATE)).astype("<i2")
        clips = clips[:, : speech.FRAMES * speech.WINDOW]
        x = speech.features(clips).reshape(count, -1) / 2**ACTIVATION_BITS
        what = "sound"
        raw = [clip.tobytes() for clip in clips]
    else:
        x = rng.uniform(0, 1, (count, inputs)).astype("<f4")
        what = "drawings"
        raw = [row.tobytes() for row in x]
    data = b"".join(piece + bytes([label]) for piece, label in zip(raw, classes, strict=True))
    return what, x, classes, data


def _answers(spec: Spec) -> bytes:
    """A broker's answers, piece by piece: each is what comes when the client waits for one."""
    topics = Topics(FLEET)
    lineage = spec.lineage
    round_ = Round(
        lineage=lineage,
        round=ROUND,
        version=0,
        ticket_limit=EVERYONE,
        deadline=60_000,
        chosen=b"",
        max_age=0,
        canary_version=0,
        canary_share=0,
    )
    weights = spec.start().astype("<i2").tobytes()
    starts = range(0, len(weights), CHUNK_BYTES)
    chunks = [
        Chunk(
            lineage=lineage,
            version=0,
            chunk=number,
            chunks=len(starts),
            checksum=crc32(weights),
            weights=weights[start : start + CHUNK_BYTES],
        )
        for number, start in enumerate(starts)
    ]
    model = b"".join(_publish(topics.full(chunk.chunk), chunk) for chunk in chunks)
    receipt = _publish(topics.receipt(shard_of(BOARD)), Receipt(lineage, ROUND, (BOARD,)))
    answers = [
        mqtt.connack(),
        mqtt.suback(1) + _publish(topics.plan, spec.plan),
        mqtt.suback(2),
        mqtt.suback(3) + _publish(topics.round, round_),
        mqtt.suback(4),
        mqtt.acknowledge([5]),  # Its state.
        mqtt.suback(6) + model,
        mqtt.unsuback(7),
        mqtt.acknowledge([8]) + receipt,
    ]
    return b"".join(len(answer).to_bytes(4, "big") + answer for answer in answers)


def _publish(topic: str, message: Message) -> bytes:
    return mqtt.publish(topic, message.pack(), 1)


def _update(sent: bytes) -> Update:
    """The update among the packets that a client sent."""
    topic = Topics(FLEET).up(BOARD)
    packets = [packet for packet in mqtt.split(bytearray(sent)) if packet.kind == mqtt.PUBLISH]
    (payload,) = (
        message.payload for message in map(mqtt.message_of, packets) if message.topic == topic
    )
    return Update.unpack(payload)
