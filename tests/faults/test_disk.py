"""The disk is slow, full, locked by somebody, or has damaged the journal.

The aggregator says so once, acknowledges nothing that it cannot keep, and goes on when it can. With
a journal that is damaged it does not start, and leaves the file as it is.
"""

import resource
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from aggregator.journal.journal import Journal
from aggregator.journal.schema import JOURNAL
from runtime.database import reading
from tests.conftest import Broker
from tests.faults.fleet import Fleet
from tests.faults.ledger import Account
from tests.faults.service_process import Fault

pytestmark = [pytest.mark.real, pytest.mark.slow]

PAGE = 4096
"""Bytes of a page of SQLite's."""
Trouble = Callable[[Fleet], AbstractContextManager[None]]


@contextmanager
def full(fleet: Fleet) -> Iterator[None]:
    """No file of the process may become longer than the write-ahead log is: the kernel refuses to
    write, as it does on a disk without room."""
    log = fleet.aggregator.state / "journal.db-wal"
    _, most = resource.prlimit(fleet.aggregator.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(fleet.aggregator.pid, resource.RLIMIT_FSIZE, (log.stat().st_size, most))
    yield
    with suppress(ProcessLookupError):  # It may have been killed meanwhile.
        resource.prlimit(fleet.aggregator.pid, resource.RLIMIT_FSIZE, (most, most))


@contextmanager
def locked(fleet: Fleet) -> Iterator[None]:
    stranger = sqlite3.connect(fleet.aggregator.state / "journal.db", isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    yield
    stranger.close()


troubles = pytest.mark.parametrize("trouble", [full, locked])


def receipted_only(fleet: Fleet) -> set[tuple[int, str]]:
    """Updates, by round and board, of which a board has the receipt and the journal nothing.

    It is the journal that is asked, not the moment at which a receipt came: what was sent just
    before the disk refused may reach its board after the aggregator has said that it did.
    """
    with fleet.news:
        receipted = {(round_, board.name) for board in fleet.boards for round_ in board.receipted}
    with reading(fleet.aggregator.state, JOURNAL) as db:
        return receipted - set(db.execute("SELECT round, board FROM updates"))


@troubles
def test_it_goes_on_when_the_disk_does(
    tmp_path: Path, broker: Broker, book: Callable[[Account], None], trouble: Trouble
) -> None:
    fleet = Fleet(tmp_path, broker.port)
    fleet.aggregator.start()
    with fleet.running():
        for times in (1, 2, 3):
            fleet.wait_for_rounds(3)
            with trouble(fleet):
                fleet.aggregator.wait_for_line("until then nothing is acknowledged", times)
                fleet.idle(1.5)  # It tries again. What is awaited is that nothing happens.
                assert receipted_only(fleet) == set()
                # Else it might have been written by now, and the line above would prove nothing.
                assert fleet.aggregator.said.count("the journal can be written again") == times - 1
            fleet.aggregator.wait_for_line("the journal can be written again", times)
        fleet.settle(3, book)
        assert fleet.aggregator.said.count("cannot be used") == 3


@troubles
def test_killed_while_the_disk_refuses(
    tmp_path: Path, broker: Broker, book: Callable[[Account], None], trouble: Trouble
) -> None:
    """Boards send only once: what the aggregator could not write, the broker has kept."""
    fleet = Fleet(tmp_path, broker.port, repeats=False)
    with fleet.running():
        for times in (1, 2, 3):
            fleet.aggregator.start()
            fleet.wait_for_rounds(3)
            with trouble(fleet):
                fleet.aggregator.wait_for_line("until then nothing is acknowledged", times)
                assert fleet.aggregator.kill() == -signal.SIGKILL
        fleet.aggregator.start()
        fleet.settle(6, book)


def test_a_slow_disk(tmp_path: Path, broker: Broker, book: Callable[[Account], None]) -> None:
    """Each commit of updates takes a quarter of a second, so that boards send several times."""
    fleet = Fleet(tmp_path, broker.port)
    fleet.aggregator.start(Fault(Journal.append, "inside", seconds=0.25))
    with fleet.running():
        fleet.wait_for_rounds(10)
        fleet.settle(1, book)


def pages_of_tables(journal: Path) -> tuple[int, int]:
    """Where in the file the first and the last table start."""
    db = sqlite3.connect(f"{journal.as_uri()}?immutable=1", uri=True)
    pages = db.execute("SELECT min(rootpage), max(rootpage) FROM sqlite_master").fetchone()
    db.close()
    first, last = ((page - 1) * PAGE for page in pages)
    return first, last


def test_a_damaged_journal_is_refused_and_left_as_it_is(
    tmp_path: Path, broker: Broker, book: Callable[[Account], None]
) -> None:
    """With the undamaged file back in its place the fleet goes on as if nothing had been."""
    rng = np.random.default_rng(3)
    fleet = Fleet(tmp_path, broker.port)
    fleet.aggregator.start()
    with fleet.running():
        fleet.wait_for_rounds(5)
        assert fleet.aggregator.kill(signal.SIGTERM) == 0
        journal = fleet.aggregator.state / "journal.db"
        sound = journal.read_bytes()
        first, last = pages_of_tables(journal)
        damaged = {
            "its start is gone": rng.bytes(100) + sound[100:],
            "its second half is gone": sound[: len(sound) // 2],
            "a page is another": sound[:last] + rng.bytes(PAGE) + sound[last + PAGE :],
            "a page is zero": sound[:first] + bytes(PAGE) + sound[first + PAGE :],
            "it is something else": b"# Not a journal\n" * 1000,
        }
        for what, content in damaged.items():
            journal.write_bytes(content)
            fleet.aggregator.log.unlink()
            fleet.aggregator.start()
            assert fleet.aggregator.wait() == 2, what
            assert "journal.db: damaged (" in fleet.aggregator.said, what
            assert "another --state folder" in fleet.aggregator.said, what
            assert "Traceback" not in fleet.aggregator.said, what
            assert journal.read_bytes() == content, what
        journal.write_bytes(sound)
        fleet.aggregator.start()
        fleet.settle(len(damaged), book)
