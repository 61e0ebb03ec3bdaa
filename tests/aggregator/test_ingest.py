"""What happens to a message: what is journaled, what is rejected and why; nothing raises."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.ingest import Ingest
from aggregator.journal.journal import Journal
from protocol.messages import MAX_MESSAGE_BYTES, Update
from protocol.mqtt import Message
from protocol.sparse import decode, encode
from protocol.spec.spec import Spec
from protocol.topics import Topics
from rounds.core import RejectReason, RoundCore
from rounds.intake import Intake
from rounds.learning import Basis
from rounds.sums import PartialSum
from runtime.errors import StateError
from tests.support.messages import make_update

SPEC = Spec.from_file(Path(__file__).resolve().parents[2] / "specs" / "sine.toml")
TOPICS = Topics(SPEC.fleet)
BOARDS = [f"board-{i}" for i in range(8)]  # A cohort: a round invites everyone.


def update(board: str = BOARDS[0], round_: int = 0, entries: int = 5) -> Update:
    changes = np.arange(SPEC.global_count, dtype=np.int64)
    block = encode(changes, np.arange(1, entries + 1), SPEC.tensors)
    return make_update(SPEC, board, round_, block, query_correct=3)


def arrived(message: Update, board: str | None = None) -> Message:
    return Message(TOPICS.up(board or message.board), message.pack(), 1)


class Bench:
    """An ingest with its journal and a core in which round 0 is open."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder)
        self.journal.start(SPEC)
        self.core = RoundCore(SPEC.rounds)
        for board in BOARDS:
            self.core.board_awake(board)
        self.core.tick(0)
        self.intake = Intake(SPEC, self.core, journaled_digest=self.journal.digest)
        self.ingest = Ingest(SPEC, self.intake, self.journal)
        assert self.core.cohort is not None
        self.cohort = self.core.cohort

    @property
    def total(self) -> PartialSum:
        """Of all that counts; nothing is late here."""
        return self.intake.sums.get(Basis(0, is_canary=False), PartialSum(SPEC.global_count))

    def payloads(self) -> list[bytes]:
        return [payload for _, payload in self.journal.payloads(0)]

    def close_round(self) -> None:
        """Another board answers, and the deadline passes."""
        self.ingest.take([arrived(update(BOARDS[-1]))])
        self.core.tick(1e9)
        assert self.core.round == 1

    def reasons(self, *messages: Message) -> list[RejectReason]:
        return [rejected.reason for rejected in self.ingest.take(messages).rejected]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.journal.close()


