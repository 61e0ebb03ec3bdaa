"""A fleet in one process: boards' arithmetic, the real codec and the aggregator's own model.

The boards' engine may be the fixed-point one, which says what boards do bit for bit, or the float64
one, to hold it against; codec and aggregation are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from protocol import fixed, sparse
from rounds.strategy import cosine_step
from rounds.sums import PartialSum

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from protocol.spec import Spec
    from rounds.model import GlobalModel
    from simulation.engine import Engine
    from simulation.float64 import FloatEngine


class Tasks(Protocol):
    """Where a fleet's samples come from."""

    def draw(self, round_: int, boards: int) -> tuple[NDArray[np.float64], NDArray[np.generic]]:
        """A task for each board: support samples, then query samples.

        Returns:
            x, shape (boards, samples, inputs), and labels, shape (boards, samples, outputs), or
            classes, shape (boards, samples, 1).
        """


@dataclass(frozen=True)
class Measured:
    """What a fleet's boards measured in a round, each sample before it was learned from."""

    loss: float
    """Mean over the query samples; of the mean squared error, over the outputs too."""
    accuracy: float
    """Share of the query samples whose class was told."""


def play(
    spec: Spec, tasks: Tasks, engine: Engine | FloatEngine, model: GlobalModel
) -> Iterator[Measured]:
    """Play the spec's rounds: all of the engine's boards take part in each.

    Args:
        spec: of the fleet; its seed starts stochastic rounding.
        tasks: one for each board and round.
        engine: the boards' arithmetic, or float64.
        model: moves on by a version a round.
    """
    for round_ in range(spec.rounds.count):
        measured = train(spec, tasks, engine, model, round_)
        total = PartialSum(spec.global_count)
        for theta in engine.flat(local=False):
            changes = np.rint(theta).astype(np.int64) - model.published
            chosen = sparse.top_indices(changes, spec.plan.top)
            block = sparse.encode(changes, chosen, spec.tensors, spec.training.value_bits)
            decoded = sparse.decode(block, spec.tensors)
            total.changes[decoded.indices] += decoded.changes
            total.weight += 1
        model.advance(total, cosine_step(spec.rounds, round_))
        yield measured


def train(
    spec: Spec, tasks: Tasks, engine: Engine | FloatEngine, model: GlobalModel, round_: int
) -> Measured:
    """What boards do in a round: reconstruct, then update; the engine holds what they learned."""
    boards = engine.boards
    inputs, labels = engine.take(*tasks.draw(round_, boards))
    engine.load(model.published, local=False)
    engine.load(spec.local_start(), local=True)
    engine.seed([fixed.fnv1a(f"{spec.fleet}/{spec.seed}/{b}/{round_}") for b in range(boards)])
    loss = told = 0.0
    for sample in range(inputs.shape[1]):
        is_support = sample < spec.training.support
        losses, right = engine.step(inputs[:, sample], labels[:, sample], local=is_support)
        if not is_support:
            loss += float(losses.sum()) * engine.loss_unit
            told += float(right.sum())
    samples = boards * spec.training.query
    outputs = spec.layers[-1].outputs if spec.model.loss == "mse" else 1
    return Measured(loss / samples / outputs, told / samples)


class Sines:
    """The paper's first task: sines of amplitude 0.1 to 5 and any phase, x from -5 to 5."""

    def __init__(self, spec: Spec, seed: int) -> None:
        self._samples = spec.training.support + spec.training.query
        self._seed = seed

    def draw(self, round_: int, boards: int) -> tuple[NDArray[np.float64], NDArray[np.generic]]:
        """Another sine for each board and round."""
        rng = np.random.default_rng((self._seed, round_))
        x = rng.uniform(-5, 5, (boards, self._samples, 1))
        amplitude = rng.uniform(0.1, 5, (boards, 1, 1))
        return x, amplitude * np.sin(x + rng.uniform(0, 2 * np.pi, (boards, 1, 1)))
