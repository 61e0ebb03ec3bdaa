"""Real parts for the tests that need them.

On a contributor's machine a test whose part is missing is skipped, and says why; in CI it fails.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from localfleet import processes
from localfleet.debian import PartsError


@dataclass(frozen=True)
class Broker:
    """A Mosquitto of the test's own."""

    program: processes.Program
    port: int
    folder: Path

    def start(self) -> None:
        processes.start_broker(self.program, self.port)


def part_is_missing(error: PartsError) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(str(error), pytrace=False)
    pytest.skip(str(error))


@pytest.fixture
def absent_broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker, configured as deployed but on a free port, that the test starts itself."""
    port = processes.free_port()
    folder = tmp_path / "broker"
    try:
        program = processes.broker(folder, port)
    except PartsError as error:
        part_is_missing(error)
    with processes.stopping([program]):
        yield Broker(program, port, folder)


@pytest.fixture
def broker(absent_broker: Broker) -> Broker:
    """A running broker."""
    absent_broker.start()
    return absent_broker
