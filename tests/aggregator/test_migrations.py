"""A journal that the version before wrote is opened by this one, and its fleet goes on."""

import sqlite3
from pathlib import Path

import pytest

from aggregator.fleet import Fleet
from aggregator.journal.journal import Journal
from aggregator.journal.schema import JOURNAL
from aggregator.store.store import Store
from protocol.commands import Apply, RollBack, parse
from protocol.messages import Delta, Update
from protocol.mqtt import Message
from protocol.spec.spec import Spec
from protocol.topics import Topics
from rounds.core import Close, RejectReason, State
from rounds.intake import digest_of
from runtime.errors import StateError

SCHEMA_2 = Path(__file__).parent / "journals" / "schema-2.sql"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state folder of the version before."""
    with sqlite3.connect(tmp_path / JOURNAL.file) as db:
        db.executescript(SCHEMA_2.read_text(encoding="utf-8"))
    db.close()
    return tmp_path


def spec_in(folder: Path) -> Spec:
    """The spec by which its aggregator was started."""
    with sqlite3.connect(folder / JOURNAL.file) as db:
        (text,) = db.execute("SELECT file FROM lineages").fetchone()
    return Spec.model_validate_json(text)


def test_the_fleet_goes_on_where_it_was(folder: Path) -> None:
    journal = Journal(folder)
    fleet = Fleet(journal, journal.start(spec_in(folder)))
    assert fleet.spec.lineage == 0x96EA91BC  # As its boards know it.
    assert (fleet.core.state, fleet.core.round) == (State.COLLECTING, 2)
    assert fleet.learning.stable.model.version == 0
    assert fleet.learning.canary is not None
    assert fleet.learning.canary.model.version == 2
    # What the version before had summed of the open round, to the bit.
    ((basis, total),) = fleet._intake.sums.items()
    assert (basis.age, basis.is_canary, total.weight) == (0, False, 2)
    assert total.changes.tolist() == [44, 88, 28, -116, 248, -122]
    assert fleet.core.known.last_seen == {"pump-1": 1, "pump-2": 1, "pump-3": 1}
    # The third board answers, and the round closes.
    payload = next(
        payload for round_, payload in journal.payloads(1) if b"pump-3" in payload and round_ == 1
    )
    update = Update.unpack(payload)
    late = Message(Topics("pumps").up("pump-3"), payload, 1)
    assert fleet.ingest.take([late]).rejected[0].reason is RejectReason.DUPLICATE
    answer = Update(
        **{name: getattr(update, name) for name in Update.__slots__} | {"round": 2, "nonce": 1}
    )
    fleet.core.board_awake("pump-3")
    taken = fleet.ingest.take([Message(Topics("pumps").up("pump-3"), answer.pack(), 1)])
    assert len(taken.accepted) == 1
    assert any(isinstance(decision, Close) for decision in fleet.core.tick(1.0))
    journal.close()


def test_what_it_knew_has_the_words_of_today(folder: Path) -> None:
    Journal(folder).close()
    with Store.open(folder) as store:
        versions = store.versions(store.lineage())
    assert [version.role for version in versions] == ["stable", "rolled back", "canary"]
    facts = versions[2].facts
    assert facts is not None
    assert (facts.invited, facts.rejected, facts.canary) == (3, {"stale": 1}, "rolled back")
    assert facts.canary_loss == pytest.approx(10.986328125)
    with sqlite3.connect(folder / JOURNAL.file) as db:
        waiting = [parse(text) for (text,) in db.execute("SELECT command FROM commands")]
        assert [type(command) for command in waiting] == [Apply, RollBack]
        for payload, digest in db.execute("SELECT payload, digest FROM updates"):
            assert Update.unpack(payload).lineage == 0x96EA91BC
            assert digest_of(payload) == digest
        for (delta,) in db.execute("SELECT delta FROM versions WHERE length(delta) > 0"):
            assert Delta.unpack(delta).lineage == 0x96EA91BC


def test_it_is_brought_up_to_date_once(folder: Path) -> None:
    Journal(folder).close()
    with sqlite3.connect(folder / JOURNAL.file) as db:
        (before,) = db.execute("PRAGMA user_version").fetchone()
        tables = db.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
    Journal(folder).close()
    assert before == JOURNAL.number
    fresh = folder / "fresh"
    Journal(fresh).close()
    with sqlite3.connect(fresh / JOURNAL.file) as db:
        made = db.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
    assert [" ".join(sql.split()) for (sql,) in tables if sql] == [
        " ".join(sql.split()) for (sql,) in made if sql
    ]


def test_a_message_that_cannot_be_brought_along_leaves_the_file_as_it_was(folder: Path) -> None:
    with sqlite3.connect(folder / JOURNAL.file) as db:
        db.execute("UPDATE updates SET payload = x'9f07' WHERE round = 2 AND board = 'pump-1'")
    with pytest.raises(StateError, match=r"journal\.db: damaged .*a message of format 07"):
        Journal(folder)
    with sqlite3.connect(folder / JOURNAL.file) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)
        assert db.execute("SELECT asked FROM cohorts").fetchone() is not None


def test_who_only_reads_says_what_to_do(folder: Path) -> None:
    remedy = "of schema 2; this version's aggregator brings it up to date when it is started"
    with pytest.raises(StateError, match=remedy), Store.open(folder):
        pass
