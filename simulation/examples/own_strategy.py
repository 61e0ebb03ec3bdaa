"""Tasks, a combination rule and an optimizer of one's own, beside those that the spec names.

    python -m simulation.examples.own_strategy specs/sine.toml --rounds 300

Each board's task is a triangular wave. The rule counts, of each parameter, the changes that have
the majority's sign; the optimizer is Nesterov's momentum (Sutskever et al., "On the importance of
initialization and momentum in deep learning", 2013).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from protocol.fixed import to_activation
from protocol.spec.spec import Spec
from protocol.spec.strategy import Optimizer as OptimizerSettings
from rounds.combine import Combination
from simulation import Settings, simulate
from simulation.conditions import Conditions
from simulation.tasks.base import Tasks

if TYPE_CHECKING:
    from protocol.fixed import Words
    from rounds.combine import Sums, Updates
    from rounds.optimizers import Floats


@dataclass(frozen=True)
class Triangles(Tasks):
    """Triangular waves of amplitude 1 to 5 and any phase, x from -5 to 5."""

    count: int
    """Samples of a task: support, then query."""

    def samples(self, board: int, round_: int, rng: np.random.Generator) -> tuple[Words, Words]:
        """Another wave, whichever board it is."""
        del board, round_
        x = rng.uniform(-5, 5, (self.count, 1))
        phase, amplitude = rng.uniform(0, 2), rng.uniform(1, 5)
        wave = 2 * np.abs((x / np.pi + phase) % 2 - 1) - 1
        return to_activation(x), to_activation(amplitude * wave)


class SignMajority:
    """Of each parameter the changes with the majority's sign, by the number of all updates."""

    def combine(self, sums: Sums, updates: Updates) -> Combination:
        """As :meth:`rounds.combine.Rule.combine`; a late update votes like any other."""
        parameters = sums[0][1].parameters
        totals = np.zeros((2, parameters))  # Of the falling and of the rising changes.
        votes = np.zeros((2, parameters))
        boards = 0
        for _, (indices, changes) in updates:
            boards += 1
            rises = (changes > 0).astype(int)
            totals[rises, indices] += changes  # No index occurs twice in an update.
            votes[rises, indices] += 1
        change = np.where(votes[1] >= votes[0], totals[1], totals[0]) / boards
        return Combination(change, f"{boards} updates voted")


class Nesterov:
    """Momentum that looks a step ahead."""

    def __init__(self, momentum: float = 0.9) -> None:
        self._momentum = momentum

    def start(self, parameters: int) -> Floats:
        """The velocity."""
        return np.zeros((1, parameters))

    def move(self, change: Floats, moments: Floats, step: float) -> Floats:
        """As :meth:`rounds.optimizers.Optimizer.move`."""
        (velocity,) = moments
        velocity *= self._momentum
        velocity += change
        movement: Floats = step * (change + self._momentum * velocity)
        return movement


def main() -> None:
    """Simulate the same fleet with either strategy."""
    parser = argparse.ArgumentParser(description="The spec's strategy, and one of one's own.")
    parser.add_argument("spec", type=Path, help="with one input and one output")
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    spec = Spec.from_file(options.spec)
    rounds = spec.rounds.model_copy(update={"count": options.rounds})
    plain = rounds.model_copy(update={"step_max": 0.3, "optimizer": OptimizerSettings()})
    tasks = Triangles(spec.training.support + spec.training.query)
    given = Settings(
        spec=spec.model_copy(update={"rounds": rounds}),
        boards=100,
        tasks=tasks,
        held_out=tasks,  # No wave is drawn twice.
        conditions=Conditions(stragglers=0.5),
    )
    own = replace(
        given,
        spec=spec.model_copy(update={"rounds": plain}),
        rule=SignMajority(),
        optimizer=Nesterov(),
    )
    for name, settings in (("the spec's", given), ("one's own", own)):
        summary = simulate(settings)
        print(
            f"{name}: loss {summary.loss_first:.2f} at first, {summary.held_out_loss:.2f} on "
            f"held-out tasks; {summary.records[-1].note or 'no note'}"
        )


if __name__ == "__main__":
    main()
