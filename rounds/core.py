"""The life of a fleet's rounds. No I/O and no clock: events in, decisions out.

The whole life is the table below. Everything that changes the state lives in this file::

    GATHERING   --ENOUGH-------> COLLECTING    announce the round
    COLLECTING  --ANSWERED-----> GATHERING     close it: the next round opens in the same tick
    COLLECTING  --UNANSWERED---> GATHERING     nobody answered in time: ask others, too
    COLLECTING  --LAST---------> DONE          close the last round
    (each)      --PAUSE--------> PAUSED        withdraw the round; what still comes for it counts
    (each)      --STOP---------> DONE          close the round with what there is, and withdraw it
    PAUSED/DONE --RESUME-------> GATHERING     where rounds are left to do

After a round the fleet has gathered already, so GATHERING ends at once where any board is awake; a
fleet is seen in that state only before its first round and when no board is awake.

In buffered mode (Nguyen et al. 2022, "Federated Learning with Buffered Asynchronous Aggregation",
arXiv 2106.06639) the quorum is the buffer's size, and a board that is not done when its round
closes goes on: its update counts in a later round.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from math import inf
from typing import Final, NamedTuple

from protocol.spec.rounds import Rounds
from rounds.cohort import BoardFacts, Cohort, pick

MOST_AWAKE: Final = 100_000
"""Boards that are kept in mind; made-up names must not fill the memory."""


PATIENCE: Final = 2
"""Deadlines in a row after which a board is not waited for, until something is heard of it again;
if a round invites it and it answers in time, that counts."""


class State(Enum):
    """What a fleet is doing; the values are words of the progress topic."""

    GATHERING = "gathering"
    """Waits until a cohort is awake, or one deadline after the first board awoke."""
    COLLECTING = "collecting"
    """A round is announced and updates come in."""
    PAUSED = "paused"
    """An operator has paused it."""
    DONE = "done"
    """Every round of the spec is over, or an operator has stopped it."""


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
    PAUSE = auto()
    """An operator wants no round to be open."""
    RESUME = auto()
    """An operator wants the rounds that are left."""
    STOP = auto()
    """An operator wants no further round."""


TRANSITIONS: Final[Mapping[State, Mapping[Event, State]]] = {
    State.GATHERING: {
        Event.ENOUGH: State.COLLECTING,
        Event.PAUSE: State.PAUSED,
        Event.STOP: State.DONE,
    },
    State.COLLECTING: {
        Event.ANSWERED: State.GATHERING,
        Event.UNANSWERED: State.GATHERING,
        Event.LAST: State.DONE,
        Event.PAUSE: State.PAUSED,
        Event.STOP: State.DONE,
    },
    State.PAUSED: {Event.RESUME: State.GATHERING, Event.STOP: State.DONE},
    State.DONE: {Event.RESUME: State.GATHERING},
}
"""An event that a state does not name leaves it as it is."""


class RejectReason(Enum):
    """Why an update is not counted; the values are words of the progress and event topics."""

    OVERSIZE = "oversize"
    """Longer than any message of a fleet."""
    FORMAT = "format"
    """Of another format of the wire: the board's client is older or newer than the aggregator."""
    GARBLED = "garbled"
    """Not an update message, or one that no board with this plan would send."""
    IDENTITY = "identity"
    """Its topic belongs to another board."""
    LINEAGE = "lineage"
    """For another model."""
    STALE = "stale"
    """For a round that is over, and later than the spec allows."""
    FUTURE = "future"
    """For a round that is still to come."""
    UNINVITED = "uninvited"
    """From a board that the round does not invite."""
    DUPLICATE = "duplicate"
    """The very update that is journaled already: harmless, its receipt is sent again."""
    CONFLICT = "conflict"
    """Another update of a board whose update is journaled already: the first one counts."""
    SPARSE = "sparse"
    """Its changes cannot be read, or are more than the plan allows."""


class UpdateKey(NamedTuple):
    """An update that counts: of which board, for which round."""

    round: int
    board: str


@dataclass(frozen=True)
class Announce:
    """Decision: announce this round, also where it was announced before."""

    round: int
    ticket_limit: int
    """It invites the boards whose tickets lie below ..."""
    chosen: bytes
    """... and those named here."""
    invited: frozenset[str]
    """The awake boards among them."""
    empty_deadlines: int
    """How often this round's deadline has passed without an update."""


@dataclass(frozen=True)
class Close:
    """Decision: aggregate the updates that this round has gathered, and make a new version."""

    round: int
    invited: int
    """Boards known to have been invited."""
    counted: frozenset[UpdateKey]
    """The updates to aggregate, at least one."""
    empty_deadlines: int
    seconds: float
    """Since it was first announced, or since a restart that found it open."""


