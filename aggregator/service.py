"""The aggregator's edge: its loop, its clock, and the order in which things are done.

Journal before acknowledgement, acknowledgement before sum, model before round: each step may be the
last before a crash, and what follows then is the same as if there had been none.
"""

import logging
import time
from dataclasses import asdict
from typing import Final

from aggregator import drops
from aggregator.fleet import Fleet
from aggregator.journal.journal import Journal
from aggregator.metrics import Metrics
from aggregator.presence import AvailabilityCounter
from aggregator.publisher import Publisher
from aggregator.steering import Steering
from aggregator.tally import Tally
from protocol.messages import FORMAT, of_another_format
from protocol.mqtt import Message
from protocol.presence import Availability, read_presence
from protocol.spec.spec import Spec
from protocol.topics import NAME, Topics
from rounds.core import Announce, Close, Decision, RejectReason, RoundCore, State, Withdraw
from rounds.intake import Rejection
from runtime.errors import StateStuckError
from runtime.transport import Transport

log = logging.getLogger(__name__)

WAIT_SECONDS: Final = 0.2
"""Longest wait for a message, so also how late a deadline or a stop may be noticed."""
PROGRESS_SECONDS: Final = 0.5
"""Between two progress messages within a round."""
RETRY_SECONDS: Final = 1.0
"""Between two attempts to write a journal that is stuck."""


