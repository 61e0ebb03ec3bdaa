"""The numpy engine and a board of either word size are one arithmetic, to the last bit.

The networks are random in all that a spec leaves open: depth, widths, which layers are local, ReLU
or none, rates; their weights and samples reach the ends of every range. Whatever comes out of a
round must be the same: parameters, losses, the block sent, the model with it applied, a prediction.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localfleet.parts import Bits
from protocol import fixed
from protocol.spec import Spec
from simulation.engine import Engine
from tests.support import on_both_boards, run_board
from tools.replay import make_case, make_spec, replay

NETWORKS = 40
# What a sensor may say: ends of the activation range and beyond, ties, the tiny, and both zeros.
EXTREMES = [0.0, -0.0, 1e-40, 1e30, -1e30, 16.0, -16.0, 15.998, 2**-10, -(2**-10), 2**-9]


def random_spec(rng: np.random.Generator) -> Spec:
    depth = int(rng.integers(2, 6))
    widths = [int(width) for width in rng.integers(1, 71, depth + 1)]
    if rng.random() < 0.25:  # Many inputs: large shifts in the dot product.
        widths[0] = int(rng.integers(100, 901))
        widths[1] = min(widths[1], 16)
    is_local = rng.random(depth) < 0.4
    one, other = rng.permutation(depth)[:2]
    is_local[one], is_local[other] = True, False  # Each side has a layer.
    has_relu = rng.random(depth) < 0.7
    has_relu[-1] = False
    return make_spec(
        widths[0],
        [
            (outputs, bool(relu), bool(local))
            for outputs, relu, local in zip(widths[1:], has_relu, is_local, strict=True)
        ],
        seed=int(rng.integers(2**32)),
        rate_local=float(rng.uniform(0.001, 0.5)),
        rate_global=float(rng.uniform(0.001, 0.5)),
        percent=float(rng.choice([0.1, 1, 5, 10, 20, 50, 90, 100])),
    )


def random_base(rng: np.random.Generator, spec: Spec) -> Any:
    ends = np.array([fixed.WEIGHT_MIN, fixed.WEIGHT_MAX], np.int16)
    match rng.integers(4):
        case 0:
            return rng.integers(-(2**15), 2**15, spec.global_count).astype(np.int16)
        case 1:
            return rng.choice(ends, spec.global_count)
        case _:
            return spec.start()


def random_values(rng: np.random.Generator, samples: int, width: int) -> Any:
    values = rng.normal(size=(samples, width)) * rng.choice([0.1, 1, 10])
    if rng.random() < 0.5:
        is_extreme = rng.random(values.shape) < rng.choice([0.05, 1])
        values = np.where(is_extreme, rng.choice(EXTREMES, values.shape), values)
    return values


@cache
def rounds() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Cases, and what the numpy engine makes of them."""
    rng = np.random.default_rng(20230706)
    cases, expected = [], []
    for _ in range(NETWORKS):
        spec = random_spec(rng)
        samples = spec.training.support + spec.training.query
        x = random_values(rng, samples, spec.model.inputs)
        y = random_values(rng, samples, spec.layers[-1].outputs)
        case = make_case(spec, random_base(rng, spec), int(rng.integers(2**32)), x, y)
        cases.append(case)
        expected.append(replay(spec, case))
    return cases, expected


@pytest.mark.real
@on_both_boards
def test_a_board_agrees_on_every_bit(bits: Bits, tmp_path: Path) -> None:
    cases, expected = rounds()
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    answers = run_board("replay.py", bits, tmp_path / "cases.json", heap="128M")
    for number, (answer, host) in enumerate(zip(answers, expected, strict=True)):
        layers = cases[number]["plan"]["layers"]
        for what, value in host.items():
            assert answer[what] == value, f"{what} of network {number}, layers {layers}"


@pytest.mark.real
@on_both_boards
@pytest.mark.parametrize(
    ("inputs", "layers"),
    [
        pytest.param(fixed.MAX_INPUTS, [(1, False, False), (1, False, True)], id="the most inputs"),
        pytest.param(
            1,
            [(4, False, True), (fixed.MAX_OUTPUTS, False, False), (2, False, False)],
            id="the most outputs",
        ),
    ],
)
def test_the_largest_layers_do_not_overflow(
    inputs: int, layers: list[tuple[int, bool, bool]], bits: Bits, tmp_path: Path
) -> None:
    # Every weight and value at its end, the labels on either side: no sum could be larger.
    spec = make_spec(inputs, layers, support=1, query=2, rate_local=0.5, rate_global=0.5)
    base = np.full(spec.global_count, fixed.WEIGHT_MAX, np.int16)
    x = np.full((3, inputs), 100.0)
    labels = np.full((3, layers[-1][0]), 100.0)
    cases = [make_case(spec, base, 7, x, y) for y in (labels, -labels)]
    expected = [replay(spec, case) for case in cases]
    # An output that is off by all its range: 32 is clipped to 16, and 16 squared is 256.
    assert any(loss >= 255 << fixed.LOSS_BITS for host in expected for loss in host["losses"])
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    assert run_board("replay.py", bits, tmp_path / "cases.json", heap="128M") == expected


def test_the_random_rounds_reach_what_they_are_for() -> None:
    """Learning moved the parameters, weights met both ends, and blocks came in all codings."""
    cases, expected = rounds()
    moved = [case["base"] != host["theta"] for case, host in zip(cases, expected, strict=True)]
    assert sum(moved) > NETWORKS * 0.9
    weights = {weight for host in expected for weight in host["theta"]}
    assert {fixed.WEIGHT_MIN, fixed.WEIGHT_MAX} <= weights
    codings = [int(host["block"][:2], 16) for host in expected]
    assert len({coding & 15 for coding in codings}) > 3  # Low bits of a gap.
    assert {coding >> 6 for coding in codings} == {0, 1}  # Few entries, and most.
    assert any(len(case["support"][0][0]) > 100 for case in cases)
    assert {layer[2] for case in cases for layer in case["plan"]["layers"]} == {0, 1, 2, 3}


def test_boards_side_by_side_learn_as_they_do_alone() -> None:
    # Five boards with samples and seeds of their own, in one engine and in five.
    rng = np.random.default_rng(3)
    spec = make_spec(9, [(20, True, False), (12, False, True), (3, False, False)], query=10)
    boards, samples = 5, spec.training.query
    x = fixed.to_activation(rng.normal(size=(samples, boards, 9)))
    y = fixed.to_activation(rng.normal(size=(samples, boards, 3)))
    seeds = [int(seed) for seed in rng.integers(2**32, size=boards)]

    def learn(columns: slice) -> tuple[Any, Any, Any]:
        engine = Engine(spec, boards=len(seeds[columns]))
        engine.load(spec.start(), local=False)
        engine.load(spec.local_start(), local=True)
        engine.seed(seeds[columns])
        losses = [
            engine.step(x[i, columns], y[i, columns], local=i < samples // 2)
            for i in range(samples)
        ]
        return engine.flat(local=True), engine.flat(local=False), np.transpose(losses)

    together = learn(slice(0, boards))
    alone = [learn(slice(i, i + 1)) for i in range(boards)]
    for what, parts in zip(together, zip(*alone, strict=True), strict=True):
        assert np.array_equal(what, np.concatenate(parts))
    assert len({row.tobytes() for row in together[1]}) == boards  # They did not learn the same.
