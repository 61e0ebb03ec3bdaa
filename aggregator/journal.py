"""What survives a crash: one SQLite file in the state folder.

An update is acknowledged to its board only after it is committed here, and a round is closed in the
same transaction that stores the model made of it. So wherever the process is killed, the journal is
as it was before a step or after it, never in between, and the sums can be made again from it.

The write-ahead log with ``synchronous=FULL`` survives a power cut, too. Each commit waits for the
disk, which is why updates are committed in groups.

A lineage is the life of a model: a spec with another model, or a state folder made anew, begins
another one, drawn at random, so that no board ever mixes two. What is old is compacted as rounds
close: updates after ``keep_rounds`` rounds, weights after ``keep_versions`` versions.
"""

import fcntl
import json
import os
import secrets
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Concatenate, Final, NamedTuple, ParamSpec, TypeVar

import numpy as np

from aggregator.errors import JournalError, JournalStuckError
from aggregator.history import Counters, RoundFacts
from protocol.spec import Spec
from rounds.cohort import Cohort, Known
from rounds.core import Announce, Counted, Resumed, State
from rounds.learning import NO_TRIAL, Learning, Trial, Verdict, Version
from rounds.model import PUBLISHED_TYPE, GlobalModel

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
    role TEXT NOT NULL, facts TEXT, cohort TEXT, published BLOB, fine BLOB, delta BLOB,
    PRIMARY KEY (lineage, version)
);
CREATE TABLE boards (
    board TEXT PRIMARY KEY, up INTEGER NOT NULL, up_reported INTEGER NOT NULL,
    down INTEGER NOT NULL, down_reported INTEGER NOT NULL, heard INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE commands (id INTEGER PRIMARY KEY, command TEXT NOT NULL);
"""


class Entry(NamedTuple):
    """An update as the journal keeps it."""

    round: int
    board: str
    counted: int
    """The round whose sum it goes into."""
    nonce: int
    digest: bytes
    payload: bytes


class Late(NamedTuple):
    """What a restart must know of the rounds whose updates may still come."""

    resumed: Resumed
    trials: dict[int, Trial]
    """By round: who tried out which version."""


def _give_up(error: JournalStuckError) -> None:
    raise error


Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def _persistent(
    write: Callable[Concatenate["Journal", Arguments], Result],
) -> Callable[Concatenate["Journal", Arguments], Result]:
    """A write that is tried until it is done, or :attr:`Journal.when_stuck` gives up."""

    @wraps(write)
    def persistently(
        self: "Journal", /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        is_stuck = False
        while True:
            try:
                result = write(self, *args, **kwargs)
            except JournalStuckError as error:
                self.when_stuck(error)
                is_stuck = True
            else:
                if is_stuck:
                    self.when_freed()
                return result

    return persistently


class Journal:
    """The journal of one fleet, open for one aggregator.

    Args:
        folder: the state folder; made if it is not there.
        keep_rounds: whose updates are kept.
        keep_versions: of the model whose weights are kept.
        committed: told after each transaction how many seconds it took.

    Raises:
        JournalError: here and in every method: the file cannot be used. Says why and what to do.
            A :class:`JournalStuckError` where a later try may succeed.
    """

    def __init__(
        self,
        folder: Path,
        keep_rounds: int = 100,
        keep_versions: int = 1000,
        committed: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.path = folder / FILE
        self._committed = committed
        self.when_stuck: Callable[[JournalStuckError], None] = _give_up
        """Told when a write cannot be done for now; it is tried again unless this raises."""
        self.when_freed: Callable[[], None] = lambda: None
        """Told when it could be done after all."""
        self._keep_rounds = keep_rounds
        self._keep_versions = keep_versions
        self._lineage = 0  # Of the table lineages; the latest opened.
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

    # --- The fleet and its lineages --------------------------------------------------------------

    def start(self, spec: Spec) -> Spec:
        """Open the fleet that a spec's file describes; the spec in force.

        That is the file's, unless a command has replaced it since the file was last changed.

        Raises:
            JournalError: the journal is another fleet's.
        """
        with self._explained():
            row = self._db.execute(
                "SELECT id, fleet, file, life FROM lineages ORDER BY opened DESC LIMIT 1"
            ).fetchone()
            if row is not None:
                self._lineage, fleet, file, life = row
                if fleet != spec.fleet:
                    raise JournalError(
                        f"{self.path}: holds fleet {fleet!r}, but the spec is of fleet "
                        f"{spec.fleet!r}; take the right spec, or another --state folder"
                    )
                if file == spec.model_dump_json():
                    return self._plan().in_life(life)
        return self.adopt(spec, from_file=True)

    @_persistent
    def adopt(self, spec: Spec, *, from_file: bool = False) -> Spec:
        """Put a spec in force; it, in the life of its lineage.

        A spec with the latest lineage's model goes on with its weights, one with an earlier
        lineage's returns to those, and any other begins a lineage.
        """
        text = spec.model_dump_json()
        with self._transaction() as db:
            row = db.execute(
                "SELECT id, life FROM lineages WHERE identity = ? ORDER BY opened DESC LIMIT 1",
                (spec.lineage,),
            ).fetchone()
            file = text if from_file else self._file()
            if row is None:
                life = secrets.randbits(32) | 1  # 0 means none.
                db.execute(
                    "INSERT INTO lineages (fleet, identity, life, opened, state, round, file) "
                    "VALUES (?, ?, ?, 0, ?, 0, ?)",
                    (spec.fleet, spec.lineage, life, State.GATHERING.value, file),
                )
                (self._lineage,) = db.execute("SELECT last_insert_rowid()").fetchone()
                self._insert("start", Version(GlobalModel(spec)), None, None)
                self._roles(Learning(spec, Version(GlobalModel(spec))))
            else:
                self._lineage, life = row
            db.execute(
                "UPDATE lineages SET file = ?, opened = (SELECT max(opened) + 1 FROM lineages) "
                "WHERE id = ?",
                (file, self._lineage),
            )
            (version,) = db.execute(
                "SELECT max(version) FROM versions WHERE lineage = ?", (self._lineage,)
            ).fetchone()
            db.execute(
                "INSERT OR REPLACE INTO plans VALUES (?, ?, ?)", (self._lineage, version, text)
            )
            db.execute("DELETE FROM cohorts WHERE lineage != ?", (self._lineage,))
            db.execute("DELETE FROM updates WHERE lineage != ?", (self._lineage,))
        return spec.in_life(life)

    def position(self) -> tuple[int, State]:
        """How many rounds are over, and what an operator has said of the others."""
        with self._explained():
            round_, state = self._db.execute(
                "SELECT round, state FROM lineages WHERE id = ?", (self._lineage,)
            ).fetchone()
            return round_, State(state)

    def learning(self, spec: Spec) -> Learning:
        """The live versions."""
        with self._explained():
            rows = self._db.execute(
                "SELECT role, version, fine, published, delta FROM versions "
                "WHERE lineage = ? AND role IN ('stable', 'trial')",
                (self._lineage,),
            )
            found = {
                role: Version(
                    GlobalModel.restore(spec, version, fine, zlib.decompress(published)), delta
                )
                for role, version, fine, published, delta in rows
            }
            if "stable" not in found:
                raise sqlite3.DatabaseError("it has no model")
            return Learning(spec, found["stable"], found.get("trial"))

    def late(self, round_: int, oldest: int, state: State) -> Late:
        """The open round, and those before it whose updates may be up to ``oldest`` late."""
        with self._explained():
            cohorts: dict[int, Cohort] = {}
            trials: dict[int, Trial] = {}
            rows = self._db.execute(
                "SELECT round, asked_below, chosen, asked, empty_deadlines, trial, share "
                "FROM cohorts WHERE lineage = ? AND round BETWEEN ? AND ?",
                (self._lineage, round_ - oldest, round_),
            )
            for number, below, chosen, asked, empty_deadlines, trial, share in rows:
                answered = self._db.execute(
                    "SELECT board, digest FROM updates WHERE lineage = ? AND round = ?",
                    (self._lineage, number),
                )
                boards = set(json.loads(asked))
                cohort = Cohort(below, chosen, boards, empty_deadlines, dict(answered))
                cohort.asked |= cohort.answered.keys()
                cohorts[number] = cohort
                trials[number] = Trial(trial, share)
            counted = self._db.execute(
                "SELECT round, board FROM updates WHERE lineage = ? AND counted = ?",
                (self._lineage, round_),
            )
            return Late(Resumed(state, cohorts, [Counted(*row) for row in counted]), trials)

    def known(self) -> Known:
        """What is known of boards."""
        with self._explained():
            return Known(heard=dict(self._db.execute("SELECT board, heard FROM boards")))

    def payloads(self, round_: int) -> list[tuple[int, bytes]]:
        """The updates that count in a round, as they came, each with the round that it is for."""
        with self._explained():
            return self._db.execute(
                "SELECT round, payload FROM updates WHERE lineage = ? AND counted = ?",
                (self._lineage, round_),
            ).fetchall()

    def digest(self, round_: int, board: str) -> bytes | None:
        """Of the update of this board for this round; None if there is none, or none any more."""
        with self._explained():
            row = self._db.execute(
                "SELECT digest FROM updates WHERE lineage = ? AND round = ? AND board = ?",
                (self._lineage, round_, board),
            ).fetchone()
            return row[0] if row else None

    def traffic(self) -> list[Counters]:
        """Every board's counters when the last round was closed."""
        with self._explained():
            return [Counters(*row[:5]) for row in self._db.execute("SELECT * FROM boards")]

    def history(self) -> list[RoundFacts]:
        """The closed rounds of this lineage, in order."""
        with self._explained():
            return _history(self._db)

    def weights(self, version: int) -> bytes | None:
        """The published weights of a version, int16 little endian; None if they are not kept."""
        with self._explained():
            row = self._db.execute(
                "SELECT published FROM versions WHERE lineage = ? AND version = ?",
                (self._lineage, version),
            ).fetchone()
            return zlib.decompress(row[0]) if row and row[0] else None

    # --- Writing: each call is one transaction ---------------------------------------------------

    @_persistent
    def append(self, entries: Iterable[Entry]) -> None:
        """Commit a group of updates; on return they are on the disk."""
        rows = ((self._lineage, *entry) for entry in entries)
        with self._transaction() as db:
            db.executemany("INSERT INTO updates VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    @_persistent
    def announce(self, announced: Announce, trial: Trial = NO_TRIAL) -> None:
        """Note the open round as it is announced, for the first time or again."""
        asked = json.dumps(sorted(announced.asked))
        with self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO cohorts VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(self._lineage, announced.round, announced.limit, announced.chosen, asked),
                    *(announced.empty_deadlines, trial.version, trial.share),
                ),
            )

    @_persistent
    def close_round(
        self,
        learning: Learning,
        facts: RoundFacts,
        counted: Iterable[Counted],
        traffic: Iterable[Counters],
    ) -> None:
        """Close a round: store the version that came of it, and what is known of the round.

        Args:
            learning: already at the new version.
            facts: about the round.
            counted: the updates in the version.
            traffic: counters of the boards that they are from.
        """
        boards = json.dumps(sorted(board for _, board in counted))
        rows = ((*counters, facts.round) for counters in traffic)
        round_ = facts.round + 1
        with self._transaction() as db:
            if facts.trial == Verdict.TAKEN_BACK.value:
                self._take_back()
            self._insert(f"round {facts.round}", learning.newest, facts.to_json(), boards)
            self._roles(learning)
            db.executemany("INSERT OR REPLACE INTO boards VALUES (?, ?, ?, ?, ?, ?)", rows)
            db.execute("UPDATE lineages SET round = ? WHERE id = ?", (round_, self._lineage))
            self._compact(round_, learning.newest.model.version)

    @_persistent
    def replace(self, learning: Learning, origin: str) -> None:
        """Store a version that no round has made; ``origin`` says what has."""
        with self._transaction():
            self._insert(origin, learning.newest, None, None)
            self._roles(learning)

    @_persistent
    def set_state(self, state: State) -> None:
        """Note what an operator has said of the rounds to come."""
        with self._transaction() as db:
            db.execute("UPDATE lineages SET state = ? WHERE id = ?", (state.value, self._lineage))

    @_persistent
    def enqueue(self, command: str) -> None:
        """Note a command that cannot be carried out yet."""
        with self._transaction() as db:
            db.execute("INSERT INTO commands (command) VALUES (?)", (command,))

    def commands(self) -> list[tuple[int, str]]:
        """Commands to be carried out, in order, each with its number."""
        with self._explained():
            return self._db.execute("SELECT id, command FROM commands ORDER BY id").fetchall()

    @_persistent
    def dequeue(self, number: int) -> None:
        """Forget a command that was carried out."""
        with self._transaction() as db:
            db.execute("DELETE FROM commands WHERE id = ?", (number,))

    # --- Inside ----------------------------------------------------------------------------------

    def _plan(self) -> Spec:
        (text,) = self._db.execute(
            "SELECT spec FROM plans WHERE lineage = ? ORDER BY version DESC LIMIT 1",
            (self._lineage,),
        ).fetchone()
        return Spec.model_validate_json(text)

    def _file(self) -> str:
        (text,) = self._db.execute(
            "SELECT file FROM lineages WHERE id = ?", (self._lineage,)
        ).fetchone()
        return str(text)

    def _insert(self, origin: str, version: Version, facts: str | None, cohort: str | None) -> None:
        model = version.model
        published = zlib.compress(np.asarray(model.published, PUBLISHED_TYPE).tobytes())
        made = datetime.now(UTC).isoformat(timespec="seconds")
        self._db.execute(
            "INSERT INTO versions VALUES (?, ?, ?, ?, '', ?, ?, ?, ?, ?)",
            (
                *(self._lineage, model.version, made, origin, facts, cohort, published),
                *(model.fine.tobytes(), version.delta),
            ),
        )

    def _roles(self, learning: Learning) -> None:
        """Mark the live versions, and forget what only a live version needs."""
        trial = learning.trial.model.version if learning.trial else None
        live = (learning.stable.model.version, trial)
        self._db.execute(
            "UPDATE versions SET role = 'past', fine = NULL, delta = NULL WHERE lineage = ? "
            "AND role IN ('stable', 'trial') AND version NOT IN (?, ifnull(?, -1))",
            (self._lineage, *live),
        )
        for role, version in zip(("stable", "trial"), live, strict=True):
            self._db.execute(
                "UPDATE versions SET role = ? WHERE lineage = ? AND version = ?",
                (role, self._lineage, version),
            )

    def _take_back(self) -> None:
        self._db.execute(
            "UPDATE versions SET role = 'taken back', fine = NULL, delta = NULL "
            "WHERE lineage = ? AND role = 'trial'",
            (self._lineage,),
        )

    def _compact(self, round_: int, newest: int) -> None:
        old = (self._lineage, round_ - self._keep_rounds)
        self._db.execute("DELETE FROM cohorts WHERE lineage = ? AND round < ?", old)
        self._db.execute("DELETE FROM updates WHERE lineage = ? AND round < ?", old)
        self._db.execute(
            "UPDATE versions SET published = NULL, cohort = NULL "
            "WHERE lineage = ? AND version = ? AND role IN ('past', 'taken back')",
            (self._lineage, newest - self._keep_versions),
        )

    def _prepare(self) -> None:
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
        try:
            yield
        except sqlite3.OperationalError as error:  # The disk is full, the folder read-only, ...
            # SQLite's plain error means that tables are missing: that does not pass.
            lasts = error.sqlite_errorcode == sqlite3.SQLITE_ERROR
            raise (JournalError if lasts else JournalStuckError)(
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
    rows = db.execute(
        "SELECT facts FROM versions WHERE facts IS NOT NULL AND lineage = "
        "(SELECT id FROM lineages ORDER BY opened DESC LIMIT 1) ORDER BY version"
    )
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
