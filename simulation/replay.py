"""One board's round on the host, as `tests/board/replay.py` replays it on a board.

A case is what a round depends on, in JSON's types: the plan's fields, the fleet's weights (base),
the seed of stochastic rounding, and the samples of both phases.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from protocol import fixed, sparse
from protocol.messages import Plan
from protocol.spec.spec import Spec
from simulation.engine.fixed import Engine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Layer = tuple[int, bool, bool] | dict[str, Any]
    """A dense layer: outputs, whether ReLU follows, whether it is local; or as in a spec."""
    Case = dict[str, Any]


def make_spec(  # noqa: PLR0913 - a spec has as many
    inputs: int | tuple[int, int, int],
    layers: Sequence[Layer],
    *,
    loss: str = "mse",
    seed: int = 1,
    support: int = 3,
    query: int = 4,
    rate_local: float = 0.02,
    rate_global: float = 0.01,
    percent: float = 10,
    clip: float = 16.0,
) -> Spec:
    """A spec with what a replay depends on."""
    settings = {
        "fleet": "replay",
        "seed": seed,
        "heap": 2**31,  # Networks of any size are compared.
        "model": {
            "inputs": inputs,
            "loss": loss,
            "layers": tuple(
                layer if isinstance(layer, dict) else _dense(*layer) for layer in layers
            ),
        },
        "training": {
            "support": support,
            "query": query,
            "rate_local": rate_local,
            "rate_global": rate_global,
            "percent": percent,
            "clip": clip,
        },
        "rounds": {"count": 1, "cohort": 1, "deadline": 1, "step_max": 1, "percent_down": 100},
    }
    return Spec.model_validate(settings)


def _dense(outputs: int, relu: bool, local: bool) -> dict[str, Any]:  # noqa: FBT001
    return {"outputs": outputs, "activation": "relu" if relu else "none", "local": local}


def make_case(
    spec: Spec,
    base: NDArray[np.int16],
    seed: int,
    x: NDArray[np.floating],
    y: NDArray[Any],
) -> Case:
    """A case whose support samples come first in ``x`` and ``y``.

    Shapes (samples, values); classes have shape (samples,).
    """
    if not spec.is_classifier:
        y = y.astype(np.float32)
    samples = [
        [inputs.astype(np.float32).tolist(), labels.tolist()]
        for inputs, labels in zip(x, y, strict=True)
    ]
    return {
        "plan": {field.name: getattr(spec.plan, field.name) for field in fields(Plan)},
        "base": base.tolist(),
        "seed": seed,
        "support": samples[: spec.training.support],
        "query": samples[spec.training.support :],
    }


def replay(spec: Spec, case: Case) -> dict[str, Any]:
    """What comes out of a case, as `tests/board/replay.py` prints it."""
    base = np.array(case["base"], np.int16)
    engine = Engine(spec, boards=1)
    engine.load(base, local=False)
    engine.load(spec.local_start(), local=True)
    engine.seed([case["seed"]])
    losses, correct = [], []
    for local, phase in ((True, "support"), (False, "query")):
        steps = [engine.step(_words(x), _label(y), local=local) for x, y in case[phase]]
        losses.append(sum(int(loss[0]) for loss, _ in steps))
        correct.append(sum(int(right[0]) for _, right in steps))
    theta = engine.flat(local=False)[0]
    changes = theta - base
    chosen = sparse.top_indices(changes, spec.plan.top)
    block = sparse.encode(changes, chosen, spec.tensors, spec.plan.value_bits)
    decoded = sparse.decode(block, spec.tensors)
    applied = base.astype(np.int64)
    applied[decoded.indices] += decoded.changes
    outputs = engine.forward(_words(case["query"][0][0]))[-1][0]
    return {
        "phi": engine.flat(local=True)[0].tolist(),
        "theta": theta.tolist(),
        "losses": losses,
        "correct": correct,
        "block": block.hex(),
        "applied": np.clip(applied, fixed.WEIGHT_MIN, fixed.WEIGHT_MAX).tolist(),
        "prediction": (outputs / 2**fixed.ACTIVATION_BITS).tolist(),
    }


def _label(y: list[float] | int) -> fixed.Words:
    """One board's label: values as activations, or a class; shape (1, values)."""
    return _words(y) if isinstance(y, list) else np.array([[y]])


def _words(values: list[float]) -> fixed.Words:
    """One board's values as activations, shape (1, values)."""
    return fixed.to_activation(np.array([values]))
