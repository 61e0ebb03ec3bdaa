"""The life of a fleet's rounds. No I/O and no clock: events in, decisions out.

The whole life is the table below. Everything that changes the state lives in this file::

    GATHERING   --ENOUGH-------> COLLECTING    announce the round
    COLLECTING  --ANSWERED-----> GATHERING     close it: the next round opens in the same tick
    COLLECTING  --UNANSWERED---> GATHERING     nobody answered in time: announce it again, to more
    COLLECTING  --LAST---------> DONE          close the last round

After a round the fleet has gathered already, so GATHERING ends at once where any board is awake; a
fleet is seen in that state only before its first round and when no board is awake.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from math import inf
from typing import Final

from protocol.cohort import is_asked, limit_for
from protocol.spec import Rounds


class State(Enum):
    """What a fleet is doing; the values are words of the progress topic."""

    GATHERING = "gathering"
    """Waits until a cohort is awake, or one deadline after the first board awoke."""
    COLLECTING = "collecting"
    """A round is announced and updates come in."""
    DONE = "done"
    """Every round of the spec is over."""


class Event(Enum):
    """What moves a fleet from one state to another."""

    ENOUGH = auto()
    """A cohort is awake, or those who are have waited long enough."""
    ANSWERED = auto()
    """The round has the updates that close it, or some and nothing more to wait for."""
    UNANSWERED = auto()
    """The round's deadline passed without an update."""
    LAST = auto()
    """As ANSWERED, in the last round."""


TRANSITIONS: Final[Mapping[State, Mapping[Event, State]]] = {
    State.GATHERING: {Event.ENOUGH: State.COLLECTING},
    State.COLLECTING: {
        Event.ANSWERED: State.GATHERING,
        Event.UNANSWERED: State.GATHERING,
        Event.LAST: State.DONE,
    },
    State.DONE: {},
}


class Refusal(Enum):
    """Why an update is not counted; the values are words of the progress and event topics."""

    OVERSIZE = "oversize"
    """Longer than any message of a fleet."""
    GARBLED = "garbled"
    """Not an update message, or one that no board with this plan would send."""
    IDENTITY = "identity"
    """Its topic belongs to another board."""
    LINEAGE = "lineage"
    """For another model."""
    STALE = "stale"
    """For a round that is over."""
    FUTURE = "future"
    """For a round that is still to come."""
    UNINVITED = "uninvited"
    """From a board that the round does not ask."""
    DUPLICATE = "duplicate"
    """The very update that is journaled already: harmless, its receipt is sent again."""
    CONFLICT = "conflict"
    """Another update of a board whose update is journaled already: the first one counts."""
    SPARSE = "sparse"
    """Its changes cannot be read, or are more than the plan allows."""


@dataclass(frozen=True)
class Announce:
    """Decision: announce this round, also where it was announced before."""

    round: int
    limit: int
    """It asks the boards whose tickets lie below."""
    asked: frozenset[str]
    """The awake boards among them."""
    empty_deadlines: int
    """How often this round's deadline has passed without an update."""


@dataclass(frozen=True)
class Close:
    """Decision: aggregate the updates of this round and publish the next model version."""

    round: int
    asked: int
    """Boards known to have been asked."""
    answered: frozenset[str]
    """Boards whose updates to aggregate, at least one."""
    empty_deadlines: int
    seconds: float
    """Since it was first announced, or since a restart that found it open."""


Decision = Announce | Close


@dataclass(frozen=True)
class OpenRound:
    """What a restarted aggregator knows of the round that was open."""

    limit: int
    asked: frozenset[str]
    empty_deadlines: int
    answered: Mapping[str, bytes] = field(default_factory=dict)
    """The boards whose updates are journaled, each with its update's digest."""


