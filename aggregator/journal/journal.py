"""What survives a crash: what a running aggregator writes down and reads again.

An update is acknowledged to its board only after it is committed here, and a round is closed in the
same transaction that stores the model made of it. So wherever the process is killed, the journal is
as it was before a step or after it, never in between, and the sums can be made again from it.

A lineage is the life of a model: a spec with another model, or a state folder made anew, begins
another one, drawn at random, so that no board ever mixes two. What is old is compacted as rounds
close: updates after ``keep_rounds`` rounds, weights after ``keep_versions`` versions.
"""

import json
import secrets
import zlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

import numpy as np

from aggregator.history import Counters, RoundFacts
from aggregator.journal.reader import JournalReader
from protocol.spec.spec import Spec
from rounds.core import Announce, State, UpdateKey
from rounds.learning import NO_CANARY, CanaryGroup, Learning, Verdict, Version
from rounds.model import PUBLISHED_TYPE, GlobalModel
from runtime.errors import StateError, StateStuckError


class Entry(NamedTuple):
    """An update as the journal keeps it."""

    round: int
    board: str
    counted: int
    """The round whose sum it goes into."""
    nonce: int
    digest: bytes
    payload: bytes


def _give_up(error: StateStuckError) -> None:
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
            except StateStuckError as error:
                self.when_stuck(error)
                is_stuck = True
            else:
                if is_stuck:
                    self.when_freed()
                return result

    return persistently


