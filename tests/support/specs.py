"""A spec by keyword: the small network of most tests, but for what a test names."""

from collections.abc import Sequence
from typing import Any, Final

import tomlkit

from protocol.spec.rounds import Rounds
from protocol.spec.spec import Spec, Training

Layer = dict[str, Any]


def relu(outputs: int) -> Layer:
    """A dense layer of global parameters."""
    return {"outputs": outputs, "activation": "relu"}


def head(outputs: int) -> Layer:
    """The last layer, which stays on its board."""
    return {"outputs": outputs, "activation": "none", "local": True}


LAYERS: Final = (relu(200), head(2))
TRAINING: Final = {
    "support": 4,
    "query": 5,
    "rate_local": 0.1,
    "rate_global": 0.1,
    "percent": 10,
}
ROUNDS: Final = {"count": 4, "cohort": 4, "deadline": 60, "step_max": 2.0, "percent_down": 20}


def spec_text(
    *,
    fleet: str = "test",
    seed: int | None = None,
    inputs: int | Sequence[int] = 3,
    loss: str = "mse",
    layers: Sequence[Layer] = LAYERS,
    **settings: Any,
) -> str:
    """A spec's file.

    Args:
        fleet: its name.
        seed: of the weights it starts from; the spec's default if not given.
        inputs: values of a sample, or its height, width and channels.
        loss: what is minimised.
        layers: from the first to the last.
        settings: of ``[training]`` and ``[rounds]`` by their own names; a table is a dict.
    """
    training = {name: value for name, value in settings.items() if name in Training.model_fields}
    rounds = {name: value for name, value in settings.items() if name not in training}
    assert rounds.keys() <= Rounds.model_fields.keys(), rounds.keys() - Rounds.model_fields.keys()
    rows = tomlkit.array().multiline(multiline=True)
    for layer in layers:
        row = tomlkit.inline_table()
        row.update(layer)
        rows.append(row)
    text = {
        "fleet": fleet,
        **({} if seed is None else {"seed": seed}),
        "model": {"inputs": inputs, "loss": loss, "layers": rows},
        "training": TRAINING | training,
        "rounds": ROUNDS | rounds,
    }
    return tomlkit.dumps(text)


def make_spec(**settings: Any) -> Spec:
    """The same, read."""
    return Spec.from_toml(spec_text(**settings))


# --- What fleets of real boards learn

SINES: Final[dict[str, Any]] = {
    "seed": 7,
    "inputs": 1,
    "layers": (relu(9), relu(8), head(1)),
    "support": 5,
    "query": 6,
    "rate_local": 0.02,
    "rate_global": 0.02,
    "percent": 20,
    "count": 6,
    "percent_down": 40,
}
"""Settings of a regression; each board and round has a sine of its own."""
LETTERS: Final[dict[str, Any]] = {
    "fleet": "letters",
    "seed": 5,
    "inputs": (9, 9, 1),
    "loss": "cross_entropy",
    "layers": (
        {"kind": "conv", "kernel": 3, "stride": 2, "outputs": 6, "activation": "relu"},
        {"kind": "depthwise", "activation": "relu"},
        {"kind": "conv", "kernel": 1, "outputs": 8, "activation": "relu"},
        {"kind": "pool", "size": 2},
        head(3),
    ),
    "support": 12,
    "query": 9,
    "rate_local": 0.2,
    "rate_global": 0.05,
    "percent": 30,
    "clip": 1.0,
    "cohort": 2,
    "step_max": 1.5,
    "percent_down": 50,
}
"""Settings of a classification, with every kind of layer."""
BURST: Final[dict[str, Any]] = {
    "fleet": "burst",
    "count": 1,
    "deadline": 100,
    "step_max": 1.0,
    "percent_down": 100,
}
"""Settings of a fleet that `tinymetafed load` plays."""
