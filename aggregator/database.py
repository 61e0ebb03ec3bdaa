"""The file of the journal: its tables, how it is opened, and what is said when it cannot be used.

One aggregator at a time writes, which a lock sees to. The write-ahead log with ``synchronous=FULL``
survives a power cut, and lets others read meanwhile. Each commit waits for the disk, which is why
updates are committed in groups.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from aggregator.errors import JournalError, JournalStuckError

FILE: Final = "journal.db"
LOCKED_SECONDS: Final = 1.0
"""How long a call waits for another process to let go of the file."""
APPLICATION: Final = 0x544D466A  # "TMFj": marks the file as one of ours.
SCHEMA_NUMBER: Final = 2
SCHEMA: Final = """
CREATE TABLE lineages (
    id INTEGER PRIMARY KEY, fleet TEXT NOT NULL, identity INTEGER NOT NULL, life INTEGER NOT NULL,
    opened INTEGER NOT NULL, state TEXT NOT NULL, round INTEGER NOT NULL, file TEXT NOT NULL
);
CREATE TABLE plans (
    lineage INTEGER NOT NULL, version INTEGER NOT NULL, spec TEXT NOT NULL,
    PRIMARY KEY (lineage, version)
) WITHOUT ROWID;
CREATE TABLE cohorts (
    lineage INTEGER NOT NULL, round INTEGER NOT NULL, asked_below INTEGER NOT NULL,
    chosen BLOB NOT NULL, asked TEXT NOT NULL, empty_deadlines INTEGER NOT NULL,
    trial INTEGER NOT NULL, share INTEGER NOT NULL, PRIMARY KEY (lineage, round)
) WITHOUT ROWID;
CREATE TABLE updates (
    lineage INTEGER NOT NULL, round INTEGER NOT NULL, board TEXT NOT NULL,
    counted INTEGER NOT NULL, nonce INTEGER NOT NULL, digest BLOB NOT NULL, payload BLOB NOT NULL,
    PRIMARY KEY (lineage, round, board)
);
CREATE INDEX counted ON updates (lineage, counted);
CREATE TABLE versions (
    lineage INTEGER NOT NULL, version INTEGER NOT NULL, made TEXT NOT NULL, origin TEXT NOT NULL,
    role TEXT NOT NULL, facts TEXT, cohort TEXT, published BLOB, fine BLOB, optimizer BLOB,
    delta BLOB,
    PRIMARY KEY (lineage, version)
);
CREATE TABLE boards (
    board TEXT PRIMARY KEY, up INTEGER NOT NULL, up_reported INTEGER NOT NULL,
    down INTEGER NOT NULL, down_reported INTEGER NOT NULL, heard INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE commands (id INTEGER PRIMARY KEY, command TEXT NOT NULL);
"""


class Database:
    """A state folder's file, open for writing.

    Args:
        folder: the state folder; made if it is not there.
        committed: told after each transaction how many seconds it took.

    Raises:
        JournalError: here and in every method: the file cannot be used. Says why and what to do.
    """

    def __init__(self, folder: Path, committed: Callable[[float], None]) -> None:
        self.path = folder / FILE
        self._committed = committed
        self._lock = _lock(folder)
        try:
            with self._explained():
                self._db = sqlite3.connect(self.path, timeout=LOCKED_SECONDS, isolation_level=None)
                try:
                    self._prepare()
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

    def _prepare(self) -> None:
        is_new = _check(self._db, self.path)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        if is_new:
            self._create()
        (found,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)

    def _create(self) -> None:
        with self._transaction() as db:
            db.execute(f"PRAGMA application_id = {APPLICATION}")
            db.execute(f"PRAGMA user_version = {SCHEMA_NUMBER}")
            for statement in SCHEMA.split(";"):
                db.execute(statement)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        began = time.perf_counter()
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite may have rolled back by itself.
                    self._db.execute("ROLLBACK")
                raise
        self._committed(time.perf_counter() - began)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        with explained(self.path):
            yield


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say of SQLite's errors which file it is and what to do.

    Raises:
        JournalError: in place of each.
    """
    try:
        yield
    except sqlite3.OperationalError as error:  # The disk is full, the folder read-only, ...
        # SQLite's plain error means that tables are missing: that does not pass.
        lasts = error.sqlite_errorcode == sqlite3.SQLITE_ERROR
        raise (JournalError if lasts else JournalStuckError)(
            f"{path}: cannot be used ({error}); check the disk and the folder's rights"
        ) from error
    except (sqlite3.Error, ValueError, TypeError) as error:
        raise JournalError(
            f"{path}: damaged ({error}); take a copy from your backup, or start afresh "
            f"with another --state folder"
        ) from error


@contextmanager
def reading(folder: Path) -> Iterator[sqlite3.Connection]:
    """A state folder's file, open for reading only, as it is at this moment.

    An aggregator may be writing meanwhile; what it commits is not seen.

    Raises:
        JournalError: there is no journal, or it cannot be read.
    """
    path = (folder / FILE).resolve()
    if not path.is_file():
        raise JournalError(f"{path}: no such journal; give an aggregator's folder with --state")
    with explained(path):
        db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)
        try:
            db.execute("BEGIN")
            if _check(db, path):
                raise JournalError(f"{path}: empty so far; start the aggregator first")
            yield db
        finally:
            db.close()


def _check(db: sqlite3.Connection, path: Path) -> bool:
    """Whether the file is empty; else it is a journal that this version reads.

    Raises:
        JournalError: it is not.
    """
    application, number, tables = (
        db.execute(question).fetchone()[0]
        for question in (
            "PRAGMA application_id",
            "PRAGMA user_version",
            "SELECT count(*) FROM sqlite_master",
        )
    )
    if tables and application != APPLICATION:
        raise JournalError(f"{path}: not a journal of an aggregator; check --state")
    if tables and number != SCHEMA_NUMBER:
        raise JournalError(
            f"{path}: of schema {number}, and this version reads {SCHEMA_NUMBER}; use "
            f"the version that wrote it, or start afresh with another --state folder"
        )
    return not tables


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
