"""What boards do with a round's samples, many at once, and where: here, or in several processes."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import numpy as np

from protocol import feedback, fixed, sparse
from simulation.conditions import POISON_STREAM, TASKS_STREAM, Poisoning
from simulation.engine.passes import ONLINE, Passes, begin_round
from simulation.errors import SimulationError
from simulation.processes import leave_interrupts, spawning
from simulation.tasks.base import stacked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from protocol.fixed import Words
    from protocol.messages import Plan
    from protocol.spec.spec import Spec
    from simulation.engine.fixed import Engine
    from simulation.engine.float64 import FloatEngine
    from simulation.tasks.base import Tasks

    Selection = Callable[[Words, "Order"], NDArray[np.bool_]]
    """Which of their changes boards send; those and the answer have the shape (boards, n)."""

AT_ONCE: Final = 256
"""Boards in a batch, whatever the number of processes. More are hardly faster for each."""

_LOSS_MOST: Final = 2**31 - 1
"""Largest sum of losses that there can be: see :mod:`protocol.fixed`."""


class Order(NamedTuple):
    """Boards that learn from the same version in the same round."""

    round: int
    published: NDArray[np.int16]
    """The version's global parameters."""
    boards: tuple[int, ...]
    residuals: NDArray[np.int16] | None
    """What each board has not sent yet, shape (boards, parameters), where the spec keeps it."""

    def parts(self) -> list[Order]:
        """The same in batches."""
        return [
            self._replace(
                boards=self.boards[at : at + AT_ONCE],
                residuals=None if self.residuals is None else self.residuals[at : at + AT_ONCE],
            )
            for at in range(0, len(self.boards), AT_ONCE)
        ]


class LocalUpdate(NamedTuple):
    """What a board has to send."""

    block: bytes
    """Its changes, see :mod:`protocol.sparse`."""
    residual: NDArray[np.int16] | None
    support_loss: int
    """In loss format, summed, each before it was learned from; likewise ..."""
    query_loss: int
    query_correct: int


