"""The aggregator's edge: its loop, its clock, and the order in which things are done.

Journal before acknowledgement, acknowledgement before sum, model before round: each step may be the
last before a crash, and what follows then is the same as if there had been none.
"""

import logging
import time
from collections import Counter
from typing import Final

from aggregator.commands import (
    AtOnce,
    Command,
    Import,
    Pause,
    Plan,
    Resume,
    RollBack,
    Stop,
    parse,
)
from aggregator.errors import CommandError
from aggregator.fleet import Fleet
from aggregator.history import Traffic
from aggregator.journal import Journal
from aggregator.presence import read_presence
from aggregator.publisher import Publisher
from aggregator.transport import Arrived, Transport
from protocol.errors import ProtocolError
from protocol.spec import Spec
from protocol.topics import NAME, Topics
from rounds.cohort import Cohort
from rounds.core import Announce, Close, Decision, Refusal, RoundCore, State, Withdraw

log = logging.getLogger(__name__)

WAIT_SECONDS: Final = 0.2
"""Longest wait for a message, so also how late a deadline or a stop may be noticed."""
PROGRESS_SECONDS: Final = 0.5
"""Between two progress messages within a round."""


class Service:
    """One fleet's aggregator.

    Args:
        spec: the fleet's.
        journal: open; the service goes on where it ends.
        transport: subscribed to the fleet's updates and states.

    Raises:
        JournalError: here and in :meth:`run`: the journal cannot be used.
    """

    def __init__(self, spec: Spec, journal: Journal, transport: Transport) -> None:
        self._journal = journal
        self._transport = transport
        self._topics = Topics(spec.fleet)
        self._now = 0.0  # Seconds during which the broker was within reach.
        self._fleet = Fleet(journal, spec)
        self._traffic = Traffic(journal.traffic())
        self._publisher = Publisher(spec, transport)
        self._refused_now = Counter[str]()  # Since the last round was closed.
        self._begin()
        self._has_waiting = True  # Commands, perhaps: the journal knows.
        self._stopping = False
        self._connections = 0
        self._progress_at = 0.0
        self._has_news = True  # Something that the progress topic does not show yet.
        self._shown: State | None = None

    def _begin(self) -> None:
        """Go on where the journal ends: after a start, and with each new plan."""
        for update in self._fleet.restored:
            self._traffic.report(update)
        history = self._journal.history()
        self._last = history[-1] if history else None
        self._accepted = sum(facts.accepted for facts in history)  # In closed rounds.
        self._empty_deadlines = sum(facts.empty_deadlines for facts in history)
        self._refused = Counter[str]()  # In all rounds.
        for facts in history:
            self._refused.update(facts.refused)
        self._publisher.plan(self._fleet.spec)
        self._publish_model()
        if self._core.state is State.COLLECTING:
            self._publish_round()
        else:
            self._publisher.no_round()

    @property
    def _core(self) -> RoundCore:
        return self._fleet.core

    @property
    def is_done(self) -> bool:
        """Whether all rounds are over."""
        return self._core.state is State.DONE

    def stop(self) -> None:
        """End :meth:`run` after the group at hand; for signal handlers."""
        self._stopping = True

    def run(self, *, exit_when_done: bool = False) -> None:
        """Serve until :meth:`stop`, or with ``exit_when_done`` until the last round is over."""
        log.info(
            "fleet %s: version %d, %d of %d rounds are over",
            self._fleet.spec.fleet,
            self._fleet.learning.stable.model.version,
            self._core.round,
            self._fleet.spec.rounds.count,
        )
        before = time.monotonic()
        while not self._stopping:
            arrived = self._transport.exchange(WAIT_SECONDS)
            after = time.monotonic()
            if self._transport.connected:  # While the broker is away, no deadline comes nearer.
                self._now += after - before
            before = after
            if self._connections != self._transport.connections:
                self._connections = self._transport.connections
                self._publisher.everything()
            self._take(arrived)
            self._decide()
            self._show()
            if exit_when_done and self.is_done and self._transport.connected:
                break

    def _take(self, arrived: list[Arrived]) -> None:
        if not arrived:
            return
        updates: list[Arrived] = []
        commands: list[Arrived] = []
        states: list[Arrived] = []
        for message in arrived:
            if message.topic == self._topics.command:
                commands.append(message)
            elif self._topics.board_of_state(message.topic) is not None:
                states.append(message)
            else:
                updates.append(message)
        # Updates before the rest: what came before a stop counts, and a board that answers and
        # then falls asleep is asleep.
        self._take_updates(updates)
        for message in commands:
            self._obey(message.payload)
        for message in states:
            self._see(message)
        self._transport.acknowledge(commands + states)
        self._has_news = True

    def _take_updates(self, updates: list[Arrived]) -> None:
        taken = self._fleet.ingest.take(updates)
        self._transport.acknowledge(updates)
        for update in taken.accepted:
            self._traffic.report(update)
        for round_, boards in taken.receipts.items():
            self._publisher.receipts(round_, boards)
        for refused in taken.refused:
            self._refused_now[refused.reason.value] += 1
            self._publisher.refused(refused, self._now)
            if refused.reason is Refusal.STALE and refused.board is not None:
                self._core.board_awake(refused.board)  # It is slow, not gone.

    def _see(self, message: Arrived) -> None:
        board = self._topics.board_of_state(message.topic)
        if board is None or NAME.fullmatch(board) is None:
            return
        presence = read_presence(message.payload)
        if presence.is_awake:
            self._core.board_awake(board, presence.battery)
        else:
            self._core.board_lost(board)

    # --- What an operator says -------------------------------------------------------------------

    def _obey(self, payload: bytes) -> None:
        """Carry out a command, or journal it until it can be."""
        try:
            command = parse(payload)
        except CommandError as error:
            log.warning("a command is refused: %s", error)
            self._publisher.answer("", error.id, str(error), done=False)
            return
        if isinstance(command, AtOnce):
            self._steer(command)
        else:
            self._journal.enqueue(command.model_dump_json())
            self._has_waiting = True

    def _steer(self, command: AtOnce) -> None:
        before = self._core.state
        decisions: list[Decision] = []
        match command:
            case Pause():
                decisions = self._core.pause()
            case Resume():
                self._core.resume()
            case Stop():
                decisions = self._core.stop(self._now)
        self._carry_out(decisions)
        state = self._core.state
        if state is not before:
            self._journal.set_state(state)
        done = state is not before
        self._answer(command, f"the fleet is {'' if done else 'still '}{state.value}", done=done)

    def _catch_up(self) -> None:
        """Carry out what was waiting until no board is at work."""
        for number, text in self._journal.commands():
            command = parse(text)
            try:
                if isinstance(command, Plan):
                    self._fleet = self._fleet.adopt(command, self._now)
                    done = f"lineage {self._fleet.spec.lineage:08x} goes by the new plan"
                elif isinstance(command, RollBack | Import):
                    done = self._fleet.replace(command)
            except (CommandError, ProtocolError) as error:
                self._answer(command, str(error), done=False)
            else:
                self._begin()
                self._answer(command, done, done=True)
            self._journal.dequeue(number)

    def _answer(self, command: Command, detail: str, *, done: bool) -> None:
        level = logging.INFO if done else logging.WARNING
        log.log(level, "command %s: %s", command.command, detail)
        self._publisher.answer(command.command, command.id, detail, done=done)
        self._has_news = True

    # --- What the round core decides -------------------------------------------------------------

    def _decide(self) -> None:
        self._carry_out(self._core.tick(self._now, hold=self._has_waiting))
        if self._has_waiting and self._fleet.may_change:
            self._has_waiting = False
            self._catch_up()
            self._carry_out(self._core.tick(self._now))

    def _carry_out(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Announce():
                    self._announce(decision)
                case Close():
                    self._close(decision)
                case Withdraw():
                    self._publisher.no_round()
            self._has_news = True

    def _announce(self, announced: Announce) -> None:
        self._fleet.announce(announced)
        self._publish_round()
        if announced.empty_deadlines:
            log.warning(
                "round %d: nobody answered in time; announced again, now to %d boards",
                announced.round,
                len(announced.asked),
            )

    def _publish_round(self) -> None:
        fleet, cohort = self._fleet, self._core.cohort
        if cohort is not None:
            version = fleet.learning.stable.model.version
            self._publisher.round(self._core.round, version, cohort, fleet.spec.rounds, fleet.trial)

    def _publish_model(self) -> None:
        learning = self._fleet.learning
        self._publisher.model(learning.stable.model, learning.stable.delta)
        self._publisher.trial(learning.trial.model if learning.trial else None)

    def _close(self, closed: Close) -> None:
        facts = self._fleet.close(closed, self._refused_now, self._traffic)
        self._last = facts
        self._accepted += facts.accepted
        self._empty_deadlines += facts.empty_deadlines
        self._refused.update(self._refused_now)
        self._refused_now.clear()
        self._publish_model()
        self._progress_at = self._now  # Shown at every close.
        log.info(
            "round %d of %d: %d of %d boards in %.1f s, loss %.4g",
            closed.round + 1,
            self._fleet.spec.rounds.count,
            facts.accepted,
            facts.asked,
            facts.seconds,
            facts.loss,
        )
        if facts.trial is not None:
            log.info("the version on trial is %s", facts.trial)

    def _show(self) -> None:
        """Log a change of state; publish progress, not too often."""
        state = self._core.state
        if state is not self._shown:
            self._shown = state
            self._progress_at = self._now
            self._log_state()
        if self._has_news and self._now >= self._progress_at:
            self._progress_at = self._now + PROGRESS_SECONDS
            self._has_news = False
            self._publisher.progress(self._progress())

    def _log_state(self) -> None:
        core, rounds = self._core, self._fleet.spec.rounds
        match core.state:
            case State.GATHERING:
                log.info("waiting for boards: %d awake of %d", len(core.awake), rounds.cohort)
            case State.COLLECTING:
                asked = len(core.cohort.asked) if core.cohort else 0
                log.info("%d boards awake, %d asked", len(core.awake), asked)
            case State.PAUSED:
                log.info("paused before round %d is over", core.round + 1)
            case State.DONE:
                version = self._fleet.learning.stable.model.version
                log.info("%d rounds are over; version %d stays published", core.round, version)

    def _progress(self) -> dict[str, object]:
        core, last, learning = self._core, self._last, self._fleet.learning
        cohort = core.cohort or Cohort(0)
        return {
            "state": core.state.value,
            "round": core.round,
            "rounds": self._fleet.spec.rounds.count,
            "lineage": f"{self._fleet.spec.lineage:08x}",
            "version": learning.stable.model.version,
            "trial": learning.trial.model.version if learning.trial else None,
            "loss": last.loss if last else None,
            "support_loss": last.support_loss if last else None,
            "accuracy": last.accuracy if last else None,
            "accepted": self._accepted + len(core.counted),
            "refused": dict(self._refused + self._refused_now),
            "bytes_up": self._traffic.up,
            "bytes_down": self._traffic.down,
            "awake": len(core.awake),
            "asked": len(cohort.asked),
            "answered": len(cohort.answered),
            "empty_deadlines": self._empty_deadlines + cohort.empty_deadlines,
        }
