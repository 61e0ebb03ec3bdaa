"""A state folder's SQLite file: how it is opened, and what is said when it cannot be used.

One process at a time writes, which a lock sees to. The write-ahead log with ``synchronous=FULL``
survives a power cut, and lets others read meanwhile. Each commit waits for the disk, which is why
writers commit in groups.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from runtime.errors import StateError, StateStuckError

LOCKED_SECONDS: Final = 1.0
"""How long a call waits for another process to let go of the file."""

Migration = Callable[[sqlite3.Connection], None]
"""Brings the tables of one schema number to those of the next, inside a transaction."""


@dataclass(frozen=True, kw_only=True)
class Schema:
    """What a file holds."""

    file: str
    """Its name in the state folder."""
    what: str
    """What messages call it."""
    writer: str
    """What messages call who writes it."""
    application: int
    """Marks the file as one of these: SQLite's ``application_id``, 32 bits."""
    number: int
    """Of the tables below: SQLite's ``user_version``."""
    tables: str
    """Statements that make them."""
    migrations: Mapping[int, Migration] = field(default_factory=dict)
    """By the number that each starts from."""


class Database:
    """A state folder's file, open for writing.

    Args:
        folder: the state folder; made if it is not there.
        schema: what the file holds; one of an earlier number is brought up to date, where there is
            a migration.
        committed: told after each transaction how many seconds it took.

    Raises:
        StateError: here and in every method: the file cannot be used. Says why and what to do.
    """

    def __init__(
        self, folder: Path, schema: Schema, committed: Callable[[float], None] = lambda _: None
    ) -> None:
        self.path = folder / schema.file
        self._schema = schema
        self._committed = committed
        self._lock = _lock(folder, schema)
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
        """Close the file; another process may then open it."""
        with self._explained():
            self._db.close()
        os.close(self._lock)

    def _prepare(self) -> None:
        number = _number(self._db, self.path, self._schema)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        (found,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        if number is None:
            with self._transaction() as db:
                db.execute(f"PRAGMA application_id = {self._schema.application}")
                self._define(db, self._schema.tables)
        elif number != self._schema.number:
            self._migrate(number)

    def _migrate(self, number: int) -> None:
        """Bring older tables up to date; whole, or not at all."""
        with self._transaction() as db:
            while number != self._schema.number:
                if number not in self._schema.migrations:
                    raise StateError(_of_another_schema(self.path, number, self._schema))
                self._schema.migrations[number](db)
                number += 1
            db.execute(f"PRAGMA user_version = {number}")

    def _define(self, db: sqlite3.Connection, tables: str) -> None:
        db.execute(f"PRAGMA user_version = {self._schema.number}")
        for statement in tables.split(";"):
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
        StateError: in place of each.
    """
    try:
        yield
    except sqlite3.OperationalError as error:  # The disk is full, the folder read-only, ...
        # SQLite's plain error means that tables are missing: that does not pass.
        lasts = error.sqlite_errorcode == sqlite3.SQLITE_ERROR
        raise (StateError if lasts else StateStuckError)(
            f"{path}: cannot be used ({error}); check the disk and the folder's rights"
        ) from error
    except (sqlite3.Error, ValueError, TypeError) as error:
        raise StateError(
            f"{path}: damaged ({error}); take a copy from your backup, or start afresh "
            f"with another --state folder"
        ) from error


@contextmanager
def reading(folder: Path, schema: Schema) -> Iterator[sqlite3.Connection]:
    """A state folder's file, open for reading only, as it is at this moment.

    Another process may be writing meanwhile; what it commits is not seen.

    Raises:
        StateError: there is no such file, or it cannot be read.
    """
    path = (folder / schema.file).resolve()
    if not path.is_file():
        raise StateError(
            f"{path}: no such {schema.what}; give the {schema.writer}'s folder with --state"
        )
    with explained(path):
        db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)
        try:
            db.execute("BEGIN")
            number = _number(db, path, schema)
            if number is None:
                raise StateError(f"{path}: empty so far; start the {schema.writer} first")
            if number in schema.migrations:
                raise StateError(
                    f"{path}: of schema {number}; this version's {schema.writer} brings it up to "
                    f"date when it is started"
                )
            if number != schema.number:
                raise StateError(_of_another_schema(path, number, schema))
            yield db
        finally:
            db.close()


def _number(db: sqlite3.Connection, path: Path, schema: Schema) -> int | None:
    """The number of a file's tables; None where there are none.

    Raises:
        StateError: it is something else's file.
    """
    application, number, tables = (
        db.execute(question).fetchone()[0]
        for question in (
            "PRAGMA application_id",
            "PRAGMA user_version",
            "SELECT count(*) FROM sqlite_master",
        )
    )
    if tables and application != schema.application:
        raise StateError(f"{path}: not a {schema.what} of an {schema.writer}; check --state")
    return int(number) if tables else None


def _of_another_schema(path: Path, number: int, schema: Schema) -> str:
    return (
        f"{path}: of schema {number}, and this version reads {schema.number}; use "
        f"the version that wrote it, or start afresh with another --state folder"
    )


def _lock(folder: Path, schema: Schema) -> int:
    """Keep other writers out; the lock ends with the process, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StateError(f"{folder}: no usable state folder ({error}); check --state") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise StateError(
            f"{folder}: another {schema.writer} is using this folder; stop it or take another "
            f"--state"
        ) from error
    return lock
