"""What a fleet must come to, computed in one process from the same samples."""

import numpy as np
from numpy.typing import NDArray

from protocol import feedback, fixed, sparse
from protocol.spec import Spec
from rounds.model import GlobalModel
from rounds.strategy import cosine_step
from rounds.sums import PartialSum
from simulation.engine import Engine

Samples = dict[str, list[list[tuple[list[float], list[float]]]]]
"""By board: for each round, pairs of x and y."""


def draw_samples(spec: Spec, boards: list[str], seed: int) -> Samples:
    """Sines of other amplitudes and phases for each board and round."""
    rng = np.random.default_rng(seed)
    samples: Samples = {}
    for board in boards:
        samples[board] = []
        for _ in range(spec.rounds.count):
            x = rng.uniform(-5, 5, spec.training.support + spec.training.query)
            y = rng.uniform(0.1, 5) * np.sin(x + rng.uniform(0, 2 * np.pi))
            samples[board].append([([float(a)], [float(b)]) for a, b in zip(x, y, strict=True)])
    return samples


def play(spec: Spec, samples: Samples, cohorts: list[set[str]]) -> list[NDArray[np.int16]]:
    """The published model after each round, given who took part in it; no board was restarted."""
    model = GlobalModel(spec)
    residuals = {board: np.zeros(spec.global_count, np.int16) for board in samples}
    versions = []
    for round_, cohort in enumerate(cohorts):
        total = PartialSum(spec.global_count)
        for board in sorted(cohort):
            engine = train(spec, model.published, board, round_, samples[board][round_])
            changes = engine.flat(local=False)[0] - model.published
            block, residual = feedback.encode(
                changes, residuals[board], spec.plan.top, spec.tensors, spec.plan.value_bits
            )
            if spec.plan.feedback:
                residuals[board] = residual
            indices, values = sparse.decode(block, spec.tensors)
            total.changes[indices] += values
            total.weight += 1
        model.advance(total, cosine_step(spec.rounds, round_))
        versions.append(model.published.copy())
    return versions


def train(
    spec: Spec,
    published: NDArray[np.int16],
    board: str,
    round_: int,
    samples: list[tuple[list[float], list[float]]],
) -> Engine:
    """A board's network after a round."""
    engine = Engine(spec, 1)
    engine.load(published, local=False)
    engine.load(spec.local_start(), local=True)
    engine.seed([fixed.fnv1a(f"{spec.fleet}/{board}/{round_}")])
    for i, (x, y) in enumerate(samples):
        words = [fixed.to_activation(np.array([values])) for values in (x, y)]
        engine.step(*words, local=i < spec.training.support)
    return engine
