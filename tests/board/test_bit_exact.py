"""The numpy engine and a board of either word size are one arithmetic, to the last bit.

The networks are random in all that a spec leaves open: kinds of layers, depth, widths, strides,
which layers are local, ReLU or none, the loss, rates, clipping. Whatever comes out of a round must
be the same: parameters, losses, classes told, the block sent, the model with it applied, a
prediction.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localfleet.parts import Bits
from protocol import fixed
from protocol.spec.layers import Kind
from simulation.engine.fixed import Engine
from simulation.replay import make_case, make_spec, replay
from tests.support.networks import random_case, random_spec
from tests.support.parts import on_both_boards, run_board

NETWORKS = 80


@cache
def rounds() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Cases, and what the numpy engine makes of them."""
    rng = np.random.default_rng(20230706)
    cases, expected = [], []
    for _ in range(NETWORKS):
        spec = random_spec(rng)
        case = random_case(rng, spec)
        cases.append(case)
        expected.append(replay(spec, case))
    return cases, expected


@pytest.mark.real
@pytest.mark.slow
@on_both_boards
def test_a_board_agrees_on_every_bit(bits: Bits, tmp_path: Path) -> None:
    cases, expected = rounds()
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    answers = run_board("replay.py", bits, tmp_path / "cases.json", heap="32M")
    for number, (answer, host) in enumerate(zip(answers, expected, strict=True)):
        layers = cases[number]["plan"]["layers"]
        for what, value in host.items():
            assert answer[what] == value, f"{what} of network {number}, layers {layers}"


def conv(outputs: int, kernel: int = 3, stride: int = 1) -> dict[str, Any]:
    layer = {"kind": "conv", "outputs": outputs, "kernel": kernel, "stride": stride}
    return {**layer, "activation": "none"}


LOCAL_LAST = (2, False, True)


@pytest.mark.real
@pytest.mark.slow
@on_both_boards
@pytest.mark.parametrize(
    ("inputs", "layers"),
    [
        pytest.param(fixed.MAX_INPUTS, [(1, False, False), (1, False, True)], id="most inputs"),
        pytest.param(
            1,
            [(4, False, True), (fixed.MAX_OUTPUTS, False, False), (2, False, False)],
            id="most outputs",
        ),
        pytest.param((3, 3, 3640), [conv(1), LOCAL_LAST], id="the widest window"),
        pytest.param(
            (5, 5, 1), [conv(1, 1), conv(227), LOCAL_LAST], id="most windows that meet in a value"
        ),
        pytest.param(
            (5, 5, 1),
            [conv(1, 1), conv(512, stride=2), LOCAL_LAST],
            id="the same, two pixels apart",
        ),
        pytest.param(
            (7, 7, 2),
            [
                conv(6, 1),
                {"kind": "depthwise", "activation": "none"},
                {"kind": "pool", "size": 4},
                LOCAL_LAST,
            ],
            id="each channel on its own",
        ),
    ],
)
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_the_largest_layers_do_not_overflow(
    inputs: Any, layers: list[Any], loss: str, bits: Bits, tmp_path: Path
) -> None:
    # Every weight and value at its end, the labels on either side: no sum could be larger.
    spec = make_spec(inputs, layers, loss=loss, support=1, query=2, rate_local=0.5, rate_global=0.5)
    outputs = spec.layers[-1].outputs
    x = np.full((3, spec.layers[0].words_in), 100.0)
    labels = np.full((3, outputs), 100.0) if loss == "mse" else np.zeros(3, np.int64)
    others = -labels if loss == "mse" else labels + outputs - 1
    cases = [
        make_case(spec, np.full(spec.global_count, end, np.int16), 7, x, y)
        for end in (fixed.WEIGHT_MAX, fixed.WEIGHT_MIN)
        for y in (labels, others)
    ]
    expected = [replay(spec, case) for case in cases]
    if loss == "mse":
        # An output that is off by all its range: 32 is clipped to 16, and 16 squared is 256.
        assert any(loss >= 255 << fixed.LOSS_BITS for host in expected for loss in host["losses"])
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    assert run_board("replay.py", bits, tmp_path / "cases.json", heap="32M") == expected


