"""A fleet in one process: rounds as boards and the aggregator play them, and how good they get."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from protocol import sparse
from rounds.model import GlobalModel
from rounds.strategy import cosine_step
from rounds.sums import PartialSum
from simulation.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from protocol.spec import Spec
    from simulation.tasks import Tasks


def play(spec: Spec, tasks: Tasks, seed: int = 0) -> Iterator[GlobalModel]:
    """The model after each of the spec's rounds; another task for each board in each of them."""
    rng = np.random.default_rng(seed)
    model = GlobalModel(spec)
    engine = Engine(spec, spec.rounds.cohort)
    for round_ in range(spec.rounds.count):
        x, y = tasks.draw(rng, engine.boards)
        _begin(spec, engine, model.published, rng)
        for i in range(len(x)):
            engine.step(x[i], y[i], local=i < spec.training.support)
        total = PartialSum(spec.global_count)
        for changes in engine.flat(local=False) - model.published:
            chosen = sparse.top_indices(changes, spec.plan.top)
            sent = sparse.decode(sparse.encode(changes, chosen, spec.tensors), spec.tensors)
            total.changes[sent.indices] += sent.changes
            total.weight += 1
        model.advance(total, cosine_step(spec.rounds, round_))
        yield model


def accuracy(
    spec: Spec, published: NDArray[np.int16], tasks: Tasks, boards: int = 200, seed: int = 0
) -> tuple[float, float]:
    """Share of query samples told right by boards that have learned from their support samples.

    Args:
        spec: the fleet's.
        published: its global parameters.
        tasks: which a draw for each board is taken from.
        boards: in the test.
        seed: of the draws; the same one gives the same tasks.

    Returns:
        The mean over boards and its standard error.
    """
    rng = np.random.default_rng(seed)
    engine = Engine(spec, boards)
    x, y = tasks.draw(rng, boards)
    _begin(spec, engine, published, rng)
    support = spec.training.support
    for i in range(support):
        engine.step(x[i], y[i], local=True)
    told = [engine.forward(x[i])[-1].argmax(axis=1) == y[i, :, 0] for i in range(support, len(x))]
    shares = np.mean(told, axis=0)
    return float(shares.mean()), float(shares.std() / np.sqrt(boards))


def _begin(
    spec: Spec, engine: Engine, published: NDArray[np.int16], rng: np.random.Generator
) -> None:
    """Bring every board to the start of a round."""
    engine.load(published, local=False)
    engine.load(spec.local_start(), local=True)
    engine.seed([int(seed) for seed in rng.integers(2**32, size=engine.boards)])
