"""The float64 engine is the mathematics that fixed point is held against, so it is checked by it.

Its steps are gradients, by finite differences of the loss that it reports; and on one sample the
fixed-point engine goes where it goes, as near as the formats allow.
"""

from typing import Any

import numpy as np
import pytest

from benchmarks.lockstep import play
from localfleet.processes import PROJECT
from protocol import fixed
from protocol.spec.spec import Spec
from simulation.engine.fixed import Engine
from simulation.engine.float64 import UNIT, FloatEngine
from simulation.exam import measure
from simulation.replay import make_spec
from simulation.tasks.held_out import sine_tasks

BOARDS = 3
RATE = 0.01

LOCAL_LAST = (3, False, True)
RELU, LINEAR = {"activation": "relu"}, {"activation": "none"}
NETWORKS: dict[str, tuple[Any, list[Any]]] = {
    "dense": (5, [(7, True, False), (6, True, True), LOCAL_LAST]),
    "local below": (5, [(7, True, True), (6, False, False), LOCAL_LAST]),
    "conv": (
        (7, 6, 2),
        [
            {"kind": "conv", "kernel": 3, "outputs": 4, "stride": 2, **RELU},
            {"kind": "conv", "kernel": 1, "outputs": 3, **LINEAR},
            LOCAL_LAST,
        ],
    ),
    "conv on conv": (
        (7, 8, 1),
        [
            {"kind": "conv", "kernel": 3, "outputs": 3, **RELU},
            {"kind": "conv", "kernel": 3, "outputs": 4, **LINEAR, "local": True},
            {"kind": "conv", "kernel": 3, "outputs": 2, **RELU},
            LOCAL_LAST,
        ],
    ),
    "depthwise": (
        (9, 7, 3),
        [
            {"kind": "depthwise", "stride": 2, **RELU},
            {"kind": "depthwise", **LINEAR},
            LOCAL_LAST,
        ],
    ),
    "pool": (
        (9, 11, 2),
        [
            {"kind": "conv", "kernel": 3, "outputs": 4, **RELU},
            {"kind": "pool", "size": 2},
            {"kind": "conv", "kernel": 1, "outputs": 3, **RELU},
            {"kind": "pool", "size": 2},
            LOCAL_LAST,
        ],
    ),
}


def network(name: str, loss: str) -> Spec:
    inputs, layers = NETWORKS[name]
    return make_spec(inputs, layers, loss=loss, rate_local=RATE, rate_global=RATE)


def sample(spec: Spec, boards: int = BOARDS) -> tuple[Any, Any]:
    """One for each board, in the formats of boards."""
    rng = np.random.default_rng(8)
    x = fixed.to_activation(rng.normal(size=(boards, spec.layers[0].words_in)))
    outputs = spec.layers[-1].outputs
    if not spec.is_classifier:
        return x, fixed.to_activation(rng.normal(size=(boards, outputs)))
    return x, rng.integers(0, outputs, (boards, 1))


def start(engine: Engine | FloatEngine, spec: Spec) -> None:
    """Bring every board to the spec's start."""
    engine.load(spec.start(), local=False)
    engine.load(spec.local_start(), local=True)
    engine.seed(range(engine.boards))


def coarse(spec: Spec, values: Any, *, local: bool) -> float:
    """By how much a weight is off, in weight units, whose pixels' errors are each off by a unit."""
    unit = 2.0 ** -fixed.ERROR_BITS[spec.model.loss]
    sums = [
        np.abs(below).max() * 2.0**-fixed.ACTIVATION_BITS * layer.rows * layer.columns
        for layer, below in zip(spec.layers, values[:-1], strict=True)
        if layer.local == local and layer.parameters
    ]
    return float(RATE * unit * max(sums) / UNIT)


def loss_of(engine: FloatEngine, x: Any, y: Any) -> Any:
    """Each board's loss as a real number; nobody learns."""
    held = [w.copy() for w in engine.weights]
    loss, _ = engine.step(x, y, local=True)
    for w, before in zip(engine.weights, held, strict=True):
        w[:] = before
    return loss * 2.0**-fixed.LOSS_BITS


