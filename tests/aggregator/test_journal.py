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
from dataclasses import replace
from pathlib import Path

import pytest

from aggregator.history import Counters, Traffic
from aggregator.journal.journal import Journal
from aggregator.journal.schema import JOURNAL
from aggregator.store.store import read_history
from localfleet.processes import PROJECT
from protocol.spec.spec import Spec
from rounds.cohort import Cohort
from rounds.core import Announce, State, UpdateKey
from rounds.learning import CanaryGroup, Learning, Version
from rounds.model import GlobalModel
from runtime.errors import StateError, StateStuckError
from tests.support.journal import FACTS, SPEC, SPEC_FILE, advanced, entry
from tests.support.messages import make_update


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened, _ = started(tmp_path)
    yield opened
    opened.close()


def started(folder: Path, spec: Spec = SPEC) -> tuple[Journal, Spec]:
    """A journal open for a spec, and the spec in its life."""
    journal = Journal(folder)
    return journal, journal.start(spec)


def begun(spec: Spec) -> Version:
    return Version(GlobalModel(spec))


def closed(journal: Journal, spec: Spec, round_: int, boards: str = "a") -> None:
    """Close a round that these boards answered."""
    counted = [UpdateKey(round_, board) for board in boards]
    facts = replace(FACTS, round=round_)
    journal.close_round(advanced(journal.learning(spec), round_), facts, counted, [])


# --- What is written is read


def test_a_new_journal_starts_from_the_spec(tmp_path: Path) -> None:
    journal, spec = started(tmp_path)
    stable = journal.learning(spec).stable
    assert (stable.model.version, stable.delta) == (0, b"")
    assert stable.model.published.tobytes() == SPEC.start().tobytes()
    assert journal.position() == (0, State.GATHERING)
    assert journal.late(0, 0, State.GATHERING).resumed.cohorts == {}
    assert (journal.history(), journal.traffic()) == ([], [])
    journal.close()


def test_the_open_round_is_remembered_with_who_answered(tmp_path: Path) -> None:
    journal, _ = started(tmp_path)
    journal.announce(Announce(0, 1234, b"", frozenset("ab"), 0))
    journal.announce(Announce(0, 2**32, b"ab", frozenset("abc"), 1), CanaryGroup(7, 99))
    journal.append([entry(0, "a"), entry(0, "c")])
    journal.close()

    journal, _ = started(tmp_path)
    late = journal.late(0, 0, State.GATHERING)
    answered = {"a": b"digest of a", "c": b"digest of c"}
    assert late.resumed.cohorts == {0: Cohort(2**32, b"ab", set("abc"), 1, answered)}
    assert sorted(late.resumed.counted) == [UpdateKey(0, "a"), UpdateKey(0, "c")]
    assert late.canaries == {0: CanaryGroup(7, 99)}
    assert sorted(journal.payloads(0)) == [(0, b"payload of a"), (0, b"payload of c")]
    assert journal.digest(0, "a") == b"digest of a"
    assert journal.digest(0, "b") is None
    assert journal.digest(1, "a") is None
    journal.close()


def test_a_late_update_is_remembered_with_the_round_that_it_counts_in(tmp_path: Path) -> None:
    journal, spec = started(tmp_path)
    journal.announce(Announce(0, 2**32, b"", frozenset("ab"), 0))
    journal.append([entry(0, "a")])
    closed(journal, spec, 0)
    journal.announce(Announce(1, 2**32, b"", frozenset("ab"), 0))
    journal.append([entry(0, "b", counted=1)])
    journal.close()

    journal, _ = started(tmp_path)
    late = journal.late(1, 4, State.GATHERING)
    assert late.resumed.cohorts.keys() == {0, 1}
    assert list(late.resumed.counted) == [UpdateKey(0, "b")]
    assert journal.payloads(1) == [(0, b"payload of b")]
    journal.close()


def test_a_closed_round_is_a_version_with_its_facts(tmp_path: Path) -> None:
    journal, spec = started(tmp_path)
    journal.announce(Announce(0, 1, b"", frozenset("a"), 0))
    journal.append([entry(0, "a")])
    learning = advanced(journal.learning(spec))
    counters = [Counters("a", 10, 5, 20, 8)]
    journal.close_round(learning, FACTS, [UpdateKey(0, "a")], counters)

    again = journal.learning(spec).stable
    assert (again.model.version, again.delta) == (1, learning.stable.delta)
    assert again.model.fine.tobytes() == learning.stable.model.fine.tobytes()
    assert again.model.published.tobytes() == learning.stable.model.published.tobytes()
    assert journal.position() == (1, State.GATHERING)
    assert journal.traffic() == counters
    assert journal.known().last_seen == {"a": 0}
    assert journal.history() == [FACTS]
    assert read_history(tmp_path) == [FACTS]  # While an aggregator has it open.
    journal.close()


