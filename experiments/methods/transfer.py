"""Pooled transfer learning: one place gets all samples, and boards fine-tune what it makes of them.

The pool's labels mean the same for all: a character, a keyword, a value. So the network's last
layer, which learns them, stays behind, and boards start a new one; of values, all is handed on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from experiments.methods import cost
from experiments.methods.baselines import whole
from experiments.methods.tinymetafed import rebuilt
from protocol.spec.model import Dense, Model
from protocol.topics import Topics
from simulation.conditions import TASKS_STREAM
from simulation.engine.float64 import FloatEngine
from simulation.engine.passes import Passes
from simulation.exam import Evaluation, measure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from protocol.spec.spec import Spec
    from simulation.tasks.base import Pooled, Tasks

BATCH: Final = 32
"""Samples in a step of the one place."""


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """How it is learned, in the one place and on boards."""

    rate: float
    """In the one place."""
    rate_board: float
    passes: Passes
    """Over a board's support samples."""


class Transfer:
    """A model that is learned in one place from what a fleet's boards saw.

    Args:
        spec: the network, rounds and samples.
        pooling: how.
        learned: where the samples are from.
        seed: of all that is random.
    """

    def __init__(self, spec: Spec, pooling: Pooling, learned: Pooled, seed: int) -> None:
        self._board = whole(spec, pooling.rate_board)
        self._place = _with_outputs(whole(spec, pooling.rate), learned.pooled_outputs)
        self._passes = pooling.passes
        self._pool, self._seed = learned, seed
        self._engine = FloatEngine(self._place, 1)
        self._engine.load(self._place.start(), local=False)
        self.bytes_up = self.operations = 0
        topics = Topics(spec.fleet)
        training, cohort = spec.training, spec.rounds.cohort
        self._samples = cohort * (training.support + training.query)
        # Of a picture's and a sound's values a byte each tells enough, and of a class.
        size = 1 if spec.is_classifier else cost.FLOAT
        payload = size * (spec.layers[0].words_in + 1) * (training.support + training.query)
        self._round_up = cohort * cost.message_bytes(topics.up("board-0"), payload)
        # The model is sent once, to each board that learned.
        model = cost.FLOAT * self._board.global_count
        self.bytes_down = cohort * cost.message_bytes(topics.full(0), model)

    def play(self) -> Iterator[int]:
        """A round is a pass over as many samples as a fleet's boards see in one."""
        for round_ in range(self._board.rounds.count):
            rng = np.random.default_rng((self._seed, TASKS_STREAM, round_))
            x, y = self._pool.pooled(rng, self._samples)
            Passes(BATCH).learn(self._engine, x[:, None], y[:, None], local=False)
            self.bytes_up += self._round_up
            yield round_ + 1

    def measure(self, tasks: Tasks, count: int, seed: int) -> Evaluation:
        """What boards make of the model with so many tasks."""
        shared = self._board.start().astype(np.float64)
        learned = self._engine.flat(local=False)[0]
        kept = len(learned)
        if self._board.is_classifier:
            kept -= self._place.layers[-1].parameters
        shared[:kept] = learned[:kept]
        engine = FloatEngine(self._board, count)
        return measure(self._board, shared, tasks, engine, seed, passes=self._passes)


def _with_outputs(spec: Spec, outputs: int) -> Spec:
    """The same with another last layer; as large as need be, for no board will hold it."""
    *below, last = spec.model.layers
    top = Dense.model_construct(**(dict(last) | {"outputs": outputs}))
    fields = dict(spec.model) | {"layers": (*below, top)}
    return rebuilt(spec, model=Model.model_construct(**fields))
