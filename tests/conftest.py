"""Fixtures that several tests need."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from localfleet import processes
from tests.support import real


@dataclass(frozen=True)
class Broker:
    """A Mosquitto of the test's own."""

    program: processes.Program
    port: int
    folder: Path

    def start(self) -> None:
        processes.start_broker(self.program, self.port)


@pytest.fixture
def absent_broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker, configured as deployed but on a free port, that the test starts itself."""
    port = processes.free_port()
    folder = tmp_path / "broker"
    program = real(lambda: processes.broker(folder, port))
    with processes.stopping([program]):
        yield Broker(program, port, folder)


@pytest.fixture
def broker(absent_broker: Broker) -> Broker:
    """A running broker."""
    absent_broker.start()
    return absent_broker
