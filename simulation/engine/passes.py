"""How a board goes through a phase's samples: once, one at a time, or stored and in batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from protocol.fixed import Words
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
            Sums of the losses in loss format and of the classes told, each before it was learned
            from for the first time; shapes (boards,).
        """
        loss, correct = np.zeros(engine.boards), np.zeros(engine.boards, np.int64)
        for epoch in range(self.epochs):
            for at in range(0, len(x), self.batch):
                if self.batch == 1:
                    facts = engine.step(x[at], y[at], local=local)
                else:
                    some = slice(at, at + self.batch)
                    batch = x[some].swapaxes(0, 1), y[some].swapaxes(0, 1)
                    facts = engine.step(*batch, local=local)
                if epoch == 0:
                    loss, correct = loss + facts[0], correct + facts[1]
        return loss, correct


ONLINE: Final = Passes()
"""As boards learn: no sample is stored."""
