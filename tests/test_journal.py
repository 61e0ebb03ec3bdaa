"""The journal survives kill -9 at any point, and refuses what is not its own.

The killed process is a real one. It says on stdout where it is, and waits there for its end.
"""

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from aggregator.errors import JournalError
from aggregator.history import Counters, RoundFacts, Traffic
from aggregator.journal import FILE, Entry, Journal, read_history
from protocol.messages import Update
from protocol.spec import Spec
from rounds.core import Announce, OpenRound
from rounds.model import GlobalModel

PROJECT = Path(__file__).resolve().parent.parent
SPEC_FILE = PROJECT / "specs" / "sine.toml"
SPEC = Spec.from_file(SPEC_FILE)
FACTS = RoundFacts(0, 0.5, 1.5, 0.75, 2, 3, 0.25, 3.0, 1, {"stale": 4})


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path, SPEC)
    yield opened
    opened.close()


def entry(round_: int, board: str) -> Entry:
    return Entry(round_, board, 7, f"digest of {board}".encode(), f"payload of {board}".encode())


def advanced() -> tuple[GlobalModel, bytes]:
    model = GlobalModel(SPEC)
    return model, model.advance(np.arange(SPEC.global_count, dtype=float), 0.3).pack()


# --- What is written is read


def test_a_new_journal_starts_from_the_spec(journal: Journal) -> None:
    model, delta = journal.model(SPEC)
    assert (model.version, delta) == (0, b"")
    assert journal.open_round(0) is None
    assert (journal.history(), journal.traffic()) == ([], [])


def test_the_open_round_is_remembered_with_who_answered(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SPEC)
    journal.announce(Announce(0, 1234, frozenset("ab"), 0))
    journal.announce(Announce(0, 2**32, frozenset("abc"), 1))
    journal.append([entry(0, "a"), entry(0, "c")])
    journal.close()

    journal = Journal(tmp_path, SPEC)
    answered = {"a": b"digest of a", "c": b"digest of c"}
    assert journal.open_round(0) == OpenRound(2**32, frozenset("abc"), 1, answered)
    assert sorted(journal.payloads(0)) == [b"payload of a", b"payload of c"]
    assert journal.digest(0, "a") == b"digest of a"
    assert journal.digest(0, "b") is None
    assert journal.digest(1, "a") is None
    journal.close()


def test_a_closed_round_is_a_version_with_its_facts(tmp_path: Path, journal: Journal) -> None:
    journal.announce(Announce(0, 1, frozenset("a"), 0))
    journal.append([entry(0, "a")])
    model, delta = advanced()
    journal.close_round(model, delta, FACTS, [Counters("a", 10, 5, 20, 8)])

    again, its_delta = journal.model(SPEC)
    assert (again.version, its_delta) == (1, delta)
    assert again.fine.tobytes() == model.fine.tobytes()
    assert again.published.tobytes() == model.published.tobytes()
    assert journal.open_round(0) is None
    assert journal.traffic() == [Counters("a", 10, 5, 20, 8)]
    assert journal.history() == [FACTS]
    assert read_history(tmp_path) == [FACTS]  # While an aggregator has it open.


def test_traffic_goes_on_counting_when_a_board_restarts_and_when_we_do() -> None:
    def report(traffic: Traffic, up: int, down: int) -> None:
        traffic.report(Update(0, 0, "a", 0, 1, 1, 0, 0, 0, up, down, 0, 0, b""))

    traffic = Traffic()
    report(traffic, 100, 1000)
    report(traffic, 150, 1100)
    report(traffic, 30, 200)  # The board has restarted.
    assert (traffic.up, traffic.down) == (180, 1300)
    traffic = Traffic(traffic.of(["a"]))  # We have.
    report(traffic, 35, 250)
    assert (traffic.up, traffic.down) == (185, 1350)


# --- kill -9

BEGIN = f"""
    import sys
    from pathlib import Path
    from aggregator.history import Counters
    from aggregator.journal import Journal
    from protocol.spec import Spec
    from tests.test_journal import FACTS, advanced, entry
    from rounds.core import Announce

    def here_comes_the_end():
        print("here", flush=True)
        sys.stdin.read()

    journal = Journal(Path(sys.argv[1]), Spec.from_file(Path({str(SPEC_FILE)!r})))
    journal.announce(Announce(0, 2**32, frozenset("abc"), 0))
"""

Killed = Callable[[str], None]


@pytest.fixture
def killed(tmp_path: Path) -> Killed:
    """Run a script on a journal in tmp_path, and kill it once it has printed a line."""

    def run(script: str) -> None:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(BEGIN) + textwrap.dedent(script), tmp_path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"here\n"
            process.kill()
        assert process.returncode == -signal.SIGKILL

    return run


