"""What boards do in rounds that pick them, wait for the late, or have a canary.

Real boards on a real broker; the test is the aggregator. What a board sends must be what the
oracle computes, bit for bit: it learned from the right version, and nothing moved it meanwhile.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from localfleet.parts import Bits
from protocol.cohort import EVERYONE, is_canary, name_in, ticket
from protocol.messages import Delta
from tests.support.lone_board import (
    PATIENCE,
    SPEC,
    TOPICS,
    A,
    Aggregator,
    B,
    Start,
    assert_learned_from,
)
from tests.support.parts import on_both_boards, run_board

pytestmark = pytest.mark.real


# --- Chosen boards


def test_only_a_chosen_board_takes_part(aggregator: Aggregator, boot: Start) -> None:
    """Round 5 picks one board, round 6 the other, round 7 asks both."""
    a, b = boot(A), boot(B, 64)
    for round_, picked in ((5, [A]), (6, [B]), (7, [A, B])):
        aggregator.announce(round_, 3, invited=0, chosen=name_in(round_, picked))
        heard = aggregator.hear_updates(len(picked))
        assert sorted(heard) == picked
        for update in heard.values():
            assert_learned_from(update, aggregator.model, round_)
    assert a.said("trains in") == [5, 7]
    assert b.said("trains in") == [6, 7]


# --- Late updates


@on_both_boards
def test_a_slow_board_finishes_its_round_late_though_deltas_came_meanwhile(
    aggregator: Aggregator, boot: Start, bits: Bits
) -> None:
    """In the middle of its round 5 come two versions and two rounds, of which the second still
    takes updates for round 5. It sends its update, again until the receipt, and then takes part in
    round 7: on a version to which only the deltas could lead, for there is no whole model anymore.
    """
    aggregator.announce(5, 3, max_age=2)
    board = boot(A, bits, hold=[7, 5])
    board.wait_for("held in 5")
    aggregator.take_back(TOPICS.full)
    for round_ in (6, 7):
        aggregator.publish(TOPICS.delta, aggregator.make_version().pack())
        aggregator.announce(round_, aggregator.model.version, max_age=2)
    late = aggregator.updates.get(timeout=PATIENCE)
    assert_learned_from(late, aggregator.models[0], 5)
    again = aggregator.updates.get(timeout=PATIENCE)
    assert again == late
    aggregator.acknowledge(again)
    assert_learned_from(aggregator.hear_updates()[A], aggregator.models[2], 7)
    assert board.said("fetches") == [3]


def test_a_board_that_is_too_late_gives_up_and_is_in_the_open_round(
    aggregator: Aggregator, boot: Start
) -> None:
    """Its round 5 is three rounds old, and two are allowed; the deltas that it kept still count."""
    aggregator.announce(5, 3, max_age=2)
    board = boot(A, hold=[8, 6])
    board.wait_for("held in 5")
    for round_ in (6, 7, 8):
        aggregator.publish(TOPICS.delta, aggregator.make_version().pack())
        aggregator.announce(round_, aggregator.model.version, max_age=2)
    assert_learned_from(aggregator.hear_updates()[A], aggregator.model, 8)
    assert board.said("trains in") == [5, 8]
    assert board.said("fetches") == [3]


def test_an_update_without_a_receipt_is_given_up_when_its_age_is_passed(
    aggregator: Aggregator, boot: Start
) -> None:
    """It is sent, and no receipt comes. Round 6 still takes it; a version without a round changes
    nothing; with round 7 it is too old.
    """
    aggregator.announce(5, 3, max_age=1)
    board = boot(A)
    first = aggregator.updates.get(timeout=PATIENCE)
    for round_ in (6, 6):
        aggregator.publish(TOPICS.delta, aggregator.make_version().pack())
        aggregator.announce(round_, aggregator.model.version, max_age=1)
    assert aggregator.updates.get(timeout=PATIENCE) == first  # Sent again, in round 6.
    aggregator.publish(TOPICS.delta, aggregator.make_version().pack())
    aggregator.announce(7, aggregator.model.version, max_age=1)
    update = aggregator.hear_updates()[A]
    while update.round == 5:  # On its way when round 7 came.
        update = aggregator.hear_updates()[A]
    assert_learned_from(update, aggregator.model, 7)
    assert board.said("trains in") == [5, 7]


def test_a_late_board_that_missed_a_delta_fetches_the_whole_model(
    aggregator: Aggregator, boot: Start
) -> None:
    aggregator.announce(5, 3, max_age=2)
    board = boot(A, hold=[6, 5])
    board.wait_for("held in 5")
    aggregator.make_version()  # Published while nobody heard it.
    aggregator.publish(TOPICS.delta, aggregator.make_version().pack())
    aggregator.publish_model()
    aggregator.announce(6, 5, max_age=2)
    assert_learned_from(aggregator.hear_updates()[A], aggregator.models[0], 5)
    assert_learned_from(aggregator.hear_updates()[A], aggregator.model, 6)
    assert board.said("fetches") == [3, 5]


def test_deltas_that_are_more_than_the_model_are_not_kept(
    aggregator: Aggregator, boot: Start
) -> None:
    """A version that advances again and again without a round must not fill a board's heap."""
    aggregator.announce(5, 3, max_age=1)
    board = boot(A, hold=[6, 0])
    board.wait_for("held in 5")
    size = 0
    while size < 2 * SPEC.global_count:  # Bytes of the model.
        delta = aggregator.make_version().pack()
        aggregator.publish(TOPICS.delta, delta)
        size += len(delta)
    aggregator.publish_model()
    board.switch("hold", [6, aggregator.model.version])
    aggregator.announce(6, aggregator.model.version, max_age=1)
    assert_learned_from(aggregator.hear_updates()[A], aggregator.models[0], 5)
    assert_learned_from(aggregator.hear_updates()[A], aggregator.model, 6)
    assert board.said("fetches") == [3, aggregator.model.version]