@pytest.mark.real
@on_both_boards
def test_two_thousand_classes_do_not_overflow(bits: Bits, tmp_path: Path) -> None:
    spec = make_spec(
        3,
        [(4, True, True), (fixed.MAX_OUTPUTS, False, False)],
        loss="cross_entropy",
        rate_local=0.5,
        rate_global=0.5,
    )
    rng = np.random.default_rng(5)
    y = rng.integers(0, fixed.MAX_OUTPUTS, 7)
    cases = [
        make_case(spec, base, 7, rng.normal(size=(7, 3)) * 9, y)
        for base in (
            np.zeros(spec.global_count, np.int16),  # all alike: the largest sum of exponentials
            rng.integers(-(2**15), 2**15, spec.global_count).astype(np.int16),
        )
    ]
    expected = [replay(spec, case) for case in cases]
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    assert run_board("replay.py", bits, tmp_path / "cases.json", heap="32M") == expected


def test_the_random_rounds_reach_what_they_are_for() -> None:
    """Weights met both ends, every kind of layer was there, and blocks came in all codings."""
    cases, expected = rounds()
    moved = [case["base"] != host["theta"] for case, host in zip(cases, expected, strict=True)]
    assert sum(moved) > NETWORKS * 0.9
    weights = {weight for host in expected for weight in host["theta"]}
    assert {fixed.WEIGHT_MIN, fixed.WEIGHT_MAX} <= weights
    codings = [int(host["block"][:2], 16) for host in expected]
    assert len({coding & 15 for coding in codings}) > 3  # Low bits of a gap.
    assert {coding >> 6 for coding in codings} == {0, 1}  # Few entries, and most.
    assert any(len(case["support"][0][0]) > 100 for case in cases)
    layers = [layer for case in cases for layer in case["plan"]["layers"]]
    seen = {(kind, kernel, flags & 1) for kind, *_, kernel, _, flags, _ in layers}
    assert seen == {
        *((Kind.SUMS, kernel, local) for kernel in (1, 3) for local in (0, 1)),
        *((Kind.DEPTHWISE, 3, local) for local in (0, 1)),
        *((Kind.POOL, size, 0) for size in (2, 4)),
    }
    convolutions = [layer for layer in layers if layer[5] == 3]
    assert {layer[6] for layer in convolutions} == {1, 2, 3, 5}
    assert {layer[7] for layer in convolutions} == {0, 1, 2, 3}
    assert {case["plan"]["loss"] for case in cases} == {0, 1}
    correct = [
        host["correct"] for case, host in zip(cases, expected, strict=True) if case["plan"]["loss"]
    ]
    assert len({right for phases in correct for right in phases}) > 3


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_boards_side_by_side_learn_as_they_do_alone(loss: str) -> None:
    # Five boards with samples and seeds of their own, in one engine and in five.
    rng = np.random.default_rng(3)
    layers: list[Any] = [
        conv(6),
        {"kind": "depthwise", "activation": "relu"},
        {"kind": "pool", "size": 2},
        (12, False, True),
        (3, False, False),
    ]
    spec = make_spec((7, 7, 1), layers, loss=loss, query=10)
    boards, samples = 5, spec.training.query
    x = fixed.to_activation(rng.normal(size=(samples, boards, 49)))
    y = fixed.to_activation(rng.normal(size=(samples, boards, 3)))
    if loss == "cross_entropy":
        y = rng.integers(0, 3, (samples, boards, 1))
    seeds = [int(seed) for seed in rng.integers(2**32, size=boards)]

    def learn(columns: slice) -> tuple[Any, Any, Any]:
        engine = Engine(spec, boards=len(seeds[columns]))
        engine.load(spec.start(), local=False)
        engine.load(spec.local_start(), local=True)
        engine.seed(seeds[columns])
        steps = [
            engine.step(x[i, columns], y[i, columns], local=i < samples // 2)
            for i in range(samples)
        ]
        return engine.flat(local=True), engine.flat(local=False), np.transpose(steps, (2, 0, 1))

    together = learn(slice(0, boards))
    alone = [learn(slice(i, i + 1)) for i in range(boards)]
    for what, parts in zip(together, zip(*alone, strict=True), strict=True):
        assert np.array_equal(what, np.concatenate(parts))
    assert len({row.tobytes() for row in together[1]}) == boards  # They did not learn the same.
