"""What a message on the command topic may be."""

import numpy as np
import pytest

from protocol.commands import Apply, Command, Import, Pause, Resume, RollBack, Stop, parse
from protocol.errors import CommandError

WEIGHTS = np.array([-(2**15), -1, 0, 2**15 - 1], np.int16)


@pytest.mark.parametrize(
    "command",
    [
        *(Pause(id="a"), Resume(), Stop(), Apply(spec="fleet = 3"), RollBack(version=7)),
        Import.of(WEIGHTS),
    ],
    ids=lambda command: command.command,
)
def test_a_command_is_read_as_it_was_written(command: Command) -> None:
    assert parse(command.model_dump_json()) == command


def test_imported_weights_are_those_that_were_sent() -> None:
    command = parse(Import.of(WEIGHTS).model_dump_json())
    assert isinstance(command, Import)
    np.testing.assert_array_equal(command.read(len(WEIGHTS)), WEIGHTS)


@pytest.mark.parametrize("payload", [b"", b"null", b"[" * 5000, b'{"command":"stop"', b"x" * 2**21])
def test_any_other_bytes_are_refused(payload: bytes) -> None:
    with pytest.raises(CommandError, match="command"):
        parse(payload)