class RoundCore:
    """A fleet's rounds: tell it what happened, then ask :meth:`tick` what to do.

    Args:
        rounds: the spec's rules.
        round_: rounds that are over; the first round is round 0.
        resumed: the round that a restart found open. It stays open with the limit it had.
        now: seconds on the caller's clock, as in :meth:`tick`.
    """

    def __init__(
        self, rounds: Rounds, round_: int = 0, resumed: OpenRound | None = None, now: float = 0.0
    ) -> None:
        self.state = State.GATHERING if round_ < rounds.count else State.DONE
        self.round = round_
        """The open round, or the next one; in DONE, the number of rounds that there were."""
        self.limit: int | None = None
        """The round asks boards with tickets below it; None until it is announced."""
        self.awake: set[str] = set()
        self.asked: set[str] = set()
        """Boards known to have been asked in this round."""
        self.answered: dict[str, bytes] = {}
        """Boards whose updates are journaled, each with its update's digest."""
        self.empty_deadlines = 0
        """How often this round's deadline has passed without an update."""
        self._waiting: set[str] = set()  # Asked, not answered, and not lost since.
        self._rules = rounds
        self._gathered_at: float | None = None  # At the latest; None while nobody is awake.
        self._announced_at = now  # First.
        self._ends_at = inf
        if resumed is not None and self.state is State.GATHERING:
            self.state = State.COLLECTING
            self.limit = resumed.limit
            self.answered = dict(resumed.answered)
            self.asked = set(resumed.asked) | set(self.answered)
            self._waiting = self.asked - self.answered.keys()
            self.empty_deadlines = resumed.empty_deadlines
            self._ends_at = now + rounds.deadline

    # --- Events ----------------------------------------------------------------------------------

    def board_awake(self, board: str) -> None:
        """A board is there. If its ticket lies below the open round's limit, it is in the round."""
        self.awake.add(board)
        if self.state is State.COLLECTING and self._asks(board):
            self.asked.add(board)
            if board not in self.answered:
                self._waiting.add(board)

    def board_lost(self, board: str) -> None:
        """A board sleeps or is gone: it is not waited for. Should it still answer, that counts."""
        self.awake.discard(board)
        self._waiting.discard(board)

    def verdict(
        self, round_: int, board: str, digest: bytes, first: bytes | None = None
    ) -> Refusal | None:
        """Whether an update may be journaled, None, or why not.

        Args:
            round_: the round that it is for.
            board: the board that it is from.
            digest: of its bytes.
            first: the digest of this board's update that is about to be journaled, if there is one.
        """
        if round_ != self.round:
            return Refusal.STALE if round_ < self.round else Refusal.FUTURE
        if not self._asks(board):
            return Refusal.UNINVITED
        first = self.answered.get(board, first)
        if first is None:
            return None
        return Refusal.DUPLICATE if first == digest else Refusal.CONFLICT

    def journaled(self, digests: Mapping[str, bytes]) -> None:
        """These boards' updates passed :meth:`verdict` and are journaled: they count.

        A board that answers is awake.
        """
        self.answered.update(digests)
        self.awake.update(digests)
        self.asked.update(digests)
        self._waiting.difference_update(digests)

    def tick(self, now: float) -> list[Decision]:
        """What to do now, in this order; to be called after events and when time has passed.

        Args:
            now: seconds on a clock that never goes back.
        """
        decisions: list[Decision] = []
        while (event := self._due(now)) is not None:
            decisions.extend(self._move(event, now))
        return decisions

    # --- The machine -----------------------------------------------------------------------------

    def _due(self, now: float) -> Event | None:
        if self.state is State.GATHERING:
            if not self.awake:
                self._gathered_at = None
                return None
            if self._gathered_at is None:
                self._gathered_at = now + self._rules.deadline
            enough = len(self.awake) >= self._rules.cohort or now >= self._gathered_at
            return Event.ENOUGH if enough else None
        if self.state is State.COLLECTING:
            late = now >= self._ends_at
            full = len(self.answered) >= self._rules.closing or not self._waiting
            if self.answered and (full or late):
                return Event.LAST if self.round + 1 >= self._rules.count else Event.ANSWERED
            return Event.UNANSWERED if late else None
        return None

    def _move(self, event: Event, now: float) -> Iterator[Decision]:
        self.state = TRANSITIONS[self.state][event]
        if event is Event.ENOUGH:
            yield self._announce(now)
            return
        self._gathered_at = -inf  # The fleet has gathered already.
        if event is Event.UNANSWERED:
            self.empty_deadlines += 1
            return
        yield Close(
            round=self.round,
            asked=len(self.asked),
            answered=frozenset(self.answered),
            empty_deadlines=self.empty_deadlines,
            seconds=now - self._announced_at,
        )
        self.round += 1
        self.limit = None
        self.asked = set()
        self.answered = {}
        self.empty_deadlines = 0

    def _announce(self, now: float) -> Announce:
        # Whom an unanswered round asked may be gone without a word. Tickets stay what they are, so
        # it asks another cohort on top each time: in the end, everyone.
        size = self._rules.cohort * (self.empty_deadlines + 1)
        limit = limit_for(self.awake, self.round, size)
        if self.limit is None:
            self._announced_at = now
        else:
            limit = max(limit, self.limit)  # Whoever was asked stays asked.
        self.limit = limit
        present = {board for board in self.awake if is_asked(board, self.round, limit)}
        self.asked |= present
        self._waiting = present - self.answered.keys()
        self._ends_at = now + self._rules.deadline
        return Announce(self.round, limit, frozenset(self.asked), self.empty_deadlines)

    def _asks(self, board: str) -> bool:
        return self.limit is not None and is_asked(board, self.round, self.limit)
