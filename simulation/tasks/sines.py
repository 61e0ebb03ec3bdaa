"""Sines: the paper's first task, which needs no data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from protocol import fixed
from simulation.tasks.base import Tasks

if TYPE_CHECKING:
    from protocol.fixed import Words
    from protocol.spec.spec import Spec


@dataclass(frozen=True)
class SineTasks(Tasks):
    """Sines of amplitude 0.1 to 5 and any phase, x from -5 to 5: the paper's first task."""

    count: int
    """Samples of a task, support and query."""

    @classmethod
    def of(cls, spec: Spec) -> SineTasks:
        """Tasks for a spec of one input and one output."""
        return cls(spec.training.support + spec.training.query)

    def samples(self, board: int, round_: int, rng: np.random.Generator) -> tuple[Words, Words]:
        """Another sine, whichever board it is."""
        del board
        x, y = self.draw(rng, 1, round_)
        return x[:, 0], y[:, 0]

    def draw(self, rng: np.random.Generator, boards: int, round_: int = 0) -> tuple[Words, Words]:
        """Another sine for each board, drawn together."""
        del round_
        x = rng.uniform(-5, 5, (self.count, boards, 1))
        amplitude = rng.uniform(0.1, 5, (boards, 1))
        phase = rng.uniform(0, 2 * np.pi, (boards, 1))
        return fixed.to_activation(x), fixed.to_activation(amplitude * np.sin(x + phase))

    @property
    def pooled_outputs(self) -> int:
        """The value."""
        return 1

    def pooled(self, rng: np.random.Generator, samples: int) -> tuple[Words, Words]:
        """Points of as many sines as there are tasks among so many samples."""
        x, y = self.draw(rng, -(-samples // self.count))
        order = rng.permutation(samples)
        return x.reshape(-1, 1)[order], y.reshape(-1, 1)[order]
