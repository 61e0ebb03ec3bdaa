"""What a started aggregator reads in its journal, to go on where it was."""

import json
import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from aggregator.history import Counters, RoundFacts
from aggregator.journal.schema import JOURNAL
from protocol.spec.spec import Spec
from rounds.cohort import BoardFacts, Cohort
from rounds.core import ResumePoint, State, UpdateKey
from rounds.learning import CanaryGroup, Learning, Version
from rounds.model import GlobalModel
from runtime.database import Database


class OpenRounds(NamedTuple):
    """What a restart must know of the rounds whose updates may still come."""

    resumed: ResumePoint
    canaries: dict[int, CanaryGroup]
    """By round: who tried out which version."""


class JournalReader(Database):
    """The journal's memory of the lineage in force.

    Args:
        folder: the state folder; made if it is not there.
        committed: told after each transaction how many seconds it took.

    Raises:
        StateError: here and in every method: the file cannot be used. Says why and what to do.
    """

    def __init__(self, folder: Path, committed: Callable[[float], None]) -> None:
        super().__init__(folder, JOURNAL, committed)
        self._lineage = 0  # Of the table lineages; the latest opened.

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
                "SELECT role, version, fine, published, optimizer, delta FROM versions "
                "WHERE lineage = ? AND role IN ('stable', 'canary')",
                (self._lineage,),
            )
            found = {
                role: Version(
                    GlobalModel.restore(spec, version, fine, zlib.decompress(published), optimizer),
                    delta,
                )
                for role, version, fine, published, optimizer, delta in rows
            }
            if "stable" not in found:
                raise sqlite3.DatabaseError("it has no model")
            return Learning(spec, found["stable"], found.get("canary"))

    def late(self, round_: int, oldest: int, state: State) -> OpenRounds:
        """The open round, and those before it whose updates may be up to ``oldest`` late."""
        with self._explained():
            cohorts: dict[int, Cohort] = {}
            canaries: dict[int, CanaryGroup] = {}
            rows = self._db.execute(
                "SELECT round, ticket_limit, chosen, invited, empty_deadlines, canary_version, "
                "canary_share FROM cohorts WHERE lineage = ? AND round BETWEEN ? AND ?",
                (self._lineage, round_ - oldest, round_),
            )
            for number, below, chosen, invited, empty_deadlines, canary, share in rows:
                answered = self._db.execute(
                    "SELECT board, digest FROM updates WHERE lineage = ? AND round = ?",
                    (self._lineage, number),
                )
                boards = set(json.loads(invited))
                cohort = Cohort(below, chosen, boards, empty_deadlines, dict(answered))
                cohort.invited |= cohort.answered.keys()
                cohorts[number] = cohort
                canaries[number] = CanaryGroup(canary, share)
            counted = self._db.execute(
                "SELECT round, board FROM updates WHERE lineage = ? AND counted = ?",
                (self._lineage, round_),
            )
            return OpenRounds(
                ResumePoint(state, cohorts, [UpdateKey(*row) for row in counted]), canaries
            )

    def known(self) -> BoardFacts:
        """What is known of boards."""
        with self._explained():
            return BoardFacts(
                last_seen=dict(self._db.execute("SELECT board, last_seen FROM boards"))
            )

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
            rows = self._db.execute(
                "SELECT facts FROM versions WHERE lineage = ? AND facts IS NOT NULL "
                "ORDER BY version",
                (self._lineage,),
            )
            return [RoundFacts.from_json(facts) for (facts,) in rows]

    def weights(self, version: int) -> bytes | None:
        """The published weights of a version, int16 little endian; None if they are not kept."""
        with self._explained():
            row = self._db.execute(
                "SELECT published FROM versions WHERE lineage = ? AND version = ?",
                (self._lineage, version),
            ).fetchone()
            return zlib.decompress(row[0]) if row and row[0] else None

    def commands(self) -> list[tuple[int, str]]:
        """Commands to be carried out, in order, each with its number."""
        with self._explained():
            return self._db.execute("SELECT id, command FROM commands ORDER BY id").fetchall()
