"""What learning costs a board: operations, memory, and the bytes of a dense message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from protocol import mqtt
from protocol.spec.heap import words_shared
from protocol.spec.layers import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocol.spec.layers import LayerShape
    from protocol.spec.spec import Spec
    from simulation.engine.passes import Passes

FLOAT: Final = 4
"""Bytes of a number where a baseline computes and sends float32."""


def forward_operations(layer: LayerShape) -> int:
    """Multiply-accumulates of a layer's sums; a mean's additions count as such."""
    if layer.kind is Kind.POOL:
        return layer.words_out * layer.kernel**2
    return layer.words_out * layer.row_size


def step_operations(layers: Sequence[LayerShape], *, local: bool) -> int:
    """Multiply-accumulates of one sample's step on the local or the global side.

    Forward through all layers, back to the lowest that learns, and an update of each that learns.

    Args:
        layers: from the input to the output.
        local: which side learns.
    """
    first = min(i for i, layer in enumerate(layers) if layer.local == local and layer.parameters)
    total = sum(forward_operations(layer) for layer in layers)
    total += sum(forward_operations(layer) for layer in layers[first + 1 :])
    return total + sum(
        forward_operations(layer) for layer in layers if layer.local == local and layer.parameters
    )


def round_operations(spec: Spec, passes: Passes) -> int:
    """Multiply-accumulates of one board's round."""
    training = spec.training
    side = spec.has_local
    return passes.epochs * (
        training.support * step_operations(spec.layers, local=side)
        + training.query * step_operations(spec.layers, local=False)
    )


def message_bytes(topic: str, payload: int) -> int:
    """A message with its acknowledgement: both MQTT packets together."""
    return mqtt.publish_size(topic, payload) + mqtt.ACK_BYTES


def baseline_memory(spec: Spec, passes: Passes) -> int:
    """Bytes of the arrays that training with float32 takes on a board.

    Weights, activations and errors; where samples are gone through more than once, or several make
    one step, also a round's samples, and for a step of several the gradient. The program, its
    connection and its message buffer come on top.
    """
    layers = spec.layers
    weights = sum(layer.parameters for layer in layers)
    numbers = weights + words_shared(layers) + layers[0].words_in
    if passes.batch > 1:
        numbers += weights
    if passes.batch > 1 or passes.epochs > 1:
        samples = spec.training.support + spec.training.query
        numbers += samples * (layers[0].words_in + 1)
    return FLOAT * numbers
