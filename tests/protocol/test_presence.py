"""What a board says of itself."""

import pytest

from protocol.presence import Availability, read_presence


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b'{"state":"ready"}', Availability.AWAKE),
        (b'{"state":"training","heap":9}', Availability.AWAKE),
        (b'{"state":"sleeping","until":9}', Availability.SLEEPING),
        (b'{"state":"lost"}', Availability.LOST),
        (b'{"state":"dancing"}', Availability.OTHER),
        (b'{"state":["ready"]}', Availability.OTHER),
        (b'"ready"', Availability.OTHER),
        (b"[" * 4000, Availability.OTHER),
        (b'{"state":"ready"}' + b" " * 5000, Availability.OTHER),
        (b"\xff", Availability.OTHER),
        (b"", None),
    ],
)
def test_a_state_message_says_how_a_board_is(payload: bytes, expected: Availability | None) -> None:
    assert read_presence(payload).availability is expected
