"""What is remembered of each closed round, and how much the boards have sent and received."""

import json
from array import array
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import NamedTuple

from protocol.messages import Update
from rounds.outcome import RoundOutcome


@dataclass(frozen=True, kw_only=True)
class RoundFacts(RoundOutcome):
    """A closed round: what came of it, and under what circumstances."""

    seconds: float
    """Time that the broker was within reach, from the first announcement to the close."""
    empty_deadlines: int
    """How often its deadline had passed without an update."""
    rejected: dict[str, int]
    """Updates rejected while it was open or waited for, by reason."""
    degraded: bool
    """Whether the broker said meanwhile that it had dropped messages: some may be missing."""
    noise: float | None = None
    """Multiplier of the noise on the sum; None without privacy."""
    epsilon: float | None = None
    """What privacy this round and all before have cost, for the spec's delta."""

    def to_json(self) -> str:
        """As the journal keeps it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "RoundFacts":
        """The inverse of :meth:`to_json`."""
        return cls(**json.loads(text))


class Counters(NamedTuple):
    """One board's traffic in bytes: all of it, and what the board itself reported last."""

    board: str
    up: int = 0
    up_reported: int = 0
    down: int = 0
    down_reported: int = 0


class Traffic:
    """Sums the bytes that boards report.

    A board counts from its start on, so a smaller count than before means that it has restarted:
    what it reported until then is kept.
    """

    def __init__(self, known: Iterable[Counters] = ()) -> None:
        self._places: dict[str, int] = {}
        self._counts = array("Q")  # As Counters, four of each board: objects would take more.
        self.up = 0
        """Bytes that all boards have sent."""
        self.down = 0
        """Bytes that all boards have received."""
        for board, *counts in known:
            self._places[board] = len(self._counts)
            self._counts.extend(counts)
            self.up += counts[0]
            self.down += counts[2]

    def report(self, update: Update) -> None:
        """Take in what an accepted update says."""
        counts = self._counts
        if (at := self._places.get(update.board)) is None:
            at = self._places[update.board] = len(counts)
            counts.extend((0, 0, 0, 0))
        up = _grown(update.bytes_up, counts[at + 1])
        down = _grown(update.bytes_down, counts[at + 3])
        self.up += up
        self.down += down
        counts[at] += up
        counts[at + 1] = update.bytes_up
        counts[at + 2] += down
        counts[at + 3] = update.bytes_down

    def of(self, board: str) -> Counters:
        """A board's counters; it must have reported."""
        at = self._places[board]
        return Counters(board, *self._counts[at : at + 4])


@dataclass(frozen=True)
class Reports:
    """Some boards' counters, again and again; each exists only while it is looked at."""

    traffic: Traffic
    boards: Collection[str]

    def __iter__(self) -> Iterator[Counters]:
        return map(self.traffic.of, self.boards)


def _grown(reported: int, before: int) -> int:
    return reported - before if reported >= before else reported
