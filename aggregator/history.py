"""What is remembered of each closed round, and how much the boards have sent and received."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import NamedTuple

from protocol.messages import Update


@dataclass(frozen=True)
class RoundFacts:
    """A closed round."""

    round: int
    loss: float
    """Mean squared error of the query samples, each measured before it was learned from."""
    support_loss: float
    """The same of the support samples."""
    accuracy: float | None
    """Share of the query samples whose class was told before it was learned from; of classes."""
    accepted: int
    """Updates in the version."""
    late: int
    """Those among them that were for an earlier round."""
    asked: int
    """Boards known to have been asked."""
    seconds: float
    """Time that the broker was within reach, from the first announcement to the close."""
    trial: str | None
    """What the round said of the version on trial: promoted, taken back or undecided."""
    loss_on_trial: float | None
    """Like ``loss``, of the boards that tried it out alone."""
    step: float
    """How many times the mean of the changes the model went."""
    empty_deadlines: int
    refused: dict[str, int]
    """Messages refused while it was open or waited for, by reason."""
    degraded: bool
    """Whether the broker said meanwhile that it had dropped messages: some may be missing."""
    note: str = ""
    """What the rule that combined the updates has to say: whom it left out, why it did not move."""
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
        self._boards = {counters.board: counters for counters in known}
        self.up = sum(counters.up for counters in self._boards.values())
        """Bytes that all boards have sent."""
        self.down = sum(counters.down for counters in self._boards.values())
        """Bytes that all boards have received."""

    def report(self, update: Update) -> None:
        """Take in what an accepted update says."""
        old = self._boards.get(update.board, Counters(update.board))
        up = _grown(update.bytes_up, old.up_reported)
        down = _grown(update.bytes_down, old.down_reported)
        self.up += up
        self.down += down
        self._boards[update.board] = Counters(
            update.board, old.up + up, update.bytes_up, old.down + down, update.bytes_down
        )

    def of(self, boards: Iterable[str]) -> list[Counters]:
        """These boards' counters; they must have reported."""
        return [self._boards[board] for board in boards]


def _grown(reported: int, before: int) -> int:
    return reported - before if reported >= before else reported
