"""The aggregator's side of a simulation: the same rounds, intake and learning as the service's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from protocol.messages import Round
from rounds.core import RoundCore
from rounds.intake import Intake
from rounds.learning import Learning, Version
from rounds.model import GlobalModel
from rounds.outcome import outcome_of
from simulation.errors import SimulationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocol.sparse import Sparse
    from protocol.spec.spec import Spec
    from rounds.combine import Rule
    from rounds.core import Announce, Close
    from rounds.learning import Basis, CanaryGroup
    from rounds.optimizers import Optimizer
    from rounds.outcome import RoundOutcome
    from simulation.traffic import Traffic


@dataclass(frozen=True)
class OpenRound:
    """A round as boards hear of it."""

    round: int
    attempt: int
    """How often it was announced before."""
    canary_group: CanaryGroup
    """Who tries out the canary version."""
    stable: GlobalModel
    """The version that all others work on."""
    canary: GlobalModel
    """The canary version; the stable one where there is none."""


class Server:
    """Checks, counts and learns, without a journal and without a broker.

    Args:
        spec: the fleet's.
        traffic: told what is published.
        most_entries: of an update's changes.
        rule: combines updates instead of the spec's.
        optimizer: follows the rounds' changes instead of the spec's.
    """

    def __init__(
        self,
        spec: Spec,
        traffic: Traffic,
        *,
        most_entries: int,
        rule: Rule | None = None,
        optimizer: Optimizer | None = None,
    ) -> None:
        self.core = RoundCore(spec.rounds)
        self.learning = Learning(spec, Version(GlobalModel(spec, optimizer)), rule=rule)
        self._spec = spec
        self._lineage = spec.lineage
        self._traffic = traffic
        self._intake = Intake(spec, self.core, most_entries=most_entries)
        self._updates: list[tuple[Basis, str, Sparse]] = []  # One by one, for some rules.
        self._open: OpenRound | None = None

    @property
    def open_round(self) -> OpenRound | None:
        """The announced round; None where none is announced."""
        return None if self.core.cohort is None else self._open

    def take_in(self, payloads: Sequence[bytes]) -> None:
        """Sum the updates that have arrived, as one group, and publish their receipts.

        Raises:
            SimulationError: one is rejected. No board here sends what nobody wants.
        """
        found = self._intake.check((None, payload) for payload in payloads)
        if found.rejected:
            first = found.rejected[0]
            raise SimulationError(
                f"an update is rejected as {first.reason.value} ({first.detail}): this is a fault "
                "of the simulation, please report it"
            )
        self._intake.count(found.candidates)
        for update, changes, _, _ in found.candidates.values():
            basis = self._intake.basis(update, self._intake.round)
            self._updates.append((basis, update.board, changes))
        for round_, boards in found.receipts.items():
            self._traffic.receipts(round_, boards)

    def announce(self, announced: Announce) -> None:
        """Announce a round, for the first time or again."""
        group, rules = self.learning.canary_group(), self._spec.rounds
        stable, newest = self.learning.stable.model, self.learning.newest.model
        message = Round(
            lineage=self._lineage,
            round=announced.round,
            version=stable.version,
            ticket_limit=announced.ticket_limit,
            deadline=int(rules.deadline * 1000),
            chosen=announced.chosen,
            max_age=rules.oldest,
            canary_version=group.version,
            canary_share=group.share,
        )
        self._intake.announced(announced.round, group)
        self._open = OpenRound(
            round=announced.round,
            attempt=announced.empty_deadlines,
            canary_group=group,
            stable=stable,
            canary=newest,
        )
        self._traffic.announce(message.pack())

    def withdraw(self) -> None:
        """No round is open."""
        self._open = None

    def close(self, closed: Close) -> tuple[RoundOutcome, Version | None]:
        """Learn from a round.

        Returns:
            What it came to; and the version that is published, if all boards get another one.
        """
        sums, updates = self._intake.take_sums(), self._updates
        self._updates = []
        before = self.learning.stable.model.version
        result = self.learning.close(sums, updates, closed.round)
        stable = self.learning.stable
        if stable.model.version == before:
            return outcome_of(self._spec, closed, sums, result), None
        self._traffic.model(stable.delta)
        return outcome_of(self._spec, closed, sums, result), stable