# --- Lineages and plans


def changed(old: str, new: str) -> Spec:
    return Spec.from_toml(SPEC_FILE.read_text().replace(old, new))


def test_another_state_folder_is_another_lineage(tmp_path: Path) -> None:
    (one, spec), (other, again) = started(tmp_path / "one"), started(tmp_path / "other")
    assert spec.lineage != again.lineage
    one.close()
    other.close()


def test_a_restart_with_the_same_spec_goes_on(tmp_path: Path) -> None:
    journal, spec = started(tmp_path)
    closed(journal, spec, 0)
    journal.close()
    journal, again = started(tmp_path)
    assert again == spec
    assert again.lineage == spec.lineage
    assert journal.learning(again).stable.model.version == 1
    journal.close()


def test_a_spec_with_other_rates_goes_on_with_the_model(tmp_path: Path) -> None:
    journal, spec = started(tmp_path)
    closed(journal, spec, 0)
    journal.close()
    journal, again = started(tmp_path, changed("percent = 10", "percent = 20"))
    assert again.lineage == spec.lineage
    assert again.training.percent == 20
    assert journal.learning(again).stable.model.version == 1
    journal.close()


def test_another_model_begins_a_lineage_and_the_first_spec_returns_to_its_own(
    tmp_path: Path,
) -> None:
    journal, spec = started(tmp_path)
    closed(journal, spec, 0)
    journal.append([entry(1, "a")])
    journal.close()
    journal, other = started(tmp_path, changed("seed = 1", "seed = 2"))
    assert other.lineage != spec.lineage
    assert journal.position() == (0, State.GATHERING)
    assert (journal.history(), journal.payloads(1)) == ([], [])
    journal.close()
    journal, again = started(tmp_path)
    assert again.lineage == spec.lineage
    assert journal.learning(again).stable.model.version == 1
    journal.close()


def test_a_commanded_plan_outlives_a_restart_until_the_file_is_changed(tmp_path: Path) -> None:
    journal, _ = started(tmp_path)
    journal.adopt(changed("percent = 10", "percent = 50"))
    journal.close()
    journal, spec = started(tmp_path)
    assert spec.training.percent == 50
    journal.close()
    journal, spec = started(tmp_path, changed("percent = 10", "percent = 20"))
    assert spec.training.percent == 20
    journal.close()


def test_a_new_lineage_that_the_disk_has_no_room_for_begins_when_it_has(tmp_path: Path) -> None:
    """The first try is rolled back half-way. What the file said is remembered all the same."""
    journal, first = started(tmp_path)

    def make_room(error: StateStuckError) -> None:
        assert "cannot be used" in str(error)
        journal._db.execute("PRAGMA max_page_count = 100000")

    journal.when_stuck = make_room
    journal._db.execute("PRAGMA max_page_count = 1")  # Rounded up to what is there.
    spec = journal.adopt(changed("seed = 1", "seed = 2"))
    assert spec.lineage != first.lineage
    assert journal.position() == (0, State.GATHERING)
    assert journal.learning(spec).stable.model.version == 0
    journal.close()
    journal, again = started(tmp_path)  # With the file as it was: the command still holds.
    assert again.lineage == spec.lineage
    journal.close()


def test_a_journal_of_another_fleet_is_refused_and_left_alone(tmp_path: Path) -> None:
    started(tmp_path)[0].close()
    journal = Journal(tmp_path)
    with pytest.raises(
        StateError, match=rf"{JOURNAL.file}.*fleet '{SPEC.fleet}'.*fleet 'other'.*--state"
    ):
        journal.start(SPEC.model_copy(update={"fleet": "other"}))
    journal.close()
    started(tmp_path)[0].close()


# --- What is old is compacted


def test_disk_use_is_bounded(tmp_path: Path) -> None:
    journal = Journal(tmp_path, keep_rounds=3, keep_versions=5)
    spec = journal.start(SPEC)
    for round_ in range(12):
        journal.announce(Announce(round_, 2**32, b"", frozenset("a"), 0))
        journal.append([entry(round_, "a")])
        closed(journal, spec, round_)
    assert [journal.digest(round_, "a") is not None for round_ in range(12)] == [
        *[False] * 9,
        *[True] * 3,
    ]
    kept = [journal.weights(version) is not None for version in range(13)]
    assert kept == [*[False] * 8, *[True] * 5]
    assert len(journal.history()) == 12  # What is known of a round is small, and stays.
    journal.close()