@pytest.fixture(scope="module")
def worn_bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One that lives through all examples of a property."""
    made = Bench(tmp_path_factory.mktemp("ingest"))
    yield made
    made.journal.close()


# --- What is counted


def test_a_group_is_journaled_summed_and_receipted(bench: Bench) -> None:
    updates = [update(board) for board in BOARDS[:3]]
    taken = bench.ingest.take([arrived(message) for message in updates])
    assert taken.accepted == updates
    assert taken.receipts == {0: set(BOARDS[:3])}
    assert taken.rejected == []
    assert sorted(bench.payloads()) == sorted(message.pack() for message in updates)
    assert bench.cohort.answered.keys() == set(BOARDS[:3])
    expected = np.zeros(SPEC.global_count, np.int64)
    expected[1:6] = 3 * np.arange(1, 6)
    np.testing.assert_array_equal(bench.total.changes, expected)
    assert bench.total.weight == 3


def test_after_a_restart_the_sum_is_the_same(bench: Bench) -> None:
    bench.ingest.take([arrived(update(board, entries=i)) for i, board in enumerate(BOARDS)])
    intake = Intake(SPEC, bench.core)
    assert len(Ingest(SPEC, intake, bench.journal).restore(0)) == len(BOARDS)
    (total,) = intake.sums.values()
    assert total.changes.tobytes() == bench.total.changes.tobytes()
    assert total.losses(1) == bench.total.losses(1)


def test_what_cannot_be_journaled_does_not_count(bench: Bench) -> None:
    class Full(Journal):
        def __init__(self) -> None: ...

        def append(self, entries: object) -> None:
            raise StateError(f"full: {entries}")

    ingest = Ingest(SPEC, bench.intake, Full())
    with pytest.raises(StateError, match="full"):
        ingest.take([arrived(update())])
    assert bench.cohort.answered == {}
    assert bench.intake.sums == {}


# --- What is rejected


def test_reasons(bench: Bench) -> None:
    plan = SPEC.plan
    fine = update()
    cases = [
        (RejectReason.OVERSIZE, Message(TOPICS.up("a"), bytes(MAX_MESSAGE_BYTES + 1), 1)),
        (RejectReason.GARBLED, Message(TOPICS.up("a"), b"", 1)),
        (RejectReason.FORMAT, Message(TOPICS.up("a"), b"\x93\x01\x02\x03", 1)),
        (RejectReason.GARBLED, Message(TOPICS.up("a"), b"\x93\x02\x02\x03", 1)),
        (RejectReason.GARBLED, arrived(replace(fine, query=0))),
        (RejectReason.GARBLED, arrived(replace(fine, support=plan.support + 1))),
        (RejectReason.GARBLED, arrived(replace(fine, query_correct=plan.query + 1))),
        (RejectReason.GARBLED, arrived(replace(fine, query=5, query_correct=6))),
        (RejectReason.IDENTITY, arrived(fine, BOARDS[1])),
        (RejectReason.IDENTITY, Message(TOPICS.root + "/up/99/" + BOARDS[0], fine.pack(), 1)),
        (RejectReason.LINEAGE, arrived(replace(fine, lineage=plan.lineage ^ 1))),
        (RejectReason.FUTURE, arrived(replace(fine, round=1))),
        (RejectReason.SPARSE, arrived(replace(fine, changes=fine.changes[:-1]))),
        (RejectReason.SPARSE, arrived(update(entries=plan.top + 1))),
    ]
    reasons, messages = zip(*cases, strict=True)
    assert bench.reasons(*messages) == list(reasons)
    assert bench.payloads() == []


def test_a_board_that_is_not_invited_is_rejected(bench: Bench) -> None:
    bench.cohort.ticket_limit = 0
    assert bench.reasons(arrived(update())) == [RejectReason.UNINVITED]


def test_an_update_for_a_round_that_is_over_is_stale(bench: Bench) -> None:
    bench.close_round()
    assert bench.reasons(arrived(update(round_=0))) == [RejectReason.STALE]


# --- Duplicates: a receipt was lost, or a board has restarted


def test_a_resent_update_counts_once_and_is_receipted_again(bench: Bench) -> None:
    first = bench.ingest.take([arrived(update()), arrived(update())])  # In one group,
    again = bench.ingest.take([arrived(update())])  # and in another.
    assert [len(first.accepted), len(again.accepted)] == [1, 0]
    assert [rejected.reason for rejected in first.rejected + again.rejected] == [
        RejectReason.DUPLICATE,
        RejectReason.DUPLICATE,
    ]
    assert first.receipts == again.receipts == {0: {BOARDS[0]}}
    assert bench.total.weight == 1


def test_a_rejected_update_does_not_stand_in_the_way_of_a_sound_one(bench: Bench) -> None:
    """In one group, whose blocks are read together, a board sends twice rubbish, then its update,
    then another one."""
    cut = replace(update(), changes=update().changes[:-1])
    group = [cut, replace(update(), query=0), update(), replace(update(), nonce=2)]
    taken = bench.ingest.take([arrived(message) for message in group])
    assert taken.accepted == [update()]
    assert {rejected.reason for rejected in taken.rejected} == {
        RejectReason.SPARSE,
        RejectReason.GARBLED,
        RejectReason.CONFLICT,
    }
    assert taken.receipts == {0: {BOARDS[0]}}


def test_of_two_updates_the_first_counts_and_the_board_may_rest(bench: Bench) -> None:
    other = replace(update(), nonce=2)
    first = bench.ingest.take([arrived(update()), arrived(other)])
    again = bench.ingest.take([arrived(other)])
    assert [rejected.reason for rejected in first.rejected + again.rejected] == [
        RejectReason.CONFLICT,
        RejectReason.CONFLICT,
    ]
    assert again.receipts == {0: {BOARDS[0]}}
    assert bench.payloads() == [update().pack()]


def test_a_receipt_that_comes_after_the_round_is_for_that_round(bench: Bench) -> None:
    bench.ingest.take([arrived(update())])
    bench.close_round()
    taken = bench.ingest.take([arrived(update()), arrived(replace(update(), nonce=2))])
    assert [rejected.reason for rejected in taken.rejected] == [
        RejectReason.DUPLICATE,
        RejectReason.STALE,
    ]
    assert taken.receipts == {0: {BOARDS[0]}}


# --- Nothing raises, and everything is counted


@st.composite
def mutilated(draw: st.DrawFn) -> bytes:
    """An update's bytes with some of them changed, cut or doubled."""
    data = bytearray(update(draw(st.sampled_from(BOARDS))).pack())
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data)


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(),
        st.text(max_size=8),
        st.binary(max_size=200),
    ),
    lambda inner: st.lists(inner, max_size=15) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=20,
)