def test_a_process_killed_after_a_commit_leaves_the_whole_group(
    tmp_path: Path, killed: Killed
) -> None:
    killed("""
        journal.append([entry(0, "a"), entry(0, "b")])
        here_comes_the_end()
    """)
    journal = Journal(tmp_path, SPEC)
    assert len(journal.payloads(0)) == 2
    journal.close()


def test_a_process_killed_inside_a_commit_leaves_nothing_of_the_group(
    tmp_path: Path, killed: Killed
) -> None:
    killed("""
        journal.append([entry(0, "a")])
        def group():
            yield entry(0, "b")
            here_comes_the_end()
        journal.append(group())
    """)
    journal = Journal(tmp_path, SPEC)
    assert journal.payloads(0) == [b"payload of a"]
    journal.append([entry(0, "b")])  # Its board sends it again.
    journal.close()


def test_a_process_killed_while_it_closes_a_round_has_not_closed_it(
    tmp_path: Path, killed: Killed
) -> None:
    killed("""
        journal.append([entry(0, "a")])
        def traffic():
            yield Counters("a", 1, 1, 1, 1)
            here_comes_the_end()
        journal.close_round(*advanced(), FACTS, traffic())
    """)
    journal = Journal(tmp_path, SPEC)
    assert journal.model(SPEC)[0].version == 0
    assert (journal.history(), journal.traffic()) == ([], [])
    open_ = journal.open_round(0)
    assert open_ is not None
    assert open_.answered.keys() == {"a"}
    journal.close()


def test_a_process_killed_after_it_closed_a_round_has_closed_it(
    tmp_path: Path, killed: Killed
) -> None:
    killed("""
        journal.append([entry(0, "a")])
        journal.close_round(*advanced(), FACTS, [])
        here_comes_the_end()
    """)
    journal = Journal(tmp_path, SPEC)
    model, delta = journal.model(SPEC)
    expected, its_delta = advanced()
    assert (model.version, delta) == (1, its_delta)
    assert model.fine.tobytes() == expected.fine.tobytes()
    assert journal.open_round(0) is None
    journal.close()


# --- Refusals: which file, and what to do


def test_two_aggregators_cannot_share_a_folder(tmp_path: Path, journal: Journal) -> None:
    assert journal.path.exists()
    with pytest.raises(JournalError, match="another aggregator is using"):
        Journal(tmp_path, SPEC)


def test_a_journal_of_another_lineage_is_refused_and_left_alone(tmp_path: Path) -> None:
    Journal(tmp_path, SPEC).close()
    other = Spec.from_toml(SPEC_FILE.read_text().replace("seed = 1", "seed = 2"))
    with pytest.raises(JournalError, match=rf"{FILE}.*lineage.*seed or model differs.*--state"):
        Journal(tmp_path, other)
    Journal(tmp_path, SPEC).close()


def test_a_journal_of_another_schema_is_refused(tmp_path: Path) -> None:
    Journal(tmp_path, SPEC).close()
    with_db(tmp_path, "PRAGMA user_version = 99")
    with pytest.raises(JournalError, match=rf"{FILE}.*schema 99.*--state"):
        Journal(tmp_path, SPEC)


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    with_db(tmp_path, "CREATE TABLE theirs (x)")
    with pytest.raises(JournalError, match=rf"{FILE}: not a journal"):
        Journal(tmp_path, SPEC)


@pytest.mark.parametrize("where", [0, 100, 6 * 4096], ids=["header", "first page", "a later page"])
def test_a_damaged_journal_is_refused(tmp_path: Path, where: int) -> None:
    journal = Journal(tmp_path, SPEC)
    journal.append(entry(0, f"board-{i}") for i in range(500))
    journal.close()
    with (tmp_path / FILE).open("r+b") as file:
        file.seek(where)
        file.write(b"\xaa" * 3000)
    with pytest.raises(JournalError, match=rf"{FILE}: (damaged|not a journal)"):
        Journal(tmp_path, SPEC)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="no usable state folder"):
        Journal(tmp_path / "file" / "state", SPEC)


def test_a_full_disk_is_reported_and_leaves_the_journal_as_it_was(journal: Journal) -> None:
    journal._db.execute("PRAGMA max_page_count = 1")  # Rounded up to what is there.
    with pytest.raises(JournalError, match=rf"{FILE}: cannot be used.*check the disk"):
        journal.append(entry(0, f"board-{i}") for i in range(1000))
    assert journal.payloads(0) == []


def test_reading_the_history_of_no_journal_says_so(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="no readable journal"):
        read_history(tmp_path)


def with_db(folder: Path, statement: str) -> None:
    db = sqlite3.connect(folder / FILE)
    db.execute(statement)
    db.close()
