"""What a board's state message says, whatever the bytes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.presence import MAX_STATE_BYTES, Availability, Presence, read_presence

READY = {"state": "ready", "format": 2, "client": "0.1.0", "heap_free": 90_000}


def read(**state: Any) -> Presence:
    return read_presence(json.dumps(state).encode())


@pytest.mark.parametrize(
    ("state", "availability"),
    [
        ("ready", Availability.AWAKE),
        ("training", Availability.AWAKE),
        ("sleeping", Availability.SLEEPING),
        ("lost", Availability.LOST),
        ("stopped", Availability.OTHER),
        (7, Availability.OTHER),
        (None, Availability.OTHER),
    ],
)
def test_a_word_says_whether_a_board_can_be_invited(
    state: object, availability: Availability
) -> None:
    assert read(**READY | {"state": state}).availability is availability


def test_an_empty_message_takes_back_what_was_said() -> None:
    assert read_presence(b"") == Presence(None)


@pytest.mark.parametrize(
    ("battery", "percent"), [(0, 0), (100, 100), (101, None), (-1, None), (50.0, None), ("9", None)]
)
def test_a_battery_is_a_whole_percentage(battery: object, percent: int | None) -> None:
    assert read(**READY, battery=battery).battery == percent


def test_a_board_of_another_format_is_not_waited_for() -> None:
    for format_ in (1, 3):
        presence = read(**READY | {"format": format_})
        assert presence == Presence(Availability.OTHER, format=format_)


def test_a_client_that_names_no_format_speaks_the_first() -> None:
    """Format 1 had no such field. Who names no client, such as a person's own, speaks ours."""
    assert read(state="ready", client="0.1.0") == Presence(Availability.OTHER, format=1)
    assert read(state="ready").availability is Availability.AWAKE


@pytest.mark.parametrize("format_", [True, "2", 2.0, None, []])
def test_what_is_no_format_is_not_waited_for(format_: object) -> None:
    assert read(**READY | {"format": format_}).availability is Availability.OTHER


def test_a_longer_message_is_not_looked_into() -> None:
    state = json.dumps(READY | {"note": "x" * MAX_STATE_BYTES}).encode()
    assert read_presence(state).availability is Availability.OTHER


@pytest.mark.parametrize(
    "payload", [b'"ready"', b'["ready"]', b"[" * 4000, b'{"state":["ready"]}', b"\xff"]
)
def test_what_is_no_state_is_another_one(payload: bytes) -> None:
    assert read_presence(payload).availability is Availability.OTHER


@given(st.binary(max_size=200) | st.text(max_size=80).map(str.encode))
def test_no_bytes_make_it_raise(payload: bytes) -> None:
    assert isinstance(read_presence(payload), Presence)
