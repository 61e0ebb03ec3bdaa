"""One board in ten is not what it seems.

What is no update is refused before it counts. What passes all checks and is wrong nevertheless
meets a robust rule: the fleet learns as if that board had been asleep, and with the plain mean it
does not learn.
"""

from pathlib import Path

import msgpack
import numpy as np
import pytest

from aggregator.ingest import Ingest
from aggregator.journal.journal import Journal
from benchmarks.lockstep import play
from benchmarks.strategies import BOARDS, final_loss, poisoned, sines
from protocol import sparse
from protocol.messages import Update
from protocol.mqtt import Message
from protocol.topics import Topics
from rounds.core import RejectReason, RoundCore
from rounds.intake import Intake
from rounds.learning import Learning, Version
from rounds.model import GlobalModel
from simulation.engine.fixed import Engine
from simulation.exam import measure
from simulation.tasks.sines import SineTasks
from tests.support.messages import block, make_update

SPEC = sines({})
NAMES = [f"board-{number}" for number in range(BOARDS)]
POISONED = NAMES[0]
TOP = SPEC.plan.top


def update(board: str, changes: bytes | None = None) -> Update:
    """An honest board's update, or one with other bytes for its changes."""
    if changes is None:
        rng = np.random.default_rng(NAMES.index(board))
        learned = rng.integers(-300, 300, SPEC.global_count)
        changes = block(SPEC, learned)
    return make_update(SPEC, board, changes=changes)


def with_field(number: int, value: object) -> bytes:
    fields = msgpack.unpackb(update(POISONED).pack())
    fields[number] = value
    packed: bytes = msgpack.packb(fields)
    return packed


HONEST = update(POISONED).changes
LOSS = 7
"""Where an update's support loss stands in its array."""


def float32(value: float, count: int) -> bytes:
    return np.full(count, value, "<f4").tobytes()


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (update(POISONED, float32(np.nan, TOP)).pack(), RejectReason.SPARSE),
        (update(POISONED, float32(np.nan, SPEC.global_count)).pack(), RejectReason.SPARSE),
        (update(POISONED, float32(1e30, TOP)).pack(), RejectReason.SPARSE),
        (update(POISONED, float32(-np.inf, TOP)).pack(), RejectReason.SPARSE),
        (update(POISONED, HONEST[:-1]).pack(), RejectReason.SPARSE),
        (update(POISONED, HONEST + b"\0").pack(), RejectReason.SPARSE),
        (update(POISONED, b"").pack(), RejectReason.SPARSE),
        (update(POISONED).pack()[:-1], RejectReason.GARBLED),
        (update(POISONED).pack() + b"\0", RejectReason.GARBLED),
        (with_field(LOSS, float("nan")), RejectReason.GARBLED),
        (with_field(LOSS, 1e30), RejectReason.GARBLED),
        (with_field(LOSS, -1), RejectReason.GARBLED),
        (with_field(LOSS, 2**40), RejectReason.GARBLED),
    ],
)
def test_what_is_no_update_changes_no_bit(
    tmp_path: Path, payload: bytes, reason: RejectReason
) -> None:
    """The round closes as if nine had been asked, and nothing breaks."""
    core = RoundCore(SPEC.rounds)
    for name in NAMES:
        core.board_awake(name)
    core.tick(0)
    topics = Topics(SPEC.fleet)
    payloads = {name: update(name).pack() for name in NAMES} | {POISONED: payload}
    journal = Journal(tmp_path)
    journal.start(SPEC)
    intake = Intake(SPEC, core)
    ingest = Ingest(SPEC, intake, journal)
    taken = ingest.take(Message(topics.up(name), payloads[name], 1) for name in NAMES)
    learning = Learning(SPEC, Version(GlobalModel(SPEC)))
    combined = learning.close(intake.take_sums(), ingest.updates(0), 0).combined
    journal.close()
    assert [(rejected.board, rejected.reason) for rejected in taken.rejected] == [
        (POISONED, reason)
    ]
    expected = np.zeros(SPEC.global_count)
    for name in NAMES[1:]:
        indices, changes = sparse.decode(update(name).changes, SPEC.tensors)
        expected[indices] += changes
    np.testing.assert_array_equal(combined.change, expected / 9)


@pytest.mark.slow
def test_a_poisoned_fleet_ends_as_its_nine_honest_boards_would_have() -> None:
    """To the last bit: multi-Krum leaves out the update that is turned round and blown up.

    So its final loss is the clean run's. The mean of the same updates ends where it learns nothing.
    """
    krum = {"rule": "multi_krum", "byzantine": 1, "keep": 9}
    spec = sines({"count": 120, "combine": krum})
    clean = sines({"count": 120})
    tasks = SineTasks.of(spec)
    *_, robust = play(spec, tasks, Engine(spec, BOARDS), claim=poisoned)
    *_, honest = play(clean, tasks, Engine(clean, BOARDS), claim=lambda changes: changes[1:])
    assert robust.published.tobytes() == honest.published.tobytes()

    def loss(model: GlobalModel) -> float:
        return float(measure(clean, model.published, tasks, Engine(clean, 200)).loss.mean())

    learned, untaught = loss(robust), loss(GlobalModel(clean))
    assert learned < 0.6 * untaught
    assert final_loss({"count": 120}, poisoned, seed=0) > 0.95 * untaught
