"""Random networks of all kinds, with weights and samples that reach the ends of every range."""

from typing import Any

import numpy as np

from protocol import fixed
from protocol.spec.spec import Spec
from simulation.replay import make_case, make_spec

# What a sensor may say: ends of the activation range and beyond, ties, the tiny, and both zeros.
EXTREMES = [0.0, -0.0, 1e-40, 1e30, -1e30, 16.0, -16.0, 15.998, 2**-10, -(2**-10), 2**-9]


def random_spec(rng: np.random.Generator) -> Spec:
    """Dense layers; below them, in two of three networks, others."""
    while True:
        grids = random_grids(rng) if rng.random() < 0.67 else []
        layers = [
            *grids,
            *(random_dense(rng, 1, 71) for _ in range(rng.integers(0 if grids else 1, 4))),
            {**random_dense(rng, 1, 13), "activation": "none"},
        ]
        inputs: Any = int(rng.integers(1, 71))
        if grids:
            inputs = (*(int(side) for side in rng.integers(1, 14, 2)), int(rng.integers(1, 8)))
        elif rng.random() < 0.3:  # Many inputs: large shifts in the dot product.
            inputs = int(rng.integers(100, 901))
            layers[0]["outputs"] = min(layers[0]["outputs"], 16)
        try:
            return make_spec(
                inputs,
                layers,
                loss=str(rng.choice(["mse", "cross_entropy"])),
                seed=int(rng.integers(2**32)),
                rate_local=float(rng.uniform(0.001, 0.5)),
                rate_global=float(rng.uniform(0.001, 0.5)),
                percent=float(rng.choice([0.1, 1, 5, 10, 20, 50, 90, 100])),
                clip=float(rng.choice([16, 16, 1, 0.01])),
            )
        except ValueError:
            continue  # Windows that do not fit, or one side without a layer.


def random_dense(rng: np.random.Generator, least: int, most: int) -> dict[str, Any]:
    return {"outputs": int(rng.integers(least, most)), **random_weighted(rng)}


def random_weighted(rng: np.random.Generator) -> dict[str, Any]:
    activation = "relu" if rng.random() < 0.7 else "none"
    return {"activation": activation, "local": bool(rng.random() < 0.4)}


def random_grids(rng: np.random.Generator) -> list[dict[str, Any]]:
    layers = []
    for kind in rng.choice(["conv", "conv", "depthwise", "pool"], rng.integers(1, 4)):
        layer: dict[str, Any] = {"kind": str(kind)}
        if kind == "pool":
            layer["size"] = int(rng.choice([2, 2, 4]))
        else:
            layer |= {"stride": int(rng.choice([1, 1, 2, 3, 5])), **random_weighted(rng)}
        if kind == "conv":
            layer |= {"kernel": int(rng.choice([1, 3])), "outputs": int(rng.integers(1, 13))}
        layers.append(layer)
    return layers


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


def random_case(rng: np.random.Generator, spec: Spec) -> dict[str, Any]:
    """A round of it, for a replay."""
    samples = spec.training.support + spec.training.query
    outputs = spec.layers[-1].outputs
    x = random_values(rng, samples, spec.layers[0].words_in)
    y = random_values(rng, samples, outputs)
    if spec.is_classifier:
        y = rng.integers(0, outputs, samples)
    return make_case(spec, random_base(rng, spec), int(rng.integers(2**32)), x, y)
