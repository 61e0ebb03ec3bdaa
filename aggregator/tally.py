"""What a fleet has done so far, counted over all rounds of its lineage and over restarts."""

from collections import Counter
from collections.abc import Iterable

from aggregator.fleet import Fleet
from aggregator.history import Counters, RoundFacts, Traffic
from protocol.progress import Progress
from rounds.cohort import Cohort


class Tally:
    """Counts for the progress topic.

    Args:
        traffic: each board's counters when the last round was closed.
    """

    def __init__(self, traffic: Iterable[Counters]) -> None:
        self.traffic = Traffic(traffic)
        self.rejected_now = Counter[str]()
        """Messages refused since the last round was closed, by reason."""
        self.dropped_now = 0
        """Messages that the broker dropped while the round was open."""
        self.begin([])

    def begin(self, history: Iterable[RoundFacts]) -> None:
        """Count a lineage's closed rounds."""
        self.last: RoundFacts | None = None
        """The last closed round."""
        self._accepted = 0
        self._empty_deadlines = 0
        self._degraded = 0
        self._rejected = Counter[str]()
        for facts in history:
            self._count(facts)

    def closed(self, facts: RoundFacts) -> None:
        """A round is closed, with what was refused and dropped meanwhile."""
        self._count(facts)
        self.rejected_now.clear()
        self.dropped_now = 0

    def progress(self, fleet: Fleet) -> Progress:
        """What the progress topic says."""
        core, last, learning = fleet.core, self.last, fleet.learning
        cohort = core.cohort or Cohort(0)
        return Progress(
            state=core.state.value,
            round=core.round,
            rounds=fleet.spec.rounds.count,
            lineage=f"{fleet.spec.lineage:08x}",
            version=learning.stable.model.version,
            canary_version=learning.canary.model.version if learning.canary else None,
            loss=last.loss if last else None,
            support_loss=last.support_loss if last else None,
            accuracy=last.accuracy if last else None,
            note=last.note if last else "",
            epsilon=last.epsilon if last else None,
            accepted=self._accepted + len(core.counted),
            rejected=dict(self._rejected + self.rejected_now),
            bytes_up=self.traffic.up,
            bytes_down=self.traffic.down,
            awake=len(core.awake),
            invited=len(cohort.invited),
            answered=len(cohort.answered),
            empty_deadlines=self._empty_deadlines + cohort.empty_deadlines,
            degraded_rounds=self._degraded + (self.dropped_now > 0),
        )

    def _count(self, facts: RoundFacts) -> None:
        self.last = facts
        self._accepted += facts.accepted
        self._empty_deadlines += facts.empty_deadlines
        self._degraded += facts.degraded
        self._rejected.update(facts.rejected)
