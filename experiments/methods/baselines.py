"""What else a fleet could do: the baselines, in float64, with the fleet's own tasks.

Each learns from the same samples of the same boards in the same rounds, and sends float32. Their
bytes are those of the models alone, each in one MQTT packet: connecting, announcements and receipts
are left out, which favours them.

- TinyReptile: Ren, Anicic, Runkler, "TinyReptile: TinyML with Federated Meta-Learning", 2023,
  arXiv 2304.05201: online. It is published as one board after the other; here a round is the mean
  of a cohort, as of all methods, and the published order is a variant.
- Reptile: Nichol, Achiam, Schulman, "On First-Order Meta-Learning Algorithms", 2018, arXiv
  1803.02999: batches, the mean of a cohort, a step that falls to nothing.
- FedAvg, FedSGD: McMahan et al., "Communication-Efficient Learning of Deep Networks from
  Decentralized Data", 2017, arXiv 1602.05629. The model is fine-tuned before it is evaluated.
- FedRecon: Singhal et al., "Federated Reconstruction: Partially Local Federated Learning", 2021,
  arXiv 2102.03448: local layers are rebuilt from the support samples, global ones sent whole.
- From scratch: nobody learns together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from experiments.methods import cost
from experiments.methods.tinymetafed import with_rates, without_local
from protocol.topics import Topics
from rounds.optimizers import Step, optimizer_of
from simulation.conditions import TASKS_STREAM
from simulation.engine.float64 import UNIT, FloatEngine
from simulation.engine.passes import ONLINE, Passes
from simulation.exam import Evaluation, measure
from simulation.tasks.base import stacked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from protocol.fixed import Words
    from protocol.spec.spec import Spec
    from simulation.tasks.base import Tasks


def samples_of(tasks: Tasks, boards: Sequence[int], round_: int, seed: int) -> tuple[Words, Words]:
    """What some boards see in a round; the same as in a fleet with this seed."""
    return stacked(
        [
            tasks.samples(board, round_, np.random.default_rng((seed, TASKS_STREAM, round_, board)))
            for board in boards
        ]
    )


@dataclass(frozen=True, kw_only=True)
class Habits:
    """How a baseline learns."""

    spec: Spec
    """With its rates; all layers shared, or some local."""
    passes: Passes = ONLINE
    step: float = 1.0
    """How far the shared model goes towards the mean of what boards made of it."""
    falls: bool = False
    """Whether the step falls to nothing, evenly over the rounds."""
    serial: bool = False
    """Whether each board works on what the one before left."""
    optimizer: bool = False
    """Whether the server follows the mean change by the spec's optimizer, not by the step alone."""


class Baseline:
    """A fleet that learns with other habits.

    Args:
        habits: of it.
        learned: what its boards learn from.
        seed: of all that is random.
    """

    def __init__(self, habits: Habits, learned: Tasks, seed: int) -> None:
        self._habits = habits
        self._tasks = learned
        self._seed = seed
        spec = habits.spec
        self.shared: NDArray[np.float64] = spec.start().astype(np.float64)
        """Parameters, in weight units."""
        self._optimizer = optimizer_of(spec.rounds) if habits.optimizer else Step()
        self._moments = self._optimizer.start(len(self.shared))
        self.bytes_up = self.bytes_down = self.operations = 0
        cohort = spec.rounds.cohort
        topics = Topics(spec.fleet)
        model = cost.FLOAT * spec.global_count
        self._round_up = cohort * cost.message_bytes(topics.up("board-0"), model)
        self._round_down = cohort * cost.message_bytes(topics.full(0), model)
        self._round_operations = cohort * cost.round_operations(spec, habits.passes)

    def play(self) -> Iterator[int]:
        """Play the rounds; yields how many are over after each."""
        rules = self._habits.spec.rounds
        boards = range(rules.cohort)
        cohorts = [[board] for board in boards] if self._habits.serial else [list(boards)]
        for round_ in range(rules.count):
            step = self._habits.step
            if self._habits.falls:
                step *= 1 - round_ / rules.count
            for cohort in cohorts:
                change = UNIT * (self._made(cohort, round_) - self.shared)
                self.shared += self._optimizer.move(change, self._moments, step) / UNIT
            self.bytes_up += self._round_up
            self.bytes_down += self._round_down
            self.operations += self._round_operations
            yield round_ + 1

    def _made(self, boards: Sequence[int], round_: int) -> NDArray[np.float64]:
        """The mean of what these boards make of the shared model."""
        spec, passes = self._habits.spec, self._habits.passes
        x, y = samples_of(self._tasks, boards, round_, self._seed)
        engine = FloatEngine(spec, len(boards))
        engine.load(self.shared, local=False)
        support = 0
        if spec.has_local:
            support = spec.training.support
            engine.load(spec.local_start(), local=True)
            passes.learn(engine, x[:support], y[:support], local=True)
        passes.learn(engine, x[support:], y[support:], local=False)
        mean: NDArray[np.float64] = engine.flat(local=False).mean(axis=0)
        return mean

    def measure(self, tasks: Tasks, count: int, seed: int) -> Evaluation:
        """What boards make of the model with so many tasks."""
        spec, passes = self._habits.spec, self._habits.passes
        engine = FloatEngine(spec, count)
        return measure(spec, self.shared, tasks, engine, seed, passes=passes)


class Scratch(Baseline):
    """Boards that start from the seed, each on its own."""

    def play(self) -> Iterator[int]:
        """Nothing is learned together."""
        yield from ()


def whole(spec: Spec, rate: float) -> Spec:
    """All layers shared, and learned at one rate."""
    return with_rates(without_local(spec), rate, rate)