class Service:
    """One fleet's aggregator.

    Args:
        spec: the fleet's.
        journal: open; the service goes on where it ends.
        transport: subscribed to the fleet's updates, states and commands, and to the broker's
            drops.
        metrics: told what happens.

    Raises:
        StateError: here and in :meth:`run`: the journal cannot be used. While it runs, a full or
            locked disk is waited for.
    """

    def __init__(
        self, spec: Spec, journal: Journal, transport: Transport, metrics: Metrics
    ) -> None:
        self._journal = journal
        self._transport = transport
        self._metrics = metrics
        self._availability = AvailabilityCounter()
        self._topics = Topics(spec.fleet)
        self._now = 0.0  # Seconds during which broker and journal were within reach.
        self._looked_at = 0.0  # When this was last true, on the machine's clock.
        self._is_stuck = False  # The journal.
        journal.when_stuck, journal.when_freed = self._wait_for_journal, self._journal_freed
        self._fleet = Fleet(journal, spec)
        self._tally = Tally(journal.traffic())
        self._drops = drops.DropCounter()
        self._publisher = Publisher(spec, transport)
        self._steering = Steering(journal, self._publisher)
        self._begin()
        self._stopping = False
        self._connections = 0
        self._progress_at = 0.0
        self._has_news = True  # Something that the progress topic does not show yet.
        self._shown: State | None = None

    def _begin(self) -> None:
        """Go on where the journal ends: after a start, and with each new plan."""
        for update in self._fleet.restored:
            self._tally.traffic.report(update)
        self._tally.begin(self._journal.history())
        if self._tally.last is not None:
            self._metrics.learned(self._tally.last)
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
    def _version(self) -> int:
        return self._fleet.learning.stable.model.version

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
            self._version,
            self._core.round,
            self._fleet.spec.rounds.count,
            extra={"event": "started", "version": self._version, "round": self._core.round},
        )
        self._looked_at = time.monotonic()
        while not self._stopping:
            arrived = self._transport.exchange(WAIT_SECONDS)
            after = time.monotonic()
            if self._transport.connected:  # While the broker is away, no deadline comes nearer.
                self._now += after - self._looked_at
            self._looked_at = after
            if self._connections != self._transport.connections:
                self._connections = self._transport.connections
                self._publisher.everything()
            self._take(arrived)
            self._decide()
            self._show()
            self._metrics.turned(self._core, self._version, self._availability, self._transport)
            if exit_when_done and self.is_done and self._transport.connected:
                break

    def _take(self, arrived: list[Message]) -> None:
        if not arrived:
            return
        updates: list[Message] = []
        commands: list[Message] = []
        others: list[Message] = []
        for message in arrived:
            if message.topic == self._topics.command:
                commands.append(message)
            elif message.topic == drops.TOPIC or self._topics.board_of_state(message.topic):
                others.append(message)
            else:
                updates.append(message)
        # Updates before the rest: what came before a stop counts, and a board that answers and
        # then falls asleep is asleep.
        self._take_updates(updates)
        for message in commands:
            self._obey(message)
        for message in others:
            if message.topic == drops.TOPIC:
                self._hear_of_drops(message.payload)
            else:
                self._see(message)
        self._transport.acknowledge(commands + others)
        self._has_news = True

    def _take_updates(self, updates: list[Message]) -> None:
        taken = self._fleet.ingest.take(updates)
        self._transport.acknowledge(updates)
        traffic = self._tally.traffic
        up, down = traffic.up, traffic.down
        for update in taken.accepted:
            traffic.report(update)
        for round_, boards in taken.receipts.items():
            self._publisher.receipts(round_, boards)
        for rejected in taken.rejected:
            self._tally.rejected_now[rejected.reason.value] += 1
            self._publisher.rejected(rejected, self._now)
            if rejected.reason is RejectReason.STALE and rejected.board is not None:
                self._core.board_slow(rejected.board)
        self._availability.answered(update.board for update in taken.accepted)
        lag = time.monotonic() - self._transport.read_at
        self._metrics.taken(taken, traffic.up - up, traffic.down - down, lag)

    def _see(self, message: Message) -> None:
        board = self._topics.board_of_state(message.topic)
        if board is None or NAME.fullmatch(board) is None:
            return
        presence = read_presence(message.payload)
        if presence.format != FORMAT:
            detail = of_another_format(presence.format)
            rejection = Rejection(board, RejectReason.FORMAT, detail)
            self._publisher.rejected(rejection, self._now)
        self._availability.seen(board, presence.availability)
        if presence.availability is Availability.AWAKE:
            self._core.board_awake(board, presence.battery)
        else:
            self._core.board_lost(board)

    def _hear_of_drops(self, payload: bytes) -> None:
        dropped = self._drops.moved(payload)
        self._metrics.broker_dropped(dropped)
        if not dropped or self._core.state is not State.COLLECTING:
            return
        if not self._tally.dropped_now:
            log.warning(
                "round %d: the broker dropped %d messages, updates may be among them: compare its "
                "max_queued_messages and max_queued_bytes with broker/mosquitto.conf",
                self._core.round + 1,
                dropped,
                extra={"event": "dropped", "round": self._core.round, "dropped": dropped},
            )
        self._tally.dropped_now += dropped

    def _wait_for_journal(self, error: StateStuckError) -> None:
        """Nothing else happens and no time passes until the journal is written.

        What is not journaled is not acknowledged either: the broker keeps it.

        Raises:
            StateStuckError: we are to stop, and still cannot write.
        """
        if self._stopping:
            raise error
        if not self._is_stuck:
            self._is_stuck = True
            log.error("%s; trying again; until then nothing is acknowledged", error)
        time.sleep(RETRY_SECONDS)

    def _journal_freed(self) -> None:
        self._is_stuck = False
        log.warning("the journal can be written again")
        self._looked_at = time.monotonic()

    # --- What an operator says -------------------------------------------------------------------

    def _obey(self, message: Message) -> None:
        """Carry out a command, or have it wait until it can be."""
        command = self._steering.hear(message)
        if command is None:
            return
        before = self._core.state
        self._carry_out(self._steering.steer(command, self._fleet, self._now))
        state = self._core.state
        done = state is not before
        if done:
            self._journal.set_state(state)
        detail = f"the fleet is {'' if done else 'still '}{state.value}"
        self._steering.answer(command, detail, done=done)

    def _adopt(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._begin()

    # --- What the round core decides -------------------------------------------------------------

    def _decide(self) -> None:
        self._carry_out(self._core.tick(self._now, hold=self._steering.has_waiting))
        if self._steering.has_waiting and self._fleet.may_change:
            self._steering.catch_up(self._fleet, self._now, self._adopt)
            self._has_news = True
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
            self._metrics.nobody_answered()
            log.warning(
                "round %d: nobody answered in time; announced again, now to %d boards",
                announced.round + 1,
                len(announced.invited),
                extra={
                    "event": "announced_again",
                    "round": announced.round,
                    "invited": len(announced.invited),
                    "empty_deadlines": announced.empty_deadlines,
                },
            )

    def _publish_round(self) -> None:
        fleet, cohort = self._fleet, self._core.cohort
        if cohort is not None:
            version = fleet.learning.stable.model.version
            self._publisher.round(
                self._core.round, version, cohort, fleet.spec.rounds, fleet.canary
            )

    def _publish_model(self) -> None:
        learning = self._fleet.learning
        self._publisher.model(learning.stable.model, learning.stable.delta)
        self._publisher.canary(learning.canary.model if learning.canary else None)

    def _close(self, closed: Close) -> None:
        tally = self._tally
        facts = self._fleet.close(
            closed, tally.rejected_now, tally.traffic, degraded=tally.dropped_now > 0
        )
        self._tally.closed(facts)
        self._metrics.round_closed(facts)
        self._publish_model()
        self._progress_at = self._now  # Shown at every close.
        log.info(
            "round %d of %d: %d of %d boards in %.1f s, loss %.4g%s%s",
            closed.round + 1,
            self._fleet.spec.rounds.count,
            facts.accepted,
            facts.invited,
            facts.seconds,
            facts.loss,
            f"; the canary version is {facts.canary}" if facts.canary else "",
            "".join(f", {number} {reason}" for reason, number in facts.rejected.items()),
            extra={"event": "closed", **asdict(facts)},
        )
        if facts.note:
            log.info("round %d: %s", closed.round + 1, facts.note)

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
            self._publisher.progress(self._tally.progress(self._fleet))

    def _log_state(self) -> None:
        core = self._core
        invited = len(core.cohort.invited) if core.cohort else 0
        match core.state:
            case State.GATHERING:
                cohort = self._fleet.spec.rounds.cohort
                text = f"waiting for boards: {len(core.awake)} awake of {cohort}"
            case State.COLLECTING:
                text = f"{len(core.awake)} boards awake, {invited} invited"
            case State.PAUSED:
                text = f"paused before round {core.round + 1} is over"
            case State.DONE:
                text = f"{core.round} rounds are over; version {self._version} stays published"
        facts = {"event": core.state.value, "round": core.round, "awake": len(core.awake)}
        log.info(text, extra={**facts, "invited": invited})
