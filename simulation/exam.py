"""How good a model is, by held-out tasks.

Boards reconstruct from their support samples and are evaluated on their query samples; nobody
updates the global parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from protocol import fixed
from simulation.engine.passes import ONLINE, Passes, begin_round

if TYPE_CHECKING:
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
    """Share of samples whose class is predicted correctly; 0 where labels are values."""


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
    """Let each of the engine's boards reconstruct once, and evaluate it on its query samples.

    Args:
        spec: the fleet's.
        published: its global parameters, in weight units; shape (parameters,).
        tasks: which one for each board is drawn from.
        engine: of as many boards as there are tasks to evaluate on.
        seed: of the draws; the same one gives the same tasks.
        round_: when it is, for tasks that change with time.
        passes: over the support samples. Where no layer is local, all learn from them.
    """
    rng = np.random.default_rng(seed)
    x, y = tasks.draw(rng, engine.boards, round_)
    begin_round(engine, spec, published, rounding_seeds(rng, engine.boards))
    support = spec.training.support
    passes.learn(engine, x[:support], y[:support], local=spec.has_local)
    outputs = np.array([engine.forward(query)[-1] for query in x[support:]])
    return _judge(spec, outputs, y[support:])


def rounding_seeds(rng: np.random.Generator, boards: int) -> list[int]:
    """Seeds of stochastic rounding, one a board."""
    return [int(seed) for seed in rng.integers(2**32, size=boards)]


def _judge(spec: Spec, outputs: NDArray[np.number], labels: Words) -> Evaluation:
    """Measure outputs in activation format, shape (samples, boards, outputs)."""
    z = outputs.astype(np.float64) * 2.0**-fixed.ACTIVATION_BITS
    if not spec.is_classifier:
        squares = (z - labels * 2.0**-fixed.ACTIVATION_BITS) ** 2
        return Evaluation(squares.mean(axis=(0, 2)), np.zeros(z.shape[1]))
    z = z - z.max(axis=2, keepdims=True)
    own = np.take_along_axis(z, labels, axis=2)[:, :, 0]
    loss = np.log(np.exp(z).sum(axis=2)) - own
    is_correct = z.argmax(axis=2) == labels[:, :, 0]
    return Evaluation(loss.mean(axis=0), is_correct.mean(axis=0))


class Exam:
    """Evaluates models on held-out tasks, the same ones each time.

    Args:
        spec: the fleet's.
        tasks: held out.
        engine: of the boards that learn them.
        count: how many tasks, from 1.
        every: rounds from one exam to the next, from 1; None for one at the end only.
    """

    def __init__(
        self,
        *,
        spec: Spec,
        tasks: Tasks,
        engine: type[Engine | FloatEngine],
        count: int,
        every: int | None = None,
    ) -> None:
        self._spec = spec
        self._tasks = tasks
        self._engine = engine
        self._count = count
        self._every = every
        self._last: tuple[int, Evaluation] | None = None

    def is_due(self, rounds: int) -> bool:
        """Whether there is one after so many rounds, though the run may go on."""
        return self._every is not None and rounds % self._every == 0

    def evaluate(self, published: NDArray[np.int16], rounds: int) -> Evaluation:
        """What boards make of the model after so many rounds; asked again, the same answer."""
        if self._last is None or self._last[0] != rounds:
            boards = self._engine(self._spec, self._count)
            found = measure(self._spec, published, self._tasks, boards, round_=rounds)
            self._last = rounds, found
        return self._last[1]