@st.composite
def almost(draw: st.DrawFn) -> bytes:
    """An update with some fields that no board would write."""
    values: list[object] = list(msgpack.unpackb(update(draw(st.sampled_from(BOARDS))).pack()))
    for _ in range(draw(st.integers(1, 3))):
        values[draw(st.integers(0, len(values) - 1))] = draw(VALUES)
    packed: bytes = msgpack.packb(values)
    return packed


PAYLOADS = st.one_of(st.binary(max_size=300), VALUES.map(msgpack.packb), mutilated(), almost())
NAMES = st.sampled_from(BOARDS) | st.text(max_size=40)
TOPIC_TEXTS = st.one_of(
    st.text(max_size=60),
    st.sampled_from(BOARDS).map(TOPICS.up),
    st.builds(lambda shard, board: f"{TOPICS.root}/up/{shard}/{board}", st.text(), NAMES),
    st.just(f"{TOPICS.root}/up/{'9' * 5000}/x"),
)


@given(st.lists(st.tuples(TOPIC_TEXTS, PAYLOADS), max_size=5))
def test_no_topic_and_no_bytes_raise_and_each_is_counted_once(
    worn_bench: Bench, messages: list[tuple[str, bytes]]
) -> None:
    before = worn_bench.total.weight
    taken = worn_bench.ingest.take(Message(topic, payload, 1) for topic, payload in messages)
    assert len(taken.accepted) + len(taken.rejected) == len(messages)
    assert worn_bench.total.weight == before + len(taken.accepted)
    assert worn_bench.total.weight == len(worn_bench.payloads())


NUMBERS = itertools.count()


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    """A sparse block, sound or with a few bytes changed."""
    block = bytearray(update(entries=draw(st.integers(0, 120))).changes)
    for _ in range(draw(st.integers(0, 3))):
        block[draw(st.integers(0, len(block) - 1))] ^= draw(st.integers(1, 255))
    return bytes(block)


@given(blocks() | st.binary(max_size=200))
def test_a_sparse_block_is_either_counted_or_rejected(worn_bench: Bench, block: bytes) -> None:
    board = f"unheard-of-{next(NUMBERS)}"  # The round invites everyone; each answers once.
    taken = worn_bench.ingest.take([arrived(replace(update(board), changes=block))])
    if taken.accepted:
        assert len(decode(block, SPEC.tensors).indices) <= SPEC.plan.top
    else:
        assert [rejected.reason for rejected in taken.rejected] == [RejectReason.SPARSE]