@dataclass(frozen=True)
class Trainer:
    """A fleet's boards while they learn.

    Args:
        spec: the fleet's.
        names: of the boards, by number.
        tasks: where they have their samples from.
        engine: the boards' arithmetic, or float64.
        poisoned: who sends something else than it has learned.
        seed: of samples and noise. Stochastic rounding is seeded as on a board.
        passes: over the samples of each phase.
        sends: which changes, for boards that do not send the spec's largest.
    """

    spec: Spec
    names: Sequence[str]
    tasks: Tasks
    engine: type[Engine | FloatEngine]
    poisoned: Poisoning
    seed: int
    passes: Passes = ONLINE
    sends: Selection | None = None

    @cached_property
    def _plan(self) -> Plan:
        return self.spec.plan

    @property
    def most_entries(self) -> int:
        """Of an update's changes: the plan's, unless boards choose themselves what they send."""
        return self._plan.top if self.sends is None else self.spec.global_count

    @cached_property
    def _liars(self) -> frozenset[str]:
        return self.poisoned.among(self.names, self.seed)

    def train(self, order: Order) -> list[LocalUpdate]:
        """Let boards learn for a round."""
        spec, published, round_ = self.spec, order.published, order.round
        engine = self.engine(spec, len(order.boards))
        names = [self.names[board] for board in order.boards]
        seeds = [fixed.fnv1a(f"{spec.fleet}/{name}/{round_}") for name in names]
        begin_round(engine, spec, published, seeds)
        x, y = stacked(
            [
                self.tasks.samples(board, round_, self._rng(TASKS_STREAM, round_, board))
                for board in order.boards
            ]
        )
        support = spec.training.support
        losses = np.zeros((2, len(names)))
        losses[0], _ = self.passes.learn(engine, x[:support], y[:support], local=spec.has_local)
        losses[1], correct = self.passes.learn(engine, x[support:], y[support:], local=False)
        blocks, residuals = self._encode(order, self._changes(engine, order))
        # In float64 a network may diverge, where a board's would saturate.
        sums = np.nan_to_num(np.rint(losses), nan=_LOSS_MOST).clip(0, _LOSS_MOST)
        support_losses, query_losses = sums.astype(np.int64).tolist()
        facts = zip(blocks, residuals, support_losses, query_losses, correct.tolist(), strict=True)
        return [LocalUpdate(*of_board) for of_board in facts]

    def _changes(self, engine: Engine | FloatEngine, order: Order) -> Words:
        """What the boards say that they have learned, in weight units."""
        weights = np.nan_to_num(np.rint(engine.flat(local=False)))
        learned = weights.clip(fixed.WEIGHT_MIN, fixed.WEIGHT_MAX).astype(np.int64)
        changes: Words = learned - order.published
        for row, board in enumerate(order.boards):
            if self.names[board] in self._liars:
                rng = self._rng(POISON_STREAM, order.round, board)
                changes[row] = self.poisoned.claims(changes[row], rng)
        return changes

    def _encode(
        self, order: Order, changes: Words
    ) -> tuple[list[bytes], Iterable[NDArray[np.int16] | None]]:
        if self.sends is not None:
            return self._encode_chosen(order, changes, self.sends)
        top, bits, tensors = self._plan.top, self._plan.value_bits, self.spec.tensors
        if order.residuals is not None:
            return feedback.encode_all(changes, order.residuals, top, tensors, bits)
        return sparse.encode_all(changes, top, tensors, bits), [None] * len(changes)

    def _encode_chosen(
        self, order: Order, changes: Words, sends: Selection
    ) -> tuple[list[bytes], Iterable[NDArray[np.int16] | None]]:
        """The same codec: without those that stay, it takes all changes that there are."""
        wanted, nothing = changes, np.zeros(changes.shape, np.int16)
        if order.residuals is not None:
            wanted = np.clip(changes + order.residuals, -sparse.LARGEST, sparse.LARGEST)
        chosen = np.where(sends(wanted, order), wanted, 0)
        all_, bits = self.spec.global_count, self._plan.value_bits
        blocks, rounded = feedback.encode_all(chosen, nothing, all_, self.spec.tensors, bits)
        if order.residuals is None:
            return blocks, [None] * len(changes)
        left = wanted - chosen + rounded
        return blocks, np.clip(left, fixed.WEIGHT_MIN, fixed.WEIGHT_MAX).astype(np.int16)

    def _rng(self, stream: int, round_: int, board: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, stream, round_, board))


class Crew:
    """Does a trainer's work in one process or several; the outcome is the same.

    Args:
        trainer: what to do.
        processes: this one alone, or so many others.
    """

    def __init__(self, trainer: Trainer, processes: int = 1) -> None:
        self._trainer = trainer
        self._pool: ProcessPoolExecutor | None = None
        if processes > 1:
            self._pool = ProcessPoolExecutor(processes, spawning(), _start, (trainer,))

    @property
    def most_entries(self) -> int:
        """Of an update's changes."""
        return self._trainer.most_entries

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def train(self, orders: Sequence[Order]) -> list[list[LocalUpdate]]:
        """Let the boards of some orders learn.

        Raises:
            SimulationError: a process of the pool has died.
        """
        parts = [part for order in orders for part in order.parts()]
        done: Iterator[list[LocalUpdate]]
        if self._pool is None:
            done = map(self._trainer.train, parts)
        else:
            done = self._pool.map(_train, parts)
        try:
            return [[learned for _ in order.parts() for learned in next(done)] for order in orders]
        except BrokenProcessPool as error:
            raise SimulationError(
                "a process of the simulation has died, perhaps for want of memory: run fewer"
            ) from error


_trainer: Trainer


def _start(trainer: Trainer) -> None:
    """In a process of the pool."""
    global _trainer  # noqa: PLW0603 - a process has one
    leave_interrupts()
    _trainer = trainer


def _train(order: Order) -> list[LocalUpdate]:
    return _trainer.train(order)
