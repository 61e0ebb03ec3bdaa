"""What tests write into a journal, and what they read from the file of one."""

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aggregator.history import RoundFacts
from aggregator.journal.journal import Entry
from localfleet.processes import PROJECT
from protocol.spec.spec import Spec
from rounds.learning import Basis, Learning
from rounds.sums import PartialSum

SPEC_FILE = PROJECT / "specs" / "sine.toml"
SPEC = Spec.from_file(SPEC_FILE)
FACTS = RoundFacts(
    round=0,
    loss=0.5,
    support_loss=1.5,
    accuracy=0.75,
    accepted=2,
    late=0,
    invited=3,
    seconds=0.25,
    canary=None,
    canary_loss=None,
    step=3.0,
    empty_deadlines=1,
    rejected={"stale": 4},
    degraded=False,
)


def entry(round_: int, board: str, counted: int | None = None) -> Entry:
    """An update that came for a round and counts in that one, or in another."""
    return Entry(
        round=round_,
        board=board,
        counted=round_ if counted is None else counted,
        nonce=7,
        digest=f"digest of {board}".encode(),
        payload=f"payload of {board}".encode(),
    )


def advanced(learning: Learning, round_: int = 0) -> Learning:
    """Learned from a round with one update."""
    total = PartialSum(SPEC.global_count, weight=1)
    total.changes += range(SPEC.global_count)
    learning.close({Basis(0, is_canary=False): total}, [], round_)
    return learning


class JournalFile:
    """An aggregator's journal, read while it may be in use."""

    def __init__(self, state: Path) -> None:
        self._path = state / "journal.db"

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self._path)
        try:
            yield db
        finally:
            db.close()

    def updates(self) -> list[tuple[int, str]]:
        """Round and board of each."""
        with self._open() as db:
            return list(db.execute("SELECT round, board FROM updates"))

    def payload(self, round_: int, board: str) -> bytes:
        """An update as it came."""
        with self._open() as db:
            (payload,) = db.execute(
                "SELECT payload FROM updates WHERE round = ? AND board = ?", (round_, board)
            ).fetchone()
        assert isinstance(payload, bytes)
        return payload

    def versions(self) -> list[bytes]:
        """The published model after each round."""
        with self._open() as db:
            rows = db.execute("SELECT published FROM versions WHERE version > 0 ORDER BY version")
            return [zlib.decompress(published) for (published,) in rows]
