"""A fleet in one process: rounds as boards and the aggregator play them, and how good they get.

The boards' engine may be the fixed-point one, which says what boards do bit for bit, or the float64
one, to hold it against; codec and aggregation are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from protocol import feedback, fixed, sparse
from rounds.combine import rule_of
from rounds.model import GlobalModel
from rounds.optimizers import cosine_step
from rounds.sums import PartialSum
from simulation.engine.passes import ONLINE, Passes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from protocol.fixed import Words
    from protocol.spec.spec import Spec
    from simulation.engine.fixed import Engine
    from simulation.engine.float64 import FloatEngine
    from simulation.tasks.base import Tasks


@dataclass(frozen=True)
class Evaluation:
    """How boards do that have learned from their support samples, by their query samples.

    Each field has a value a board, shape (boards,).
    """

    loss: NDArray[np.float64]
    """Mean squared error, or cross-entropy in nats."""
    accuracy: NDArray[np.float64]
    """Share of samples told right; of classes."""


def honest(changes: Words) -> Words:
    """What boards learned, as they send it."""
    return changes


def play(
    spec: Spec,
    tasks: Tasks,
    engine: Engine | FloatEngine,
    seed: int = 0,
    claim: Callable[[Words], Words] = honest,
) -> Iterator[GlobalModel]:
    """The model after each of the spec's rounds.

    Args:
        spec: the fleet's.
        tasks: another one for each board in each round.
        engine: its boards take part in every round.
        seed: of the tasks and of stochastic rounding.
        claim: makes of what boards learned what they claim, for boards that are not honest; shapes
            (boards, parameters). A board for which there is no row has not answered.
    """
    rng = np.random.default_rng(seed)
    model = GlobalModel(spec)
    rule = rule_of(spec.rounds)
    plan = spec.plan
    residuals = np.zeros((engine.boards, spec.global_count), np.int16)
    for round_ in range(spec.rounds.count):
        x, y = tasks.draw(rng, engine.boards)
        _begin(spec, engine, model.published, rng)
        for i in range(len(x)):
            engine.step(x[i], y[i], local=i < spec.training.support)
        total = PartialSum(spec.global_count, clip=spec.rounds.clip)
        updates = []
        learned = np.rint(engine.flat(local=False)).astype(np.int64)
        for board, changes in enumerate(claim(learned - model.published)):
            block, left = feedback.encode(
                changes, residuals[board], plan.top, spec.tensors, plan.value_bits
            )
            if plan.feedback:
                residuals[board] = left
            sent = sparse.decode(block, spec.tensors)
            total.add_changes(sent)
            updates.append((f"{board:06}", sent))
        combined = rule.combine([(1.0, total)], updates)
        model.advance(combined.change, cosine_step(spec.rounds, round_))
        yield model


def measure(  # noqa: PLR0913 - the last three have defaults
    spec: Spec,
    published: NDArray[np.integer | np.floating],
    tasks: Tasks,
    engine: Engine | FloatEngine,
    seed: int = 0,
    *,
    round_: int = 0,
    passes: Passes = ONLINE,
) -> Evaluation:
    """Let each of the engine's boards reconstruct once, and ask it its query samples.

    Args:
        spec: the fleet's.
        published: its global parameters.
        tasks: which one for each board is drawn from.
        engine: of as many boards as there are tasks to measure.
        seed: of the draws; the same one gives the same tasks.
        round_: when it is, for tasks that change with time.
        passes: over the support samples. Where no layer is local, all learn from them.
    """
    rng = np.random.default_rng(seed)
    x, y = tasks.draw(rng, engine.boards, round_)
    _begin(spec, engine, published, rng)
    support = spec.training.support
    passes.learn(engine, x[:support], y[:support], local=spec.has_local)
    invited = range(support, len(x))
    outputs = np.array([engine.forward(x[i])[-1] for i in invited])
    return _judge(spec, outputs, y[support:])


def _judge(spec: Spec, outputs: NDArray[np.number], labels: Words) -> Evaluation:
    """Measure outputs in activation format, shape (samples, boards, outputs)."""
    z = outputs.astype(np.float64) * 2.0**-fixed.ACTIVATION_BITS
    if not spec.is_classifier:
        squares = (z - labels * 2.0**-fixed.ACTIVATION_BITS) ** 2
        return Evaluation(squares.mean(axis=(0, 2)), np.zeros(z.shape[1]))
    z = z - z.max(axis=2, keepdims=True)
    own = np.take_along_axis(z, labels, axis=2)[:, :, 0]
    loss = np.log(np.exp(z).sum(axis=2)) - own
    claim = z.argmax(axis=2) == labels[:, :, 0]
    return Evaluation(loss.mean(axis=0), claim.mean(axis=0))


def _begin(
    spec: Spec,
    engine: Engine | FloatEngine,
    published: NDArray[np.integer | np.floating],
    rng: np.random.Generator,
) -> None:
    """Bring every board to the start of a round."""
    engine.load(published, local=False)
    engine.load(spec.local_start(), local=True)
    engine.seed([int(seed) for seed in rng.integers(2**32, size=engine.boards)])
