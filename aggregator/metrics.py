"""What Prometheus is told. Methods are named after what happened; the service calls them.

Names follow https://prometheus.io/docs/practices/naming/: base units, ``_total`` for counters. No
label names a board: a fleet of thousands would make as many time series. Counters start at zero
with the process, as Prometheus expects. Calls are made once for a group of messages or a turn of
the loop, never for a single message, so that they cost nothing where it matters.
"""

import platform
import time
from collections import Counter as Tally
from math import nan
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
)

from aggregator import __version__
from aggregator.history import RoundFacts
from aggregator.ingest import IngestResult
from aggregator.presence import AvailabilityCounter
from protocol.presence import Availability
from protocol.spec.spec import Spec
from rounds.cohort import Cohort
from rounds.core import RejectReason, RoundCore, State
from runtime.transport import Transport

ROUND_BUCKETS: Final = (0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600, 1800, 3600, 6 * 3600, 24 * 3600)
COMMIT_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 2.5, 5)
LAG_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
ACCEPTED: Final = "accepted"


class Metrics:
    """One aggregator's metrics, in a registry of their own.

    Written by the service's thread, read by the one that answers scrapes.

    Args:
        spec: the fleet's.
    """

    def __init__(self, spec: Spec) -> None:
        self.registry = CollectorRegistry()
        self.turned_at = time.monotonic()
        """When the loop last turned; until then, when it was made."""
        self.connected = False
        """Whether the broker was within reach at that time."""
        self.refused: frozenset[str] = frozenset()
        """Topics that it did not let us read."""
        self._describe(spec)
        self._define_ingest()
        self._define_fleet()
        self._define_rounds()
        self._define_broker()

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(name, about, labels, registry=self.registry)

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(name, about, labels, registry=self.registry)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, about, registry=self.registry, buckets=buckets)

    def _describe(self, spec: Spec) -> None:
        registry = self.registry
        ProcessCollector(registry=registry)
        build = Info("tmf_build", "The aggregator's version and its Python's.", registry=registry)
        build.info({"version": __version__, "python": platform.python_version()})
        fleet = Info("tmf_fleet", "The fleet and its model's lineage.", registry=registry)
        fleet.info({"fleet": spec.fleet, "lineage": f"{spec.lineage:08x}"})

    def _define_ingest(self) -> None:
        updates = self._counter(
            "tmf_updates_total", "Updates that came in: accepted, or why not.", "result"
        )
        results = [ACCEPTED, *(reason.value for reason in RejectReason)]
        self._updates = {result: updates.labels(result) for result in results}
        traffic = self._counter(
            "tmf_board_bytes_total", "Bytes that boards say they sent and received.", "direction"
        )
        self._up, self._down = traffic.labels("up"), traffic.labels("down")
        self._lag = self._histogram(
            "tmf_ingest_lag_seconds",
            "From reading a group's first message off the socket until its receipts are sent.",
            LAG_BUCKETS,
        )
        self._commits = self._histogram(
            "tmf_journal_commit_seconds",
            "A transaction of the journal, until it is on the disk.",
            COMMIT_BUCKETS,
        )

    def _define_fleet(self) -> None:
        state = self._gauge(
            "tmf_state", "What the fleet is doing: 1 for one state, else 0.", "state"
        )
        self._states = {each: state.labels(each.value) for each in State}
        self._round = self._gauge("tmf_round", "Rounds that are over.")
        self._version = self._gauge("tmf_model_version", "The published model's version.")
        boards = self._gauge("tmf_boards", "Boards by what they last said of themselves.", "state")
        self._boards = {each: boards.labels(each.value) for each in Availability}
        self._invited = self._gauge("tmf_round_invited_boards", "Boards invited to the open round.")
        self._answered = self._gauge(
            "tmf_round_answered_boards", "Boards whose updates are in the open round."
        )

    def _define_rounds(self) -> None:
        self._rounds = self._histogram(
            "tmf_round_duration_seconds",
            "Closed rounds, from announcement to close, while the broker was within reach.",
            ROUND_BUCKETS,
        )
        self._degraded = self._counter(
            "tmf_rounds_degraded_total", "Closed rounds during which the broker dropped messages."
        )
        self._empty = self._counter(
            "tmf_round_empty_deadlines_total", "Deadlines that passed without any update."
        )
        self._loss = self._gauge("tmf_query_loss", "Query loss of the last closed round.")
        self._support_loss = self._gauge(
            "tmf_support_loss", "Support loss of the last closed round."
        )
        self._accuracy = self._gauge(
            "tmf_query_accuracy_ratio",
            "Share of classes predicted correctly in the last closed round.",
        )
        for learned in (self._loss, self._support_loss, self._accuracy):
            learned.set(nan)  # Zero would be a perfect loss.

    def _define_broker(self) -> None:
        self._connected = self._gauge("tmf_broker_connected", "1 while the broker is within reach.")
        self._connections = self._counter(
            "tmf_broker_connections_total", "How often the broker has accepted us."
        )
        self._connections_before = 0
        self._dropped = self._counter(
            "tmf_broker_dropped_messages_total", "Messages that the broker says it has dropped."
        )

    def turned(
        self, core: RoundCore, version: int, away: AvailabilityCounter, transport: Transport
    ) -> None:
        """The service's loop has turned, and this is how things stand."""
        self.turned_at = time.monotonic()
        self.connected, self.refused = transport.connected, transport.refused
        self._connected.set(transport.connected)
        self._connections.inc(transport.connections - self._connections_before)
        self._connections_before = transport.connections
        for state, value in self._states.items():
            value.set(state is core.state)
        self._round.set(core.round)
        self._version.set(version)
        cohort = core.cohort or Cohort(0)
        self._invited.set(len(cohort.invited))
        self._answered.set(len(cohort.answered))
        for availability, boards in self._boards.items():
            awake = availability is Availability.AWAKE
            boards.set(len(core.awake) if awake else away.count[availability])

    def taken(self, taken: IngestResult, up: int, down: int, seconds: float) -> None:
        """A group of updates is dealt with.

        Args:
            taken: what came of them.
            up: bytes that their boards have sent since their updates before.
            down: bytes that these have received since.
            seconds: from reading its first message until its receipts were sent.
        """
        self._updates[ACCEPTED].inc(len(taken.accepted))
        for reason, number in Tally(rejected.reason for rejected in taken.rejected).items():
            self._updates[reason.value].inc(number)
        self._up.inc(up)
        self._down.inc(down)
        if taken.receipts:
            self._lag.observe(seconds)

    def committed(self, seconds: float) -> None:
        """The journal has committed a transaction, which took so long."""
        self._commits.observe(seconds)

    def nobody_answered(self) -> None:
        """A deadline has passed without an update."""
        self._empty.inc()

    def round_closed(self, facts: RoundFacts) -> None:
        """A round is closed."""
        self._rounds.observe(facts.seconds)
        self._degraded.inc(facts.degraded)
        self.learned(facts)

    def learned(self, facts: RoundFacts) -> None:
        """What the last closed round says of the model, also after a restart."""
        self._loss.set(facts.loss)
        self._support_loss.set(facts.support_loss)
        self._accuracy.set(nan if facts.accuracy is None else facts.accuracy)

    def broker_dropped(self, messages: int) -> None:
        """The broker's own counter has moved by so many messages."""
        self._dropped.inc(messages)
