"""What survives a crash: one SQLite file in the state folder.

An update is acknowledged to its board only after it is committed here, and a round is closed in the
same transaction that stores the model made of it. So wherever the process is killed, the journal is
as it was before a step or after it, never in between, and the sums can be made again from it.

The write-ahead log with ``synchronous=FULL`` survives a power cut, too. Each commit waits for the
disk, which is why updates are committed in groups.
"""

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from aggregator.errors import JournalError
from aggregator.history import Counters, RoundFacts
from protocol.spec import Spec
from rounds.core import Announce, OpenRound
from rounds.model import GlobalModel

FILE: Final = "journal.db"
APPLICATION: Final = 0x544D466A  # "TMFj": marks the file as one of ours.
SCHEMA_NUMBER: Final = 1
SCHEMA: Final = """
CREATE TABLE lineage (fleet TEXT NOT NULL, lineage INTEGER NOT NULL);
CREATE TABLE open_round (
    round INTEGER PRIMARY KEY, asked_below INTEGER NOT NULL, asked TEXT NOT NULL,
    empty_deadlines INTEGER NOT NULL
);
CREATE TABLE updates (
    round INTEGER NOT NULL, board TEXT NOT NULL, nonce INTEGER NOT NULL, digest BLOB NOT NULL,
    payload BLOB NOT NULL, PRIMARY KEY (round, board)
) WITHOUT ROWID;
CREATE TABLE models (
    version INTEGER PRIMARY KEY, fine BLOB NOT NULL, published BLOB NOT NULL, delta BLOB NOT NULL,
    facts TEXT NOT NULL, optimizer BLOB NOT NULL
);
CREATE TABLE traffic (
    board TEXT PRIMARY KEY, up INTEGER NOT NULL, up_reported INTEGER NOT NULL,
    down INTEGER NOT NULL, down_reported INTEGER NOT NULL
) WITHOUT ROWID;
"""


class Entry(NamedTuple):
    """An update as the journal keeps it."""

    round: int
    board: str
    nonce: int
    digest: bytes
    payload: bytes


