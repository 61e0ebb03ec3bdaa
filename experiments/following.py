"""Boards that follow streams with their local layers: online, or with stored samples in batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from experiments import streams
from experiments.cost import step_operations
from experiments.fleet import BATCH, with_rates
from experiments.scenario import Scenario
from experiments.streams import Kind
from protocol import fixed
from simulation.boards import Crew, Trainer
from simulation.conditions import Conditions, Poisoned
from simulation.engine import Engine
from simulation.float64 import FloatEngine
from simulation.passes import Passes
from simulation.run import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from experiments.study import Outcome
    from protocol.fixed import Words

    Reals = NDArray[np.float64]

STREAMS: Final = 11
"""Sets what streams are drawn from apart from what the fleet learned from."""


@dataclass(frozen=True)
class Learner:
    """How a board learns from its stream."""

    stored: int
    """Samples that it waits for before it learns from them; of 1 none is stored."""
    rate: float
    epochs: int = 1


@dataclass(frozen=True)
class Beginning:
    """A fleet that learns what boards start from, as its spec says."""

    scenario: Scenario
    seed: int


def begin(wanted: Beginning) -> Outcome:
    """Let the fleet learn.

    Returns:
        ``published``, its global parameters in weight units.
    """
    spec = wanted.scenario.spec
    learned, _ = wanted.scenario.tasks()
    names = [f"board-{number}" for number in range(spec.rounds.cohort)]
    trainer = Trainer(spec, names, learned, Engine, Poisoned(), wanted.seed)
    run = Run(spec, names, Crew(trainer), Conditions(), wanted.seed)
    for _ in run.rounds():
        pass
    return {"published": run.model.published.tolist()}


@dataclass(frozen=True)
class Following:
    """Boards on their streams, once."""

    scenario: Scenario
    kind: Kind
    learner: Learner
    published: tuple[int, ...]
    """The global parameters, which do not learn."""
    boards: int
    seed: int
    """Of the streams and of stochastic rounding: learners meet the same streams."""


def follow(wanted: Following) -> Outcome:
    """Test on each sample, then learn from it, or store it until a batch is full.

    Samples of a batch are gone through in steps of at most BATCH, in float64; online learning is
    in the board's own arithmetic.

    Returns:
        ``errors``, the mean over boards of each sample's error before it was learned from;
        ``final``, that of samples asked after the stream; ``operations`` of one board. An error is
        a squared one, or of classes 1 where another class is told.
    """
    learner, scenario = wanted.learner, wanted.scenario
    spec = with_rates(scenario.spec, learner.rate, scenario.spec.training.rate_global)
    rng = np.random.default_rng((wanted.seed, STREAMS))
    _, tested = scenario.tasks()
    stream = streams.draw(tested, wanted.kind, wanted.boards, rng)
    kind = Engine if learner.stored == 1 else FloatEngine
    engine: Engine | FloatEngine = kind(spec, wanted.boards)
    engine.load(np.array(wanted.published), local=False)
    engine.load(spec.local_start(), local=True)
    engine.seed([int(seed) for seed in rng.integers(2**32, size=wanted.boards)])
    passes = Passes(min(learner.stored, BATCH), learner.epochs)
    errors = []
    learned = 0
    with np.errstate(over="ignore", invalid="ignore"):  # Too high a rate is found to be one.
        for at in range(streams.LENGTH):
            errors.append(_error(scenario, engine.forward(stream.x[at])[-1], stream.y[at]))
            if (at + 1) % learner.stored == 0:
                some = slice(learned, at + 1)
                passes.learn(engine, stream.x[some], stream.y[some], local=True)
                learned = at + 1
        final = np.mean(
            [
                _error(scenario, engine.forward(x)[-1], y)
                for x, y in zip(stream.asked_x, stream.asked_y, strict=True)
            ]
        )
    return {
        "errors": errors,
        "final": float(final),
        "operations": learned * learner.epochs * step_operations(spec.layers, local=True),
    }


def _error(scenario: Scenario, z: NDArray[np.number], y: Words) -> float:
    """Mean over boards."""
    if scenario.metric == "loss":
        apart = (z.astype(np.float64) - y) * 2.0**-fixed.ACTIVATION_BITS
        return float((apart**2).sum(axis=1).mean())
    return float((z.argmax(axis=1) != y[:, 0]).mean())


@dataclass(frozen=True)
class Choice:
    """Of a learner's settings for a kind of stream."""

    following: Following
    rates: tuple[float, ...]
    epochs: tuple[int, ...]


def choose(wanted: Choice) -> Outcome:
    """Try all pairs of a rate and epochs.

    Returns:
        ``rate`` and ``epochs`` with the lowest mean error along the stream, and ``trials``, a list
        of rates, epochs and mean errors.
    """
    trials = []
    for epochs in wanted.epochs:
        for rate in wanted.rates:
            learner = replace(wanted.following.learner, rate=rate, epochs=epochs)
            outcome = follow(replace(wanted.following, learner=learner))
            error = float(np.mean(outcome["errors"]))
            trials.append([rate, epochs, error if np.isfinite(error) else 1e9])
    best = min(trials, key=lambda trial: trial[2])
    return {"rate": best[0], "epochs": best[1], "trials": trials}
