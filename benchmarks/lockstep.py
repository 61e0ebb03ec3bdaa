"""A fleet without rounds: the same boards learn together, step by step, and the rule combines.

There is no core, no message and no time, so two engines or two rules can be held against each
other with all else alike; codec and aggregation are those of the service.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from protocol import feedback, sparse
from rounds.combine import rule_of
from rounds.model import GlobalModel
from rounds.optimizers import cosine_step
from rounds.sums import PartialSum
from simulation.engine.passes import begin_round
from simulation.exam import rounding_seeds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from protocol.fixed import Words
    from protocol.spec.spec import Spec
    from simulation.engine.fixed import Engine
    from simulation.engine.float64 import FloatEngine
    from simulation.tasks.base import Tasks


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
        begin_round(engine, spec, model.published, rounding_seeds(rng, engine.boards))
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