@pytest.mark.parametrize("max_age", [0, 2])
def test_a_round_that_is_announced_anew_on_another_version_is_learned_anew(
    aggregator: Aggregator, boot: Start, max_age: int
) -> None:
    """The operator rolls back in the middle of round 5: another version, the same round."""
    aggregator.announce(5, 3, max_age=max_age)
    board = boot(A, hold=[5, 4])
    board.wait_for("held in 5")
    aggregator.publish(TOPICS.delta, aggregator.make_version().pack())
    aggregator.announce(5, 4, max_age=max_age)
    assert_learned_from(aggregator.hear_updates()[A], aggregator.model, 5)


def test_a_delta_that_is_no_good_spoils_no_update(aggregator: Aggregator, boot: Start) -> None:
    """It comes in the middle of a training, and what the board began with is gone. So it has
    nothing to send, nor anything to fetch before there is another round.
    """
    aggregator.announce(5, 3)
    board = boot(A, hold=[6, 4])
    assert aggregator.hear_state()["state"] == "ready"
    board.wait_for("held in 5")
    good = aggregator.make_version()
    bad = Delta(good.lineage, good.version, good.checksum ^ 1, good.changes)
    aggregator.publish(TOPICS.delta, bad.pack())
    board.switch("battery", 50)
    assert aggregator.hear_state()["battery"] == 50  # Told between rounds only.
    aggregator.publish_model()
    aggregator.announce(6, 4)
    assert_learned_from(aggregator.hear_updates()[A], aggregator.model, 6)
    assert "model 4: wrong checksum" in board.log()
    assert board.said("fetches") == [3, 4]


# --- Canaries


def share_for(version: int, board: str) -> int:
    """The share with which this board is the only canary."""
    share = ticket(f"{board}/trial", version) + 1
    assert [name for name in (A, B) if is_canary(name, version, share)] == [board]
    return share


def lower(version: int) -> str:
    return min((A, B), key=lambda board: ticket(f"{board}/trial", version))


def test_a_canary_is_promoted_and_the_next_one_is_rolled_back(
    aggregator: Aggregator, boot: Start
) -> None:
    """One board tries version 4 out in round 5, and has it already when it becomes everyone's.
    Version 5 is rolled back: version 6 is made of version 4, so its delta leads
    nobody there who is at 5, and that board fetches the whole.
    """
    boards = {A: boot(A), B: boot(B, 64)}
    stable = aggregator.model
    delta = aggregator.make_version()
    aggregator.publish_model(TOPICS.canary)
    first = lower(4)
    aggregator.announce(5, 3, canary=4, share=share_for(4, first))
    for name, update in aggregator.hear_updates(2).items():
        assert_learned_from(update, aggregator.model if name == first else stable, 5)

    aggregator.publish(TOPICS.delta, delta.pack())
    aggregator.publish_model()
    aggregator.take_back(TOPICS.canary)
    aggregator.announce(6, 4)
    for update in aggregator.hear_updates(2).values():
        assert_learned_from(update, aggregator.model, 6)
    (other,) = {A, B} - {first}
    assert boards[first].said("fetches") == [4]
    assert boards[other].said("fetches") == [3]

    aggregator.make_version()
    aggregator.publish_model(TOPICS.canary)
    second = lower(5)
    aggregator.announce(7, 4, canary=5, share=share_for(5, second))
    for name, update in aggregator.hear_updates(2).items():
        assert_learned_from(update, aggregator.models[-1 if name == second else -2], 7)

    aggregator.take_back(TOPICS.canary)
    del aggregator.models[-1]
    after = aggregator.make_version()
    aggregator.model.version = 6
    aggregator.publish(TOPICS.delta, Delta(after.lineage, 6, after.checksum, after.changes).pack())
    aggregator.publish_model()
    aggregator.announce(8, 6)
    for update in aggregator.hear_updates(2).values():
        assert_learned_from(update, aggregator.model, 8)
    assert boards[second].said("fetches")[-2:] == [5, 6]


