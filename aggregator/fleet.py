"""A fleet in its present lineage: what the journal holds of it, alive."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Self

import numpy as np

from aggregator.history import Reports, RoundFacts, Traffic
from aggregator.ingest import Ingest
from aggregator.journal.journal import Journal
from protocol.commands import Apply, Import, RollBack
from protocol.errors import CommandError
from protocol.messages import Update
from protocol.spec.spec import Spec
from rounds.core import Announce, Close, RoundCore, State
from rounds.intake import Intake
from rounds.learning import CanaryGroup, Learning
from rounds.model import PUBLISHED_TYPE
from rounds.outcome import outcome_of
from rounds.privacy import Ledger, check_accountant


class Fleet:
    """The rounds, the model and the ingest of one spec.

    Args:
        journal: where the spec was started or adopted.
        spec: in the incarnation that the journal gave it.
        now: seconds on the round core's clock.

    Raises:
        StateError: here and in every method: the journal cannot be used.
        SpecError: it asks for privacy, whose accountant is not installed.
    """

    def __init__(self, journal: Journal, spec: Spec, now: float = 0.0) -> None:
        check_accountant(spec.rounds.privacy)
        self.spec = spec
        self._journal = journal
        self.learning: Learning = journal.learning(spec)
        round_, state = journal.position()
        late = journal.late(round_, spec.rounds.oldest, state)
        self.core = RoundCore(spec.rounds, round_, late.resumed, journal.known(), now)
        self._intake = Intake(
            spec, self.core, canaries=late.canaries, journaled_digest=journal.digest
        )
        self.ingest = Ingest(spec, self._intake, journal)
        self._ledger = Ledger(facts.noise for facts in journal.history())
        self.restored: list[Update] = self.ingest.restore(round_)
        """Updates of the open round that were journaled before."""

    @property
    def canary(self) -> CanaryGroup:
        """Who tries out which version in the open round."""
        return self._intake.canaries.get(self.core.round, self.learning.canary_group())

    def announce(self, announced: Announce) -> None:
        """Journal a round's announcement."""
        canary = self.learning.canary_group()
        self._journal.announce(announced, canary)
        self._intake.announced(announced.round, canary)

    def close(
        self, closed: Close, rejected: Mapping[str, int], traffic: Traffic, *, degraded: bool
    ) -> RoundFacts:
        """Make the next version of what a round has gathered, and journal it.

        Args:
            closed: the core's decision.
            rejected: messages refused meanwhile, by reason.
            traffic: knows the boards' counters.
            degraded: whether the broker dropped messages meanwhile.
        """
        sums = self._intake.take_sums()
        result = self.learning.close(sums, self.ingest.updates(closed.round), closed.round)
        privacy = self.spec.rounds.privacy
        noise = privacy.noise_multiplier if privacy else None
        self._ledger.add(noise)
        facts = RoundFacts(
            **asdict(outcome_of(self.spec, closed, sums, result)),
            seconds=closed.seconds,
            empty_deadlines=closed.empty_deadlines,
            rejected=dict(rejected),
            degraded=degraded,
            noise=noise,
            epsilon=self._ledger.epsilon(privacy.delta) if privacy else None,
        )
        boards = {board for _, board in closed.counted}
        self._journal.close_round(self.learning, facts, closed.counted, Reports(traffic, boards))
        return facts

    @property
    def may_change(self) -> bool:
        """Whether a plan or a version can be put in force: no board is at work."""
        return self.core.state is not State.COLLECTING

    def adopt(self, command: Apply, now: float) -> Self:
        """The fleet by the plan's spec.

        Raises:
            CommandError: the spec is another fleet's.
            SpecError: it cannot be used.
        """
        spec = command.read()
        if spec.fleet != self.spec.fleet:
            raise CommandError(
                f"apply: the spec is of fleet {spec.fleet!r}, this is {self.spec.fleet!r}"
            )
        check_accountant(spec.rounds.privacy)  # Before the journal holds it.
        other = type(self)(self._journal, self._journal.adopt(spec), now)
        for board in self.core.awake:
            other.core.board_awake(board, self.core.known.battery.get(board))
        return other

    def replace(self, command: RollBack | Import) -> str:
        """Go on with other weights; what was done, for people.

        Raises:
            CommandError: there are no such weights.
        """
        if isinstance(command, Import):
            origin, weights = "import", command.read(self.spec.global_count)
        else:
            origin = f"rollback {command.version}"
            kept = self._journal.weights(command.version)
            if kept is None:
                raise CommandError(f"rollback: no weights of version {command.version} are kept")
            weights = np.frombuffer(kept, PUBLISHED_TYPE)
        self.learning.replace(weights)
        self._journal.replace(self.learning, origin)
        return f"{origin} is version {self.learning.newest.model.version}"
