"""A fleet's rounds in virtual time: the aggregator's own decisions, carried out by many boards.

The round core, what it lets in, what it learns, the messages and the sparse blocks are those of the
service. What lies between is replaced by a queue of events in virtual time: a board begins, and is
done after as long as it takes; it falls silent, goes to sleep, wakes up. Boards that begin at the
same moment learn in one batch. A message takes no time and is never lost.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from rounds.core import Announce, Close, State, Withdraw
from simulation.clock import Clock
from simulation.population import Population
from simulation.record import Record
from simulation.server import Server
from simulation.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from protocol.spec.spec import Spec
    from rounds.combine import Rule
    from rounds.core import Decision, RoundCore
    from rounds.learning import Learning
    from rounds.model import GlobalModel
    from rounds.optimizers import Optimizer
    from simulation.boards import Crew
    from simulation.conditions import Conditions


def board_names(boards: int) -> list[str]:
    """Names of so many boards, all of one length."""
    return [f"board-{number:0{len(str(boards - 1))}}" for number in range(boards)]


class Run:
    """One run of a fleet.

    Args:
        spec: the fleet's.
        names: of the boards, by number.
        crew: trains them.
        conditions: what befalls them.
        seed: of what befalls them.
        rule: combines updates instead of the spec's.
        optimizer: follows the rounds' changes instead of the spec's.
    """

    def __init__(  # noqa: PLR0913 - the last three have defaults
        self,
        spec: Spec,
        names: Sequence[str],
        crew: Crew,
        conditions: Conditions,
        seed: int = 0,
        *,
        rule: Rule | None = None,
        optimizer: Optimizer | None = None,
    ) -> None:
        self.spec = spec
        self.traffic = Traffic(spec, names)
        self._clock = Clock()
        self._server = Server(
            spec, self.traffic, most_entries=crew.most_entries, rule=rule, optimizer=optimizer
        )
        self._boards = Population(
            spec=spec,
            names=names,
            crew=crew,
            conditions=conditions,
            seed=seed,
            clock=self._clock,
            core=self.core,
            traffic=self.traffic,
        )
        self._bytes = (0, 0)

    @property
    def core(self) -> RoundCore:
        """The life of the rounds."""
        return self._server.core

    @property
    def learning(self) -> Learning:
        """The live versions of the model."""
        return self._server.learning

    @property
    def model(self) -> GlobalModel:
        """The version that every board gets."""
        return self.learning.stable.model

    @property
    def now(self) -> float:
        """Virtual seconds since the run began."""
        return self._clock.now

    def rounds(self) -> Iterator[Record]:
        """Play the spec's rounds, once; yields each when it closes.

        Raises:
            SimulationError: a process of the crew has died.
        """
        self._boards.set_out()
        while True:
            self._server.take_in(self._boards.take_sent())
            self._boards.put_to_sleep()
            yield from self._carry_out(self.core.tick(self.now))
            if self.core.state is State.DONE:
                return
            if self.core.state is State.GATHERING and self.core.awake:
                self._clock.wake_after(self.spec.rounds.deadline)
            self._boards.begin(self._server.open_round)
            self._clock.pass_time()

    def _carry_out(self, decisions: Sequence[Decision]) -> Iterator[Record]:
        for decision in decisions:
            match decision:
                case Announce():
                    self._server.announce(decision)
                    self._boards.hear_of(decision.round, decision.invited)
                    self._clock.wake_after(self.spec.rounds.deadline)
                case Close():
                    yield self._close(decision)
                case Withdraw():
                    self._server.withdraw()

    def _close(self, closed: Close) -> Record:
        outcome, published = self._server.close(closed)
        if published is not None:
            self._boards.follow(published)
        sent = int(self.traffic.up.sum()), int(self.traffic.down.sum())
        (up, down), self._bytes = self._bytes, sent
        return Record(
            **asdict(outcome),
            version=self.learning.newest.model.version,
            bytes_up=sent[0] - up,
            bytes_down=sent[1] - down,
            seconds=self.now,
        )
