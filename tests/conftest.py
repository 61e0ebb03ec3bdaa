"""Fixtures that several tests need."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from localfleet import processes
from tests.faults import ledger
from tests.support.parts import real
from tests.support.ports import free_port

# How long an example takes depends on what else the machine does; that is no property of ours.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


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
    port = free_port()
    folder = tmp_path / "broker"
    program = real(lambda: processes.broker(folder, port))
    with processes.stopping([program]):
        yield Broker(program, port, folder)


@pytest.fixture
def broker(absent_broker: Broker) -> Broker:
    """A running broker."""
    absent_broker.start()
    return absent_broker


SHARED = processes.PROJECT.parent / "shared" / "data"
"""Public data sets, where somebody has put them."""


@pytest.fixture(scope="session")
def omniglot_archive() -> Path:
    """Real drawings."""
    path = SHARED / "omniglot_background.npz"
    if not path.is_file():
        pytest.skip(f"{path} is absent: real drawings are not tested")
    return path


@pytest.fixture(scope="session")
def speech_commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real keywords, unpacked."""
    path = SHARED / "speech_commands_dev.tar.xz"
    if not path.is_file():
        pytest.skip(f"{path} is absent: real keywords are not tested")
    folder = tmp_path_factory.mktemp("speech_commands")
    with tarfile.open(path) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker runs all tests of a module that share a fixture: it is made once."""
    for item in items:
        made = getattr(item, "_fixtureinfo").name2fixturedefs.values()  # noqa: B009 - untyped
        if any(fixture.scope == "module" for (*_, fixture) in made):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell the account of the faults; here, for workers read the other conftest files alone."""
    ledger.tell(terminalreporter)