@pytest.mark.parametrize("local", [True, False], ids=["local", "global"])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_goes_down_the_slope_of_the_loss(name: str, loss: str, *, local: bool) -> None:
    spec = network(name, loss)
    engine = FloatEngine(spec, BOARDS)
    start(engine, spec)
    x, y = sample(spec)
    before = [w.copy() for w in engine.weights]
    small = 1e-5
    # The mean squared error is learned by the derivative of its half.
    rate = RATE / 2 if loss == "mse" else RATE
    slopes = []
    for w in engine.weights:
        slope = np.zeros_like(w)
        for at in np.ndindex(w.shape[1:]):
            here = (slice(None), *at)
            middle = w[here].copy()
            w[here] = middle + small
            above = loss_of(engine, x, y)
            w[here] = middle - small
            slope[here] = (above - loss_of(engine, x, y)) / (2 * small)
            w[here] = middle
        slopes.append(slope)
    engine.step(x, y, local=local)
    for layer, w, old, slope in zip(spec.layers, engine.weights, before, slopes, strict=True):
        if layer.local != local:
            assert np.array_equal(w, old)
        else:
            assert w - old == pytest.approx(-rate * slope, rel=1e-4, abs=1e-9)
    learned = [
        np.abs(slope).max()
        for layer, slope in zip(spec.layers, slopes, strict=True)
        if layer.local == local and layer.parameters
    ]
    assert min(learned) > 1e-3  # There was a slope in every layer.


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("name", NETWORKS)
def test_fixed_point_goes_where_float64_goes(name: str, loss: str) -> None:
    # Many boards with one sample and one start: their stochastic rounding averages out.
    spec = network(name, loss)
    boards = 400
    x, y = (np.repeat(words[:1], boards, axis=0) for words in sample(spec))
    exact, fixed_point = FloatEngine(spec, 1), Engine(spec, boards)
    for engine in (exact, fixed_point):
        start(engine, spec)
    lasts = exact.forward(x[:1])[-1], fixed_point.forward(x)[-1]
    # Each layer rounds its values to half a unit, and its sums once more.
    assert np.abs(lasts[1] - lasts[0]).max() < 2
    for local in (True, False):
        for engine in (exact, fixed_point):
            start(engine, spec)
        real, correct = exact.step(x[:1], y[:1], local=local)
        word, also_told = fixed_point.step(x, y, local=local)
        assert word[0] == pytest.approx(real[0], rel=0.01, abs=0.01 * 2**fixed.LOSS_BITS)
        assert also_told[0] == correct[0]
        change = exact.flat(local=local)[0] - (spec.local_start() if local else spec.start())
        apart = fixed_point.flat(local=local) - exact.flat(local=local)
        slack = 0.05 * np.abs(change).max() + coarse(spec, exact.forward(x[:1]), local=local)
        # Each pixel's change is rounded up or down at random: by less than a unit.
        pixels = max(layer.rows * layer.columns for layer in spec.layers if layer.local == local)
        assert np.abs(apart).max() < pixels + slack
        assert np.abs(apart.mean(axis=0)).max() < 0.25 + slack
        assert np.abs(change).max() > 1


def test_what_is_loaded_comes_back_as_it_was() -> None:
    spec = network("conv", "mse")
    engine = FloatEngine(spec, BOARDS)
    start(engine, spec)
    assert np.array_equal(engine.flat(local=False), np.tile(spec.start(), (BOARDS, 1)))
    assert np.array_equal(engine.flat(local=True), np.tile(spec.local_start(), (BOARDS, 1)))
    assert engine.weights[0][0, 0, 0] == spec.start()[0] * UNIT


@pytest.mark.parametrize("name", NETWORKS)
def test_boards_side_by_side_learn_as_they_do_alone(name: str) -> None:
    spec = network(name, "cross_entropy")
    x, y = sample(spec)
    together = FloatEngine(spec, BOARDS)
    start(together, spec)
    for local in (True, False):
        together.step(x, y, local=local)
    for board in range(BOARDS):
        alone, mine = FloatEngine(spec, 1), slice(board, board + 1)
        start(alone, spec)
        for local in (True, False):
            alone.step(x[mine], y[mine], local=local)
        for local in (True, False):
            assert alone.flat(local=local)[0] == pytest.approx(together.flat(local=local)[board])
    assert len({row.tobytes() for row in together.flat(local=False)}) == BOARDS


def test_a_fleet_of_either_engine_learns_sines_as_well() -> None:
    spec = Spec.from_file(PROJECT / "specs" / "sine.toml")
    spec = spec.model_copy(update={"rounds": spec.rounds.model_copy(update={"count": 60})})
    learned, tested = sine_tasks(spec)
    losses = {}
    for make in (Engine, FloatEngine):
        before = measure(spec, spec.start(), tested, make(spec, 200)).loss.mean()
        *_, model = play(spec, learned, make(spec, spec.rounds.cohort))
        after = measure(spec, model.published, tested, make(spec, 200)).loss.mean()
        assert after < 0.5 * before
        losses[make] = after
    assert losses[Engine] == pytest.approx(losses[FloatEngine], rel=0.1)
