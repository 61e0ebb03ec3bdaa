"""Everything that reads bytes which nobody vouches for, and what must be true of it.

Each input is read or refused with the one error that is documented; what is read packs to a message
that reads equal. Anything else raises.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from aggregator.history import RoundFacts
from protocol import commands, messages, mqtt, sparse
from protocol.errors import CommandError, MessageError, PacketError, SparseError, SpecError
from protocol.presence import read_presence
from protocol.spec.spec import Spec
from protocol.topics import Topics

PROJECT: Final = Path(__file__).resolve().parents[2]
GOLDEN: Final = PROJECT / "protocol" / "golden"
SPEC: Final = PROJECT / "specs" / "sine.toml"
TENSORS: Final = ((64, 1056), (1,), (3, 5, 7))


def message(kind: type[messages.Message]) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        try:
            found = kind.unpack(data)
        except MessageError:
            return
        assert kind.unpack(found.pack()) == found

    return read


def block(data: bytes) -> None:
    tensors = TENSORS[data[0] % len(TENSORS)] if data else TENSORS[0]
    try:
        indices, changes = sparse.decode(data[1:], tensors)
    except SparseError:
        return
    assert (np.diff(indices) > 0).all()
    assert len(indices) == len(changes)
    assert not len(indices) or 0 <= indices[0] <= indices[-1] < sum(tensors)
    assert np.abs(changes).max(initial=0) < 2**sparse.CHANGE_BITS
    whole = np.zeros(sum(tensors), np.int64)
    whole[indices] = changes
    if np.abs(changes).max(initial=0) < 2**15:  # 16 bits hold them without a loss.
        again = sparse.decode(sparse.encode(whole, indices, tensors, 16), tensors)
        assert (again.indices == indices).all()
        assert (again.changes == changes).all()


def state(data: bytes) -> None:
    assert read_presence(data).battery in {None, *range(101)}


def command(data: bytes) -> None:
    try:
        found = commands.parse(data)
    except CommandError:
        return
    assert commands.parse(found.model_dump_json()) == found


def packets(data: bytes) -> None:
    """What a broker sends, as the aggregator's wire takes it apart."""
    buffer = bytearray(data)
    try:
        for packet in mqtt.split(buffer):
            if packet.head >> 4 == mqtt.PUBLISH:
                mqtt.message_of(packet)
    except PacketError:
        return
    assert data.endswith(buffer)


def spec(data: bytes) -> None:
    try:
        found = Spec.from_toml(data.decode(errors="surrogateescape"))
    except SpecError:
        return
    assert messages.Plan.unpack(found.plan.pack()) == found.plan


def facts(data: bytes) -> None:
    try:
        found = RoundFacts.from_json(data.decode(errors="surrogateescape"))
    except (ValueError, TypeError):  # Of which the journal makes a StateError.
        return
    assert RoundFacts.from_json(found.to_json()).to_json() == found.to_json()


def topic(data: bytes) -> None:
    topics = Topics("demo")
    whole = f"{topics.root}/{data.decode(errors='replace')}"
    if (found := topics.board_of_update(whole)) is not None:
        shard, board = found
        assert whole.endswith(f"/{board}")
        assert 0 <= shard <= 99
    if (awake := topics.board_of_state(whole)) is not None:
        assert whole == topics.state(awake)


KINDS: Final = (
    *(messages.Update, messages.Plan, messages.Round, messages.Chunk, messages.Delta),
    messages.Receipt,
)
TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    **{kind.__name__.lower(): message(kind) for kind in KINDS},
    "block": block,
    "state": state,
    "command": command,
    "packets": packets,
    "spec": spec,
    "facts": facts,
    "topic": topic,
}


def seeds(target: str) -> list[bytes]:
    """Sound inputs of a target, to start from."""
    changes = np.arange(-560, 560)
    indices = sparse.top_indices(changes, 112)
    known = RoundFacts(
        round=0,
        loss=0.5,
        support_loss=1.5,
        accuracy=0.75,
        accepted=2,
        late=0,
        invited=3,
        seconds=0.25,
        canary="promoted",
        canary_loss=0.25,
        step=3.0,
        empty_deadlines=1,
        rejected={"stale": 4},
        degraded=True,
    )
    others = {
        "spec": [SPEC.read_bytes()],
        "facts": [known.to_json().encode()],
        "state": [b'{"state": "ready", "battery": 87}'],
        "command": [b'{"command": "rollback", "version": 3, "id": "a"}'],
        "packets": [b"\x32\x09\x00\x03a/b\x00\x07xy\x40\x02\x00\x07"],
        "topic": [b"up/7/board-1", b"board/board-1/state"],
        "block": [
            b"\0" + sparse.encode(changes, indices, TENSORS[0], bits) for bits in sparse.VALUE_BITS
        ],
    }
    if target in others:
        return others[target]
    vectors = json.loads((GOLDEN / "messages.json").read_text(encoding="utf-8"))
    return [
        bytes.fromhex(vector["bytes"]) for vector in vectors if vector["message"].lower() == target
    ]
