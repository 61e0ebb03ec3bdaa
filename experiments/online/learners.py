"""Boards that learn streams with their local layers: online, or with stored samples in batches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from experiments.harness.scenario import Scenario
from experiments.methods.cost import step_operations
from experiments.methods.tinymetafed import BATCH, Recipe, TinyMetaFed, rebuilt, with_rates
from experiments.online import streams
from experiments.online.streams import Kind, Streams
from protocol import fixed
from protocol.spec.model import Model
from simulation.engine.fixed import Engine
from simulation.engine.float64 import FloatEngine
from simulation.engine.passes import Passes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from experiments.harness.study import Outcome
    from protocol.fixed import Words
    from protocol.spec.spec import Spec

    Reals = NDArray[np.float64]

STREAMS: Final = 11
"""Sets what streams are drawn from apart from what the fleet learned from."""


@dataclass(frozen=True, kw_only=True)
class Learner:
    """How a board learns from its stream."""

    stored: int
    """Samples that it waits for before it learns from them; of 1 none is stored."""
    rate: float
    epochs: int = 1


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """A job: a fleet that learns what boards start from, as its spec says."""

    scenario: Scenario
    seed: int


def pretrain(job: Pretraining) -> Outcome:
    """Let the fleet learn.

    Returns:
        ``published``, its global parameters in weight units.
    """
    learned, _ = job.scenario.tasks()
    fleet = TinyMetaFed(Recipe(job.scenario.spec), learned, job.seed)
    for _ in fleet.play():
        pass
    return {"published": fleet.published.tolist()}


@dataclass(frozen=True, kw_only=True)
class StreamSet:
    """Boards with a stream each, and what they start from."""

    scenario: Scenario
    kind: Kind
    published: tuple[int, ...]
    """The global parameters, which do not learn."""
    boards: int
    seed: int
    """Of the streams and of stochastic rounding: learners meet the same streams."""


@dataclass(frozen=True, kw_only=True)
class StreamRun:
    """A job: boards on their streams, once."""

    streams: StreamSet
    learner: Learner


def learn(job: StreamRun) -> Outcome:
    """Test on each sample, then learn from it, or store it until a batch is full.

    Samples of a batch are gone through in steps of at most BATCH, in float64; online learning is
    in the board's own arithmetic.

    Returns:
        ``errors``, the mean over boards of each sample's error before it was learned from;
        ``final``, that of the test samples after the stream; ``operations`` of one board. An error
        is a squared one, or of classes 1 where the answer is not correct.
    """
    learner, given = job.learner, job.streams
    spec = with_rates(given.scenario.spec, learner.rate, given.scenario.spec.training.rate_global)
    arithmetic = Engine if learner.stored == 1 else FloatEngine
    stream = _local_inputs(given, arithmetic)
    engine: Engine | FloatEngine = arithmetic(_local_part(spec), given.boards)
    engine.load(spec.local_start(), local=True)
    # The generator of the whole network's layer.
    below = _lowest_local(spec) - 1
    boards = [fixed.fnv1a(f"{given.seed}/{board}") for board in range(given.boards)]
    engine.seed([fixed.layer_seed(board, below) for board in boards])
    passes = Passes(min(learner.stored, BATCH), learner.epochs)
    errors = []
    learned = 0
    for at in range(streams.LENGTH):
        errors.append(_error(given.scenario, engine.forward(stream.x[at])[-1], stream.y[at]))
        if (at + 1) % learner.stored == 0:
            some = slice(learned, at + 1)
            passes.learn(engine, stream.x[some], stream.y[some], local=True)
            learned = at + 1
    final = [
        _error(given.scenario, engine.forward(x)[-1], y)
        for x, y in zip(stream.test_x, stream.test_y, strict=True)
    ]
    return {
        "errors": errors,
        "final": float(np.mean(final)),
        "operations": learned * learner.epochs * step_operations(spec.layers, local=True),
    }


@lru_cache(maxsize=1)
def _local_inputs(given: StreamSet, arithmetic: type[Engine | FloatEngine]) -> Streams:
    """Streams as the local layers see them: what is below does not learn, so it computes once."""
    spec = given.scenario.spec
    _, held_out = given.scenario.tasks()
    rng = np.random.default_rng((given.seed, STREAMS))
    stream = streams.draw(held_out, given.kind, given.boards, rng)
    engine = arithmetic(spec, given.boards)
    engine.load(np.array(given.published), local=False)
    first = _lowest_local(spec)
    x, test_x = (
        np.array([engine.forward(sample)[first] for sample in samples])
        for samples in (stream.x, stream.test_x)
    )
    return Streams(x=x, y=stream.y, test_x=test_x, test_y=stream.test_y)


def _lowest_local(spec: Spec) -> int:
    return min(i for i, layer in enumerate(spec.layers) if layer.local)


def _local_part(spec: Spec) -> Spec:
    """The layers from the lowest local one up, as a network of their own."""
    first = _lowest_local(spec)
    layer = spec.layers[first]
    parts = {
        "inputs": (layer.height, layer.width, layer.channels),
        "layers": spec.model.layers[first:],
    }
    fields = {name: getattr(spec.model, name) for name in Model.model_fields} | parts
    return rebuilt(spec, model=Model.model_construct(**fields))


def _error(scenario: Scenario, z: NDArray[np.number], y: Words) -> float:
    """Mean over boards."""
    if scenario.metric == "loss":
        apart = (z.astype(np.float64) - y) * 2.0**-fixed.ACTIVATION_BITS
        return float((apart**2).sum(axis=1).mean())
    return float((z.argmax(axis=1) != y[:, 0]).mean())


@dataclass(frozen=True, kw_only=True)
class Search:
    """A job: for a learner's settings on a kind of stream."""

    streams: StreamSet
    stored: int
    rates: tuple[float, ...]
    epochs: tuple[int, ...]


def search(job: Search) -> Outcome:
    """Try all pairs of a rate and epochs.

    Returns:
        ``rate`` and ``epochs`` with the lowest mean error along the stream, and ``candidates``, a
        list of rates, epochs and mean errors.
    """
    candidates = []
    for epochs in job.epochs:
        for rate in job.rates:
            learner = Learner(stored=job.stored, rate=rate, epochs=epochs)
            outcome = learn(StreamRun(streams=job.streams, learner=learner))
            candidates.append((rate, epochs, float(np.mean(outcome["errors"]))))
    rate, epochs, _ = min(candidates, key=lambda candidate: candidate[2])
    return {"rate": rate, "epochs": epochs, "candidates": candidates}
