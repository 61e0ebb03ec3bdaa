"""Which updates may count, on what basis, and that looking at them changes nothing.

What each check rejects is in tests/aggregator/test_ingest.py, with a journal behind it.
"""

from dataclasses import replace

import numpy as np
import pytest

from localfleet.processes import PROJECT
from protocol.cohort import EVERYONE
from protocol.messages import Update
from protocol.sparse import decode, encode
from protocol.spec.spec import Spec
from protocol.topics import Topics
from rounds.core import RejectReason, RoundCore, UpdateKey
from rounds.intake import Arrival, Intake, digest_of
from rounds.learning import Basis, CanaryGroup
from tests.support.messages import make_update

SINE = Spec.from_file(PROJECT / "specs" / "sine.toml")
SPEC = SINE.model_copy(
    update={"rounds": SINE.rounds.model_copy(update={"mode": "buffered", "quorum": 2})}
)
BOARDS = [f"board-{i}" for i in range(8)]  # A cohort: a round invites everyone.
TOPICS = Topics(SPEC.fleet)


def update(board: str = BOARDS[0], round_: int = 0, entries: int = 5, nonce: int = 1) -> Update:
    changes = np.arange(SPEC.global_count, dtype=np.int64)
    block = encode(changes, np.arange(1, entries + 1), SPEC.tensors)
    return make_update(SPEC, board, round_, block, nonce=nonce, query_loss=200)


def arrived(message: Update) -> Arrival:
    """By a way that says itself whose it is."""
    return None, message.pack()


@pytest.fixture
def core() -> RoundCore:
    """Round 0 is open and asks everyone."""
    made = RoundCore(SPEC.rounds)
    for board in BOARDS:
        made.board_awake(board)
    made.tick(0)
    return made


def test_checking_changes_nothing_and_counting_does(core: RoundCore) -> None:
    intake = Intake(SPEC, core)
    group = [arrived(update()), arrived(update(BOARDS[1]))]
    for _ in range(2):
        found = intake.check(group)
        assert list(found.candidates) == [(0, BOARDS[0]), (0, BOARDS[1])]
        assert found.rejected == []
        assert found.receipts == {0: {BOARDS[0], BOARDS[1]}}
        assert (intake.sums, core.counted) == ({}, set())
    first = found.candidates[UpdateKey(0, BOARDS[0])]
    assert first.digest == digest_of(first.payload) == digest_of(update().pack())
    intake.count(found.candidates)
    assert core.counted == {UpdateKey(0, BOARDS[0]), UpdateKey(0, BOARDS[1])}
    total = intake.sums[Basis(0, is_canary=False)]
    assert (total.weight, total.query_loss) == (2, 400)
    assert [rejection.reason for rejection in intake.check(group).rejected] == [
        RejectReason.DUPLICATE,
        RejectReason.DUPLICATE,
    ]


def test_a_topic_must_be_the_boards_own_and_a_way_without_topics_is_trusted(
    core: RoundCore,
) -> None:
    intake, payload = Intake(SPEC, core), update().pack()
    others = [TOPICS.up(BOARDS[1]), TOPICS.state(BOARDS[0]), ""]
    found = intake.check((topic, payload) for topic in others)
    assert [rejection.reason for rejection in found.rejected] == [RejectReason.IDENTITY] * 3
    assert [rejection.board for rejection in found.rejected] == [BOARDS[1], None, None]
    for topic in (TOPICS.up(BOARDS[0]), None):
        assert intake.check([(topic, payload)]).candidates


def test_after_its_round_an_update_is_known_only_to_who_remembers_it(core: RoundCore) -> None:
    """With a journal, it is a duplicate whose receipt got lost; without one it is late."""
    journal = {(0, BOARDS[0]): digest_of(update().pack())}
    remembering = Intake(SPEC, core, journaled_digest=lambda *key: journal.get(key))
    remembering.count(remembering.check([arrived(update()), arrived(update(BOARDS[1]))]).candidates)
    core.tick(1)
    for number in range(1, SPEC.rounds.oldest + 1):  # Until round 0 is older than may be late.
        found = remembering.check([arrived(update(board, number)) for board in BOARDS[:2]])
        remembering.count(found.candidates)
        core.tick(number + 1)
    (again,) = remembering.check([arrived(update())]).rejected
    assert (again.reason, again.journaled) == (RejectReason.DUPLICATE, (0, BOARDS[0]))
    (other,) = remembering.check([arrived(update(nonce=2))]).rejected
    assert (other.reason, other.journaled) == (RejectReason.STALE, None)
    (late,) = Intake(SPEC, core).check([arrived(update())]).rejected
    assert (late.reason, late.journaled) == (RejectReason.STALE, None)


def test_an_update_is_summed_by_its_age_and_by_the_version_that_it_tried_out(
    core: RoundCore,
) -> None:
    intake = Intake(SPEC, core)
    everyone = CanaryGroup(version=7, share=EVERYONE)
    intake.announced(0, everyone)
    first = intake.check([arrived(update(board)) for board in BOARDS[:2]])
    intake.count(first.candidates)
    assert intake.take_sums().keys() == {Basis(0, is_canary=True)}
    core.tick(1)  # The buffer is full: round 1 opens, which has no canary.
    assert intake.round == 1
    intake.announced(1, CanaryGroup())
    second = intake.check([arrived(update(BOARDS[2])), arrived(update(BOARDS[3], round_=1))])
    intake.count(second.candidates)
    sums = intake.take_sums()
    assert sums.keys() == {Basis(1, is_canary=True), Basis(0, is_canary=False)}
    assert intake.sums == {}
    intake.announced(1 + SPEC.rounds.oldest, CanaryGroup())
    assert intake.canaries.keys() == {1, 1 + SPEC.rounds.oldest}


def test_the_entries_that_are_allowed_are_the_plans_unless_more_are(core: RoundCore) -> None:
    top = SPEC.plan.top
    group = [arrived(update(entries=top)), arrived(update(BOARDS[1], entries=top + 1))]
    (refused,) = Intake(SPEC, core).check(group).rejected
    assert refused.reason is RejectReason.SPARSE
    assert refused.detail == f"{top + 1} entries; the plan allows {top}"
    assert not Intake(SPEC, core, most_entries=top + 1).check(group).rejected


def test_sums_are_the_same_again_from_the_updates_alone(core: RoundCore) -> None:
    intake = Intake(SPEC, core)
    updates = [update(board, entries=i + 1) for i, board in enumerate(BOARDS)]
    intake.count(intake.check(map(arrived, updates)).candidates)
    again = Intake(SPEC, core)
    for one in reversed(updates):
        again.add(one, decode(one.changes, SPEC.tensors))
    basis = Basis(0, is_canary=False)
    assert again.sums[basis].changes.tobytes() == intake.sums[basis].changes.tobytes()
    assert again.sums[basis].losses(1) == intake.sums[basis].losses(1)


def test_of_two_updates_in_a_group_the_first_that_is_sound_counts(core: RoundCore) -> None:
    broken = replace(update(), changes=b"")
    group = [broken, update(nonce=2), update(nonce=3)]
    found = Intake(SPEC, core).check(map(arrived, group))
    assert [candidate.update.nonce for candidate in found.candidates.values()] == [2]
    assert [rejection.reason for rejection in found.rejected] == [
        RejectReason.SPARSE,
        RejectReason.CONFLICT,
    ]
    assert found.rejected[1].journaled == (0, BOARDS[0])
