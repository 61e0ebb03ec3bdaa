"""How many boards are away, and how."""

from hypothesis import given
from hypothesis import strategies as st

from aggregator.presence import AvailabilityCounter
from protocol.presence import Availability, read_presence
from tests.support.service import BOARDS

WORDS = [b"", b'{"state":"ready"}', b'{"state":"sleeping"}', b'{"state":"lost"}', b"?"]
WHY = [Availability.SLEEPING, Availability.LOST, Availability.OTHER]


@given(st.lists(st.tuples(st.sampled_from(BOARDS), st.sampled_from([*WORDS, None]))))
def test_each_board_that_is_away_counts_once(story: list[tuple[str, bytes | None]]) -> None:
    availability = AvailabilityCounter()
    last: dict[str, bytes | None] = {}
    for board, payload in story:
        last[board] = payload
        if payload is None:
            availability.answered([board])
        else:
            availability.seen(board, read_presence(payload).availability)
    for word, expected in zip(WORDS[2:], WHY, strict=True):
        assert availability.count[expected] == list(last.values()).count(word)
    assert availability.count[Availability.AWAKE] == 0
