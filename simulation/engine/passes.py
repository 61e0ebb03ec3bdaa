"""How a board begins a round and goes through its samples: one at a time, or in stored batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from protocol.fixed import Words
    from protocol.spec.spec import Spec
    from simulation.engine.fixed import Engine
    from simulation.engine.float64 import FloatEngine


@dataclass(frozen=True)
class Passes:
    """A phase's passes over its samples; only :class:`FloatEngine` steps by more than one."""

    batch: int = 1
    """Samples in a step."""
    epochs: int = 1
    """How often all samples are gone through, in the same order."""

    def learn(
        self, engine: Engine | FloatEngine, x: Words, y: Words, *, local: bool
    ) -> tuple[NDArray[np.number], NDArray[np.number]]:
        """Let the engine's boards learn from their samples.

        Args:
            engine: of the boards.
            x: shape (samples, boards, inputs).
            y: shape (samples, boards, outputs or 1).
            local: which side learns.

        Returns:
            Sums of the losses in loss format and of the correct classes, each before it was learned
            from for the first time; shapes (boards,).
        """
        loss, correct = np.zeros(engine.boards), np.zeros(engine.boards, np.int64)
        for epoch in range(self.epochs):
            for at in range(0, len(x), self.batch):
                if self.batch == 1:
                    facts = engine.step(x[at], y[at], local=local)
                else:
                    some = slice(at, at + self.batch)
                    facts = engine.step(x[some].swapaxes(0, 1), y[some].swapaxes(0, 1), local=local)
                if epoch == 0:
                    loss, correct = loss + facts[0], correct + facts[1]
        return loss, correct


ONLINE: Final = Passes()
"""As boards learn: no sample is stored."""


def begin_round(
    engine: Engine | FloatEngine,
    spec: Spec,
    published: NDArray[np.integer | np.floating],
    seeds: Sequence[int],
) -> None:
    """Bring every board of an engine to the start of a round.

    Args:
        engine: of the boards.
        spec: the fleet's; its seed gives the local parameters.
        published: the global parameters, in weight units; shape (parameters,).
        seeds: of stochastic rounding, one a board.
    """
    engine.load(published, local=False)
    engine.load(spec.local_start(), local=True)
    engine.seed(seeds)
