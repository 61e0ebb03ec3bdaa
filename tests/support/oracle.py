"""What a fleet must come to, computed in one process from the same samples."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from protocol import feedback, fixed, sparse
from protocol.spec.spec import Spec
from rounds.combine import rule_of
from rounds.model import GlobalModel
from rounds.optimizers import cosine_step
from rounds.sums import PartialSum
from simulation.engine.fixed import Engine

Sample = tuple[list[float], list[float] | int]
"""x, and y: values or a class."""
Samples = dict[str, list[list[Sample]]]
"""By board, for each round."""


def draw_samples(spec: Spec, boards: Sequence[str], seed: int) -> Samples:
    """Another task for each board and round: a sine, or which of a few drawings is whose."""
    rng = np.random.default_rng(seed)
    draw = _drawings if spec.is_classifier else _sines
    return {board: [draw(spec, rng) for _ in range(spec.rounds.count)] for board in boards}


def _sines(spec: Spec, rng: np.random.Generator) -> list[Sample]:
    x = rng.uniform(-5, 5, spec.training.support + spec.training.query)
    y = rng.uniform(0.1, 5) * np.sin(x + rng.uniform(0, 2 * np.pi))
    return [([float(a)], [float(b)]) for a, b in zip(x, y, strict=True)]


def _drawings(spec: Spec, rng: np.random.Generator) -> list[Sample]:
    classes, points = spec.layers[-1].outputs, spec.layers[0].words_in
    drawings = rng.random((classes, points)) < 0.3
    labels = rng.integers(0, classes, spec.training.support + spec.training.query)
    noise = rng.random((len(labels), points)) < 0.05
    return [
        ((drawings[label] ^ flipped).astype(float).tolist(), int(label))
        for label, flipped in zip(labels, noise, strict=True)
    ]


def play(
    spec: Spec, samples: Samples, cohorts: list[set[str]]
) -> tuple[list[NDArray[np.int16]], list[tuple[float, float]]]:
    """What comes of rounds, given who took part in each; no board was restarted.

    Returns:
        The published model after each round; and of its query samples the share whose class was
        correct and the mean loss.
    """
    model = GlobalModel(spec)
    residuals = {board: np.zeros(spec.global_count, np.int16) for board in samples}
    versions, measured = [], []
    for round_, cohort in enumerate(cohorts):
        total = PartialSum(spec.global_count, clip=spec.rounds.clip)
        updates = []
        loss = correct = 0
        for board in sorted(cohort):
            engine, its_loss, its_correct = train(
                spec, model.published, board, round_, samples[board][round_]
            )
            changes = engine.flat(local=False)[0] - model.published
            block, residual = feedback.encode(
                changes, residuals[board], spec.plan.top, spec.tensors, spec.plan.value_bits
            )
            if spec.plan.feedback:
                residuals[board] = residual
            sent = sparse.decode(block, spec.tensors)
            total.add_changes(sent)
            updates.append((board, sent))
            loss += its_loss
            correct += its_correct
        change = rule_of(spec.rounds).combine([(1.0, total)], updates).change
        model.advance(change, cosine_step(spec.rounds, round_))
        versions.append(model.published.copy())
        query = max(1, len(cohort)) * spec.training.query
        outputs = spec.loss_outputs
        measured.append((correct / query, loss / (query * 2**fixed.LOSS_BITS * outputs)))
    return versions, measured


def train(
    spec: Spec, published: NDArray[np.int16], board: str, round_: int, samples: list[Sample]
) -> tuple[Engine, int, int]:
    """A board's network after a round, its sum of query losses, and its correct query samples."""
    engine = Engine(spec, 1)
    engine.load(published, local=False)
    engine.load(spec.local_start(), local=True)
    engine.seed([fixed.fnv1a(f"{spec.fleet}/{board}/{round_}")])
    loss = correct = 0
    for i, (x, y) in enumerate(samples):
        label = fixed.to_activation(np.array([y])) if isinstance(y, list) else np.array([[y]])
        is_local = i < spec.training.support
        step = engine.step(fixed.to_activation(np.array([x])), label, local=is_local)
        if not is_local:
            loss += int(step[0][0])
            correct += int(step[1][0])
    return engine, loss, correct