class Journal:
    """The journal of one fleet, open for one aggregator.

    Args:
        folder: the state folder; made if it is not there.
        spec: whose lineage the journal must be of.

    Raises:
        JournalError: here and in every method: the file cannot be used. Says why and what to do.
    """

    def __init__(self, folder: Path, spec: Spec) -> None:
        self.path = folder / FILE
        self._lock = _lock(folder)
        try:
            with self._explained():
                self._db = sqlite3.connect(self.path, isolation_level=None)
                try:
                    self._prepare(spec)
                except BaseException:
                    self._db.close()
                    raise
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Close the file; another aggregator may then open it."""
        with self._explained():
            self._db.close()
        os.close(self._lock)

    # --- Writing: each call is one transaction ---------------------------------------------------

    def append(self, entries: Iterable[Entry]) -> None:
        """Commit a group of updates; on return they are on the disk."""
        with self._transaction():
            self._db.executemany("INSERT INTO updates VALUES (?, ?, ?, ?, ?)", entries)

    def announce(self, announced: Announce) -> None:
        """Note the open round as it is announced, for the first time or again."""
        asked = json.dumps(sorted(announced.asked))
        with self._transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO open_round VALUES (?, ?, ?, ?)",
                (announced.round, announced.limit, asked, announced.empty_deadlines),
            )

    def close_round(
        self,
        model: GlobalModel,
        delta: bytes,
        facts: RoundFacts,
        traffic: Iterable[Counters],
    ) -> None:
        """Close a round: store the version that came of it, and what is known of the round.

        Args:
            model: already at the new version.
            delta: the packed message that leads to it.
            facts: about the round.
            traffic: counters of the boards that answered.
        """
        fine, published = model.fine.tobytes(), model.published.tobytes()
        with self._transaction():
            self._db.execute(
                "INSERT INTO models VALUES (?, ?, ?, ?, ?, ?)",
                (model.version, fine, published, delta, facts.to_json(), model.optimizer_state),
            )
            self._db.execute("DELETE FROM open_round")
            self._db.executemany("INSERT OR REPLACE INTO traffic VALUES (?, ?, ?, ?, ?)", traffic)

    # --- Reading ---------------------------------------------------------------------------------

    def model(self, spec: Spec) -> tuple[GlobalModel, bytes]:
        """The latest version and the packed delta to it, empty at version 0."""
        with self._explained():
            row = self._db.execute(
                "SELECT version, fine, published, optimizer, delta FROM models "
                "ORDER BY version DESC LIMIT 1"
            ).fetchone()
            if row is None:
                return GlobalModel(spec), b""
            *saved, delta = row
            return GlobalModel.restore(spec, *saved), delta

    def open_round(self, round_: int) -> OpenRound | None:
        """This round as it was last announced, with who has answered; None if it was not."""
        with self._explained():
            row = self._db.execute(
                "SELECT asked_below, asked, empty_deadlines FROM open_round WHERE round = ?",
                (round_,),
            ).fetchone()
            if row is None:
                return None
            answered = self._db.execute(
                "SELECT board, digest FROM updates WHERE round = ?", (round_,)
            )
            return OpenRound(row[0], frozenset(json.loads(row[1])), row[2], dict(answered))

    def payloads(self, round_: int) -> list[bytes]:
        """The round's updates, as they came."""
        with self._explained():
            rows = self._db.execute("SELECT payload FROM updates WHERE round = ?", (round_,))
            return [payload for (payload,) in rows]

    def digest(self, round_: int, board: str) -> bytes | None:
        """Of the update of this board in this round; None if there is none."""
        with self._explained():
            row = self._db.execute(
                "SELECT digest FROM updates WHERE round = ? AND board = ?", (round_, board)
            ).fetchone()
            return row[0] if row else None

    def traffic(self) -> list[Counters]:
        """Every board's counters when the last round was closed."""
        with self._explained():
            return [Counters(*row) for row in self._db.execute("SELECT * FROM traffic")]

    def history(self) -> list[RoundFacts]:
        """All closed rounds, in order."""
        with self._explained():
            return _history(self._db)

    # --- Inside ----------------------------------------------------------------------------------

    def _prepare(self, spec: Spec) -> None:
        application, number, tables = (
            self._db.execute(question).fetchone()[0]
            for question in (
                "PRAGMA application_id",
                "PRAGMA user_version",
                "SELECT count(*) FROM sqlite_master",
            )
        )
        if tables and application != APPLICATION:
            raise JournalError(f"{self.path}: not a journal of an aggregator; check --state")
        if tables and number != SCHEMA_NUMBER:
            raise JournalError(
                f"{self.path}: of schema {number}, and this version reads {SCHEMA_NUMBER}; use "
                f"the version that wrote it, or start afresh with another --state folder"
            )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        if not tables:
            self._create(spec)
        (found,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        fleet, lineage = self._db.execute("SELECT fleet, lineage FROM lineage").fetchone()
        if lineage != spec.lineage:
            raise JournalError(
                f"{self.path}: holds fleet {fleet!r} with lineage {lineage:08x}, but the spec is "
                f"of fleet {spec.fleet!r} with lineage {spec.lineage:08x}: its fleet, seed or "
                f"model differs; take the spec back, or start afresh with another --state folder"
            )

    def _create(self, spec: Spec) -> None:
        with self._transaction():
            self._db.execute(f"PRAGMA application_id = {APPLICATION}")
            self._db.execute(f"PRAGMA user_version = {SCHEMA_NUMBER}")
            for statement in SCHEMA.split(";"):
                self._db.execute(statement)
            self._db.execute("INSERT INTO lineage VALUES (?, ?)", (spec.fleet, spec.lineage))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite may have rolled back by itself.
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:  # The disk is full, the folder read-only, ...
            raise JournalError(
                f"{self.path}: cannot be used ({error}); check the disk and the folder's rights"
            ) from error
        except (sqlite3.Error, ValueError, TypeError) as error:
            raise JournalError(
                f"{self.path}: damaged ({error}); take a copy from your backup, or start afresh "
                f"with another --state folder"
            ) from error


def read_history(folder: Path) -> list[RoundFacts]:
    """The closed rounds of a state folder, whether or not an aggregator is running on it.

    Raises:
        JournalError: there is no journal, or it cannot be read.
    """
    path = (folder / FILE).resolve()
    try:
        db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
        try:
            return _history(db)
        finally:
            db.close()
    except (sqlite3.Error, ValueError, TypeError) as error:
        raise JournalError(f"{path}: no readable journal ({error}); check the folder") from error


def _history(db: sqlite3.Connection) -> list[RoundFacts]:
    rows = db.execute("SELECT facts FROM models ORDER BY version")
    return [RoundFacts.from_json(facts) for (facts,) in rows]


def _lock(folder: Path) -> int:
    """Keep other aggregators out; the lock ends with the process, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise JournalError(f"{folder}: no usable state folder ({error}); check --state") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise JournalError(
            f"{folder}: another aggregator is using this folder; stop it or take another --state"
        ) from error
    return lock
