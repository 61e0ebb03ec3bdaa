"""The aggregator's edge: its loop, its clock, and the order in which things are done.

Journal before acknowledgement, acknowledgement before sum, model before round: each step may be the
last before a crash, and what follows then is the same as if there had been none.
"""

import logging
import time
from collections import Counter
from typing import Final

from aggregator.history import RoundFacts, Traffic
from aggregator.ingest import Ingest
from aggregator.journal import Journal
from aggregator.presence import is_awake
from aggregator.publisher import Publisher
from aggregator.transport import Arrived, Transport
from protocol.spec import Spec
from protocol.topics import NAME, Topics
from rounds.combine import rule_of
from rounds.core import Announce, Close, RoundCore, State
from rounds.optimizers import cosine_step
from rounds.privacy import Ledger
from rounds.sums import PartialSum

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
        self._spec = spec
        self._is_classifier = spec.model.loss == "cross_entropy"
        self._journal = journal
        self._transport = transport
        self._topics = Topics(spec.fleet)
        self._model, delta = journal.model(spec)
        round_ = self._model.version
        self._core = RoundCore(spec.rounds, round_, journal.open_round(round_))
        self._ingest = Ingest(spec, self._core, journal)
        self._rule = rule_of(spec.rounds)
        self._traffic = Traffic(journal.traffic())
        for update in self._ingest.restore(round_):
            self._traffic.report(update)
        history = journal.history()
        self._last = history[-1] if history else None
        self._ledger = Ledger(facts.noise for facts in history)
        self._accepted = sum(facts.accepted for facts in history)  # In closed rounds.
        self._empty_deadlines = sum(facts.empty_deadlines for facts in history)
        self._refused = Counter[str]()  # In all rounds.
        for facts in history:
            self._refused.update(facts.refused)
        self._refused_now = Counter[str]()  # Since the last round was closed.
        self._publisher = Publisher(spec, transport)
        self._publisher.model(self._model, delta)
        if self._core.limit is None:
            self._publisher.no_round()
        else:
            self._publish_round(round_, self._core.limit)
        self._stopping = False
        self._connections = 0
        self._now = 0.0  # Seconds during which the broker was within reach.
        self._progress_at = 0.0
        self._has_news = True  # Something that the progress topic does not show yet.
        self._shown: State | None = None

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
            self._spec.fleet,
            self._model.version,
            self._core.round,
            self._spec.rounds.count,
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
        # Updates before states: a board that answers and then falls asleep is asleep.
        updates, states = [], []
        for message in arrived:
            board = self._topics.board_of_state(message.topic)
            if board is None:
                updates.append(message)
            else:
                states.append((board, message.payload))
        taken = self._ingest.take(updates)
        self._transport.acknowledge(arrived)
        for update in taken.accepted:
            self._traffic.report(update)
        for round_, boards in taken.receipts.items():
            self._publisher.receipts(round_, boards)
        for refused in taken.refused:
            self._refused_now[refused.reason.value] += 1
            self._publisher.refused(refused, self._now)
        for board, payload in states:
            self._see(board, payload)
        self._has_news = True

    def _see(self, board: str, payload: bytes) -> None:
        if NAME.fullmatch(board) is None:
            return
        if is_awake(payload):
            self._core.board_awake(board)
        else:
            self._core.board_lost(board)

    def _decide(self) -> None:
        for decision in self._core.tick(self._now):
            match decision:
                case Announce():
                    self._announce(decision)
                case Close():
                    self._close(decision)
            self._has_news = True

    def _announce(self, announced: Announce) -> None:
        self._journal.announce(announced)
        self._publish_round(announced.round, announced.limit)
        if announced.empty_deadlines:
            log.warning(
                "round %d: nobody answered in time; announced again, now to %d boards",
                announced.round,
                len(announced.asked),
            )

    def _publish_round(self, round_: int, limit: int) -> None:
        deadline = self._spec.rounds.deadline
        self._publisher.round(round_, self._model.version, limit, deadline)

    def _close(self, closed: Close) -> None:
        rounds = self._spec.rounds
        privacy = rounds.privacy
        total, self._ingest.total = (
            self._ingest.total,
            PartialSum(self._spec.global_count, clip=rounds.clip),
        )
        combined = self._rule.combine([(1.0, total)], self._ingest.updates(closed.round))
        step = cosine_step(rounds, closed.round)
        delta = self._model.advance(combined.change, step).pack()
        self._ledger.add(privacy.noise_multiplier if privacy else None)
        outputs = 1 if self._is_classifier else self._spec.layers[-1].outputs
        support_loss, loss = total.losses(outputs)
        facts = RoundFacts(
            round=closed.round,
            loss=loss,
            support_loss=support_loss,
            accuracy=total.query_correct / total.query if self._is_classifier else None,
            accepted=total.weight,
            asked=closed.asked,
            seconds=closed.seconds,
            step=step,
            empty_deadlines=closed.empty_deadlines,
            refused=dict(self._refused_now),
            note=combined.note,
            noise=privacy.noise_multiplier if privacy else None,
            epsilon=self._ledger.epsilon(privacy.delta) if privacy else None,
        )
        self._journal.close_round(self._model, delta, facts, self._traffic.of(closed.answered))
        self._last = facts
        self._accepted += facts.accepted
        self._empty_deadlines += facts.empty_deadlines
        self._refused.update(self._refused_now)
        self._refused_now.clear()
        self._publisher.model(self._model, delta)
        if self.is_done:
            self._publisher.no_round()
        self._progress_at = self._now  # Shown at every close.
        log.info(
            "round %d of %d: %d of %d boards in %.1f s, loss %.4g",
            closed.round + 1,
            rounds.count,
            facts.accepted,
            facts.asked,
            facts.seconds,
            facts.loss,
        )
        if combined.note:
            level = logging.INFO if combined.change is not None else logging.WARNING
            log.log(level, "round %d: %s", closed.round + 1, combined.note)

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
        core, rounds = self._core, self._spec.rounds
        match core.state:
            case State.GATHERING:
                log.info("waiting for boards: %d awake of %d", len(core.awake), rounds.cohort)
            case State.COLLECTING:
                log.info("%d boards awake, %d asked", len(core.awake), len(core.asked))
            case State.DONE:
                log.info("all rounds are over; version %d stays published", core.round)

    def _progress(self) -> dict[str, object]:
        core, last = self._core, self._last
        return {
            "state": core.state.value,
            "round": core.round,
            "rounds": self._spec.rounds.count,
            "version": self._model.version,
            "loss": last.loss if last else None,
            "support_loss": last.support_loss if last else None,
            "accuracy": last.accuracy if last else None,
            "note": last.note if last else "",
            "epsilon": last.epsilon if last else None,
            "accepted": self._accepted + len(core.answered),
            "refused": dict(self._refused + self._refused_now),
            "bytes_up": self._traffic.up,
            "bytes_down": self._traffic.down,
            "awake": len(core.awake),
            "asked": len(core.asked),
            "answered": len(core.answered),
            "empty_deadlines": self._empty_deadlines + core.empty_deadlines,
        }