def test_traffic_goes_on_counting_when_a_board_restarts_and_when_we_do() -> None:
    def report(traffic: Traffic, up: int, down: int) -> None:
        traffic.report(make_update(SPEC, "a", bytes_up=up, bytes_down=down))

    traffic = Traffic()
    report(traffic, 100, 1000)
    report(traffic, 150, 1100)
    report(traffic, 30, 200)  # The board has restarted.
    assert (traffic.up, traffic.down) == (180, 1300)
    traffic = Traffic([traffic.of("a")])  # We have.
    report(traffic, 35, 250)
    assert (traffic.up, traffic.down) == (185, 1350)


# --- kill -9

BEGIN = """
    import sys
    from pathlib import Path
    from aggregator.history import Counters
    from aggregator.journal.journal import Journal
    from rounds.core import Announce, UpdateKey
    from tests.support.journal import FACTS, SPEC, advanced, entry

    def here_comes_the_end():
        print("here", flush=True)
        sys.stdin.read()

    journal = Journal(Path(sys.argv[1]))
    learning = journal.learning(journal.start(SPEC))
    journal.announce(Announce(0, 2**32, b"", frozenset("abc"), 0))
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
    journal, _ = started(tmp_path)
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
    journal, _ = started(tmp_path)
    assert journal.payloads(0) == [(0, b"payload of a")]
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
        journal.close_round(advanced(learning), FACTS, [UpdateKey(0, "a")], traffic())
    """)
    journal, spec = started(tmp_path)
    assert journal.learning(spec).stable.model.version == 0
    assert (journal.history(), journal.traffic()) == ([], [])
    assert journal.late(0, 0, State.GATHERING).resumed.cohorts[0].answered.keys() == {"a"}
    journal.close()


def test_a_process_killed_after_it_closed_a_round_has_closed_it(
    tmp_path: Path, killed: Killed
) -> None:
    killed("""
        journal.append([entry(0, "a")])
        journal.close_round(advanced(learning), FACTS, [UpdateKey(0, "a")], [])
        here_comes_the_end()
    """)
    journal, spec = started(tmp_path)
    stable, expected = journal.learning(spec).stable, advanced(Learning(spec, begun(spec))).stable
    assert (stable.model.version, stable.delta) == (1, expected.delta)
    assert stable.model.fine.tobytes() == expected.model.fine.tobytes()
    assert journal.position() == (1, State.GATHERING)
    journal.close()


# --- Refusals: which file, and what to do


def test_two_aggregators_cannot_share_a_folder(tmp_path: Path, journal: Journal) -> None:
    assert journal.path.exists()
    with pytest.raises(StateError, match="another aggregator is using"):
        Journal(tmp_path)


def test_a_journal_of_another_schema_is_refused(tmp_path: Path) -> None:
    started(tmp_path)[0].close()
    with_db(tmp_path, "PRAGMA user_version = 99")
    with pytest.raises(StateError, match=rf"{JOURNAL.file}.*schema 99.*--state"):
        Journal(tmp_path)


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    with_db(tmp_path, "CREATE TABLE theirs (x)")
    with pytest.raises(StateError, match=rf"{JOURNAL.file}: not a journal"):
        Journal(tmp_path)


@pytest.mark.parametrize("where", [0, 100, 6 * 4096], ids=["header", "first page", "a later page"])
def test_a_damaged_journal_is_refused(tmp_path: Path, where: int) -> None:
    journal, _ = started(tmp_path)
    journal.append(entry(0, f"board-{i}") for i in range(500))
    journal.close()
    with (tmp_path / JOURNAL.file).open("r+b") as file:
        file.seek(where)
        file.write(b"\xaa" * 3000)
    with pytest.raises(StateError, match=rf"{JOURNAL.file}: (damaged|not a journal)"):
        Journal(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="no usable state folder"):
        Journal(tmp_path / "file" / "state")


def test_a_full_disk_is_reported_and_leaves_the_journal_as_it_was(journal: Journal) -> None:
    journal._db.execute("PRAGMA max_page_count = 1")  # Rounded up to what is there.
    with pytest.raises(StateError, match=rf"{JOURNAL.file}: cannot be used.*check the disk"):
        journal.append(entry(0, f"board-{i}") for i in range(1000))
    assert journal.payloads(0) == []


def test_reading_the_history_of_no_journal_says_so(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="no such journal"):
        read_history(tmp_path)


def with_db(folder: Path, statement: str) -> None:
    db = sqlite3.connect(folder / JOURNAL.file)
    db.execute(statement)
    db.close()