class Journal(JournalReader):
    """The journal of one fleet, open for one aggregator.

    Args:
        folder: the state folder; made if it is not there.
        keep_rounds: whose updates are kept.
        keep_versions: of the model whose weights are kept.
        committed: told after each transaction how many seconds it took.

    Raises:
        StateError: here and in every method: the file cannot be used. Says why and what to do.
            A :class:`StateStuckError` where a later try may succeed.
    """

    def __init__(
        self,
        folder: Path,
        keep_rounds: int = 100,
        keep_versions: int = 1000,
        committed: Callable[[float], None] = lambda _: None,
    ) -> None:
        super().__init__(folder, committed)
        self.when_stuck: Callable[[StateStuckError], None] = _give_up
        """Told when a write cannot be done for now; it is tried again unless this raises."""
        self.when_freed: Callable[[], None] = lambda: None
        """Told when it could be done after all."""
        self._keep_rounds = keep_rounds
        self._keep_versions = keep_versions

    # --- The fleet and its lineages --------------------------------------------------------------

    def start(self, spec: Spec) -> Spec:
        """Open the fleet that a spec's file describes; the spec in force.

        That is the file's, unless a command has replaced it since the file was last changed.

        Raises:
            StateError: the journal is another fleet's.
        """
        with self._explained():
            row = self._db.execute(
                "SELECT id, fleet, file, incarnation FROM lineages ORDER BY opened DESC LIMIT 1"
            ).fetchone()
            if row is not None:
                self._lineage, fleet, file, incarnation = row
                if fleet != spec.fleet:
                    raise StateError(
                        f"{self.path}: holds fleet {fleet!r}, but the spec is of fleet "
                        f"{spec.fleet!r}; take the right spec, or another --state folder"
                    )
                if file == spec.model_dump_json():
                    return self._plan().with_incarnation(incarnation)
        return self.adopt(spec, from_file=True)

    @_persistent
    def adopt(self, spec: Spec, *, from_file: bool = False) -> Spec:
        """Put a spec in force; it, in the incarnation of its lineage.

        A spec with the latest lineage's model goes on with its weights, one with an earlier
        lineage's returns to those, and any other begins a lineage.
        """
        text = spec.model_dump_json()
        with self._transaction() as db:
            row = db.execute(
                "SELECT id, incarnation FROM lineages WHERE identity = ? "
                "ORDER BY opened DESC LIMIT 1",
                (spec.lineage,),
            ).fetchone()
            file = text if from_file else self._file()
            if row is None:
                incarnation = secrets.randbits(32) | 1  # 0 means none.
                db.execute(
                    "INSERT INTO lineages "
                    "(fleet, identity, incarnation, opened, state, round, file) "
                    "VALUES (?, ?, ?, 0, ?, 0, ?)",
                    (spec.fleet, spec.lineage, incarnation, State.GATHERING.value, file),
                )
                (self._lineage,) = db.execute("SELECT last_insert_rowid()").fetchone()
                self._insert("start", Version(GlobalModel(spec)), None, None)
                self._roles(Learning(spec, Version(GlobalModel(spec))))
            else:
                self._lineage, incarnation = row
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
        return spec.with_incarnation(incarnation)

    # --- Writing: each call is one transaction ---------------------------------------------------

    @_persistent
    def append(self, entries: Iterable[Entry]) -> None:
        """Commit a group of updates; on return they are on the disk."""
        rows = ((self._lineage, *entry) for entry in entries)
        with self._transaction() as db:
            db.executemany("INSERT INTO updates VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    @_persistent
    def announce(self, announced: Announce, canary: CanaryGroup = NO_CANARY) -> None:
        """Note the open round as it is announced, for the first time or again."""
        with self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO cohorts VALUES (:lineage, :round, :ticket_limit, :chosen, "
                ":invited, :empty_deadlines, :canary_version, :canary_share)",
                {
                    "lineage": self._lineage,
                    "round": announced.round,
                    "ticket_limit": announced.ticket_limit,
                    "chosen": announced.chosen,
                    "invited": json.dumps(sorted(announced.invited)),
                    "empty_deadlines": announced.empty_deadlines,
                    "canary_version": canary.version,
                    "canary_share": canary.share,
                },
            )

    @_persistent
    def close_round(
        self,
        learning: Learning,
        facts: RoundFacts,
        counted: Iterable[UpdateKey],
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
            if facts.canary == Verdict.ROLLED_BACK.value:
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
        # Of the latest opened, not of _lineage: a try that was rolled back may have changed that.
        (text,) = self._db.execute(
            "SELECT file FROM lineages ORDER BY opened DESC LIMIT 1"
        ).fetchone()
        return str(text)

    def _insert(self, origin: str, version: Version, facts: str | None, cohort: str | None) -> None:
        model = version.model
        self._db.execute(
            "INSERT INTO versions VALUES (:lineage, :version, :made, :origin, '', :facts, :cohort, "
            ":published, :fine, :optimizer, :delta)",
            {
                "lineage": self._lineage,
                "version": model.version,
                "made": datetime.now(UTC).isoformat(timespec="seconds"),
                "origin": origin,
                "facts": facts,
                "cohort": cohort,
                "published": zlib.compress(np.asarray(model.published, PUBLISHED_TYPE).tobytes()),
                "fine": model.fine.tobytes(),
                "optimizer": model.optimizer_state,
                "delta": version.delta,
            },
        )

    def _roles(self, learning: Learning) -> None:
        """Mark the live versions, and forget what only a live version needs."""
        canary = learning.canary.model.version if learning.canary else None
        live = (learning.stable.model.version, canary)
        self._db.execute(
            "UPDATE versions SET role = 'past', fine = NULL, optimizer = NULL, delta = NULL "
            "WHERE role NOT IN ('past', 'rolled back') "
            "AND lineage = ? AND version != ? AND version IS NOT ?",
            (self._lineage, *live),
        )
        for role, version in zip(("stable", "canary"), live, strict=True):
            self._db.execute(
                "UPDATE versions SET role = ? WHERE lineage = ? AND version = ?",
                (role, self._lineage, version),
            )

    def _take_back(self) -> None:
        self._db.execute(
            "UPDATE versions SET role = 'rolled back', fine = NULL, optimizer = NULL, delta = NULL "
            "WHERE lineage = ? AND role = 'canary'",
            (self._lineage,),
        )

    def _compact(self, round_: int, newest: int) -> None:
        old = (self._lineage, round_ - self._keep_rounds)
        self._db.execute("DELETE FROM cohorts WHERE lineage = ? AND round < ?", old)
        self._db.execute("DELETE FROM updates WHERE lineage = ? AND round < ?", old)
        self._db.execute(
            "UPDATE versions SET published = NULL, cohort = NULL "
            "WHERE lineage = ? AND version = ? AND role IN ('past', 'rolled back')",
            (self._lineage, newest - self._keep_versions),
        )