@dataclass(frozen=True)
class Withdraw:
    """Decision: no round is open; whoever wakes now has nothing to do."""


Decision = Announce | Close | Withdraw


@dataclass(frozen=True)
class ResumePoint:
    """What a restarted aggregator knows of the rounds whose updates may still come."""

    state: State
    """GATHERING, PAUSED or DONE."""
    cohorts: Mapping[int, Cohort]
    """By round: the open one, if it was announced, and those before it that may be late."""
    counted: Iterable[UpdateKey]
    """The updates that the open round has gathered."""


class RoundCore:
    """A fleet's rounds: tell it what happened, then ask :meth:`tick` what to do.

    Args:
        rules: the spec's.
        round_: rounds that are over; the first round is round 0.
        resumed: where a restart goes on. An announced round stays open with the boards it had.
        known: of boards; kept up to date here.
        now: seconds on the caller's clock, as in :meth:`tick`.
    """

    def __init__(
        self,
        rules: Rounds,
        round_: int = 0,
        resumed: ResumePoint | None = None,
        known: BoardFacts | None = None,
        now: float = 0.0,
    ) -> None:
        self.state = State.GATHERING if round_ < rules.count else State.DONE
        self.round = round_
        """The open round, or the next one; in DONE, the number of rounds that there were."""
        self.awake: set[str] = set()
        self.counted: set[UpdateKey] = set()
        """Updates that the open round has gathered."""
        self.known = BoardFacts() if known is None else known
        self._rules = rules
        self._cohorts: dict[int, Cohort] = {}  # Of the open round, and of those that may be late.
        self._waiting: dict[str, int] = {}  # Boards at work, and for which round.
        self._missed: dict[str, int] = {}  # Deadlines in a row that a board has let pass.
        self._gathered_at: float | None = None  # At the latest; None while nobody is awake.
        self._announced_at = now  # First.
        self._ends_at = inf
        if resumed is not None and self.state is not State.DONE:
            self.state = resumed.state
            self._cohorts = dict(resumed.cohorts)
            self.counted = set(resumed.counted)
            for number, cohort in sorted(self._cohorts.items()):
                self._waiting.update(dict.fromkeys(cohort.invited - cohort.answered.keys(), number))
            if self.state is State.GATHERING and self.cohort is not None:
                self.state = State.COLLECTING
                self._ends_at = now + rules.deadline

    @property
    def cohort(self) -> Cohort | None:
        """The open round's; None until it is announced."""
        return self._cohorts.get(self.round)

    # --- Events ----------------------------------------------------------------------------------

    def board_awake(self, board: str, battery: int | None = None) -> None:
        """A board is there. If the open round invites it, it is in the round.

        Args:
            board: its name.
            battery: its charge in percent, if it tells.
        """
        if not self._note_awake(board):
            return
        if battery is not None:
            self.known.battery[board] = battery
        cohort = self.cohort
        if self.state is State.COLLECTING and cohort and cohort.invites(board, self.round):
            cohort.invited.add(board)
            if board not in cohort.answered:
                self._waiting[board] = self.round

    def board_lost(self, board: str) -> None:
        """A board sleeps or is gone: it is not waited for. Should it still answer, that counts."""
        self.awake.discard(board)
        self._waiting.pop(board, None)
        self._missed.pop(board, None)

    def board_slow(self, board: str) -> None:
        """A board's update came too late: it is not gone, and may be waited for again."""
        self._missed.pop(board, None)

    def verdict(
        self, round_: int, board: str, digest: bytes, first: bytes | None = None
    ) -> RejectReason | None:
        """Whether an update may be journaled, None, or why not.

        Args:
            round_: the round that it is for.
            board: the board that it is from.
            digest: of its bytes.
            first: the digest of this board's update for this round that is about to be journaled,
                if there is one.
        """
        if round_ > self.round:
            return RejectReason.FUTURE
        cohort = self._cohorts.get(round_)
        if round_ < self.round and (cohort is None or self.state is State.DONE):
            return RejectReason.STALE
        if cohort is None or not cohort.invites(board, round_):
            return RejectReason.UNINVITED
        first = cohort.answered.get(board, first)
        if first is None:
            return None
        return RejectReason.DUPLICATE if first == digest else RejectReason.CONFLICT

    def journaled(self, digests: Mapping[UpdateKey, bytes]) -> None:
        """These updates passed :meth:`verdict` and are journaled: they count in the open round.

        A board that answers is awake.
        """
        for key, digest in digests.items():
            round_, board = key
            cohort = self._cohorts[round_]
            cohort.answered[board] = digest
            cohort.invited.add(board)
            self.counted.add(key)
            self.known.last_seen[board] = self.round
            self._waiting.pop(board, None)
            if round_ == self.round:  # It is in the open round, and has answered.
                self._note_awake(board)
            else:
                self.board_awake(board)

    def pause(self) -> list[Decision]:
        """Open no round until :meth:`resume`. What comes for the open one still counts."""
        return list(self._move(Event.PAUSE, self._announced_at))

    def resume(self) -> None:
        """Go on, where rounds are left to do."""
        if self.round < self._rules.count:
            self.state = TRANSITIONS[self.state].get(Event.RESUME, self.state)

    def stop(self, now: float) -> list[Decision]:
        """Close the open round with what it has gathered, and open no other."""
        return list(self._move(Event.STOP, now))

    def tick(self, now: float, *, hold: bool = False) -> list[Decision]:
        """What to do now, in this order; to be called after events and when time has passed.

        Args:
            now: seconds on a clock that never goes back.
            hold: open no round, for something is to be changed before.
        """
        decisions: list[Decision] = []
        while (event := self._due(now)) is not None and not (hold and event is Event.ENOUGH):
            decisions.extend(self._move(event, now))
        return decisions

    def _note_awake(self, board: str) -> bool:
        """Keep in mind that a board is there; whether there was room for it."""
        if len(self.awake) >= MOST_AWAKE and board not in self.awake:
            return False
        self.awake.add(board)
        self._missed.pop(board, None)
        return True

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
            full = len(self.counted) >= self._rules.closing or not self._waiting
            if self.counted and (full or late):
                return Event.LAST if self.round + 1 >= self._rules.count else Event.ANSWERED
            return Event.UNANSWERED if late else None
        return None

    def _move(self, event: Event, now: float) -> Iterator[Decision]:
        before = self.state
        if event not in TRANSITIONS[before]:
            return
        self.state = TRANSITIONS[before][event]
        match event:
            case Event.ENOUGH:
                yield self._announce(now)
            case Event.UNANSWERED:
                self._note_the_silent(now)
                self._gathered_at = -inf  # The fleet has gathered already.
                if self.cohort is not None:
                    self.cohort.empty_deadlines += 1
            case Event.ANSWERED | Event.LAST:
                yield self._close(now)
            case Event.STOP if self.counted:
                yield self._close(now)
        if self.state in {State.PAUSED, State.DONE} and before is not self.state:
            yield Withdraw()

    def _close(self, now: float) -> Close:
        self._note_the_silent(now)
        cohort = self.cohort or Cohort(0)  # Late updates may fill a round that is not announced.
        closed = Close(
            round=self.round,
            invited=len(cohort.invited),
            counted=frozenset(self.counted),
            empty_deadlines=cohort.empty_deadlines,
            seconds=now - self._announced_at,
        )
        self.round += 1
        self.counted = set()
        self._gathered_at = -inf
        oldest = self.round - self._rules.oldest
        self._cohorts = {n: cohort for n, cohort in self._cohorts.items() if n >= oldest}
        self._waiting = {board: n for board, n in self._waiting.items() if n >= oldest}
        return closed

    def _note_the_silent(self, now: float) -> None:
        """Whoever let its last deadline pass is no longer waited for in this round."""
        if now < self._ends_at:
            return
        last = self.round - self._rules.oldest
        for board in [board for board, round_ in self._waiting.items() if round_ <= last]:
            del self._waiting[board]
            self._missed[board] = self._missed.get(board, 0) + 1

    def _announce(self, now: float) -> Announce:
        rules, before = self._rules, self.cohort
        if not rules.oldest:
            self._waiting.clear()  # Nobody goes on with a round that is over.
        # A board that died without a word must not cost each round its deadline.
        silent = {board for board, times in self._missed.items() if times >= PATIENCE}
        free = self.awake - self._waiting.keys()
        size = rules.invitations - len(self._waiting)
        cohort = pick(rules.choose, free - silent, self.round, size, self.known)
        if before is None:
            self._announced_at = now
        else:
            cohort = cohort.on_top_of(before)
        self._cohorts[self.round] = cohort
        present = {board for board in self.awake if cohort.invites(board, self.round)}
        cohort.invited |= present
        at_work = present - cohort.answered.keys() - self._waiting.keys() - silent
        self._waiting.update(dict.fromkeys(at_work, self.round))
        self._ends_at = now + rules.deadline
        return Announce(
            self.round,
            cohort.ticket_limit,
            cohort.chosen,
            frozenset(cohort.invited),
            cohort.empty_deadlines,
        )