@pytest.mark.parametrize("pauses", [False, True])
def test_a_canary_ends_while_a_board_fetches_it(
    aggregator: Aggregator, boot: Start, *, pauses: bool
) -> None:
    """Two of three chunks have come. It goes back to everyone's version, and not by a time-out,
    with the next round, or after a pause.
    """
    stable = aggregator.model
    aggregator.make_version()
    aggregator.publish_model(TOPICS.canary, parts=2)
    aggregator.announce(5, 3, canary=4, share=EVERYONE)
    board = boot(A)
    board.wait_for("chunk", times=2)
    aggregator.take_back(TOPICS.canary)
    if pauses:
        aggregator.publish(TOPICS.round, b"")
    aggregator.announce(6, 3)
    assert_learned_from(aggregator.hear_updates()[A], stable, 6)
    assert board.said("fetches") == [4, 3]
    assert board.said("trains in") == [6]


def test_a_canary_that_ends_within_its_round_is_learned_from_no_more(
    aggregator: Aggregator, boot: Start
) -> None:
    """The board is in the middle of its round when it is announced again, without the canary."""
    stable = aggregator.model
    aggregator.make_version()
    aggregator.publish_model(TOPICS.canary)
    aggregator.announce(5, 3, canary=4, share=EVERYONE)
    board = boot(A, hold=[5, 3])
    board.wait_for("held in 5")
    aggregator.take_back(TOPICS.canary)
    aggregator.announce(5, 3)
    assert_learned_from(aggregator.hear_updates()[A], stable, 5)


@on_both_boards
def test_a_late_chunk_of_a_canary_does_not_get_into_the_whole_model(
    aggregator: Aggregator, bits: Bits, tmp_path: Path
) -> None:
    """A broker may deliver what it has queued after the board has unsubscribed (MQTT 3.1.1,
    section 3.10.4), here between two chunks of the version that the board goes back to.
    """
    stable = [(TOPICS.full(c.chunk), c.pack()) for c in aggregator.model.chunks()]
    aggregator.make_version()
    canary = aggregator.model.chunks()[1]
    late = (TOPICS.canary(1), canary.pack())
    messages = [(TOPICS.plan, SPEC.plan.pack()), *stable[:2], late, *stable[2:]]
    lines = (json.dumps([topic, payload.hex()]) for topic, payload in messages)
    (tmp_path / "messages").write_text("\n".join(lines) + "\n")
    (model,) = run_board("chunks.py", bits, SPEC.fleet, tmp_path / "messages")
    assert model == [3, aggregator.models[0].published.tobytes().hex()]


# --- Battery, sleep and other states


def test_a_board_that_sat_out_is_ready_again_with_a_plan_that_fits(
    aggregator: Aggregator, boot: Start
) -> None:
    large = [(0, 1, 1, 1, 900, 1, 1, 2, 1), (0, 1, 1, 900, 900, 1, 1, 1, 1)]
    plan = replace(SPEC.plan, lineage=1, layers=tuple(large))
    aggregator.publish(TOPICS.plan, plan.pack())
    boot(A)
    aggregator.announce(5, 3)
    states = [aggregator.hear_state()["state"] for _ in range(2)]
    assert states == ["ready", "refused"]
    aggregator.publish(TOPICS.plan, SPEC.plan.pack())
    assert aggregator.hear_state()["state"] == "ready"
    assert_learned_from(aggregator.hear_updates()[A], aggregator.model, 5)


def test_a_board_tells_its_battery_when_it_has_changed(aggregator: Aggregator, boot: Start) -> None:
    """With each state; and between rounds when it is 5 percent away from what was told last."""
    board = boot(A, battery=87)
    assert aggregator.hear_state()["battery"] == 87
    for level, expected in ((83, None), (82, 82), (150, 100), (-3, 0)):
        board.switch("battery", level)
        board.wait_for(f"battery {level}")
        if expected is not None:
            state = aggregator.hear_state()
            assert (state["state"], state["battery"]) == ("ready", expected)


def test_a_board_sleeps_between_rounds_and_is_in_the_next_one(
    aggregator: Aggregator, boot: Start
) -> None:
    """It says that it sleeps, and leaves in order, so that the broker does not call it lost. A
    round is announced meanwhile; it wakes, says so, follows the delta and takes part.
    """
    aggregator.announce(5, 3)
    board = boot(A)
    assert aggregator.hear_state()["state"] == "ready"
    assert_learned_from(aggregator.hear_updates()[A], aggregator.model, 5)
    board.switch("rest", 1)
    assert aggregator.hear_state()["state"] == "sleeping"
    aggregator.publish(TOPICS.delta, aggregator.make_version().pack())
    aggregator.announce(6, 4)
    (board.folder / "rest").unlink()
    assert aggregator.hear_state()["state"] == "ready"
    assert_learned_from(aggregator.hear_updates()[A], aggregator.model, 6)
    assert board.said("fetches") == [3]
