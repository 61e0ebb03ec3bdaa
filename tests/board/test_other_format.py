"""A board and an aggregator that speak different formats of the wire: one line says so, once."""

import pytest

from localfleet.parts import Bits
from protocol.messages import FORMAT, Delta, Message
from tests.support.lone_board import (
    SPEC,
    TOPICS,
    A,
    Aggregator,
    Board,
    Start,
    assert_learned_from,
)
from tests.support.parts import on_both_boards

pytestmark = pytest.mark.real

OLDER = (
    f"the aggregator speaks format {FORMAT - 1}, this client {FORMAT}: update whichever is older"
)


def older(message: Message) -> bytes:
    """As an aggregator of the format before would begin it; the byte after the array's head."""
    packed = bytearray(message.pack())
    assert packed[1] == FORMAT
    packed[1] = FORMAT - 1
    return bytes(packed)


def faults(board: Board) -> list[str]:
    """The lines about messages that could not be read."""
    return [line for line in board.log().splitlines() if line.startswith("tinymetafed: tmf/")]


def publish_older(aggregator: Aggregator, round_: int) -> None:
    """A plan, a delta and a round, retained."""
    delta = Delta(SPEC.lineage, aggregator.model.version, 1, b"")
    aggregator.publish(TOPICS.plan, older(SPEC.plan))
    aggregator.publish(TOPICS.delta, older(delta))
    aggregator.publish(TOPICS.round, older(aggregator.round(round_, 3)))


def wait_until_heard(aggregator: Aggregator, board: Board, level: int) -> None:
    """The board has heard what was published before: it reports its battery after that."""
    board.switch("battery", level)
    while aggregator.hear_state().get("battery") != level:
        pass


@on_both_boards
def test_another_format_is_said_once_until_something_changes(
    aggregator: Aggregator, boot: Start, bits: Bits
) -> None:
    """Everything that is retained has the older format, and then more of it comes. The aggregator
    is updated, and the board takes part; then it is the older one again.
    """
    publish_older(aggregator, 5)
    board = boot(A, bits)
    wait_until_heard(aggregator, board, 90)
    for round_ in (6, 7):
        publish_older(aggregator, round_)
    wait_until_heard(aggregator, board, 80)
    assert faults(board) == [f"tinymetafed: {TOPICS.plan}: {OLDER}"]

    aggregator.publish(TOPICS.plan, SPEC.plan.pack())
    aggregator.announce(8, 3)
    assert_learned_from(aggregator.hear_updates()[A], aggregator.model, 8)
    assert len(faults(board)) == 1

    publish_older(aggregator, 9)
    wait_until_heard(aggregator, board, 70)
    assert len(faults(board)) == 2


def test_each_fault_is_said(aggregator: Aggregator, boot: Start) -> None:
    """Garbage on a topic, the same again, and then other garbage."""
    board = boot(A)
    wait_until_heard(aggregator, board, 90)
    for payload in (b"\x92", b"\x92", b"\x01"):
        aggregator.publish(TOPICS.round, payload)
    wait_until_heard(aggregator, board, 80)
    assert faults(board) == [
        f"tinymetafed: {TOPICS.round}: message: cut short",
        f"tinymetafed: {TOPICS.round}: message: not an array that starts with a format number",
    ]
