"""What a model takes of a board's heap, in bytes, so that a spec is refused here and not out there.

The client and the objects around the arrays are measured on an emulated Cortex-M0
(`make bench-board`); the arrays are counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from protocol.sparse import block_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocol.layers import LayerShape
    from protocol.messages import Plan

BOARD: Final = 138 * 1024
"""Heap of an RP2040 with MicroPython and a network stack, about: the smallest board meant."""
CLIENT: Final = 60 * 1024
"""The compiled client, umqtt.simple, and their objects."""
_TABLE: Final = 4 * 32
_BINS: Final = 4 * 256 + 64
_OBJECTS: Final = 400
"""Of a layer: its object, views and calls."""


def needed(layers: Sequence[LayerShape], plan: Plan) -> dict[str, int]:
    """Bytes of heap that a board takes for a plan with these layers, by what for."""
    weights = sum(layer.parameters * (4 if layer.local else 6) for layer in layers)
    values = sum(8 * layer.words_out for layer in layers) + 8 * layers[0].words_in
    tensors = [layer.parameters for layer in layers if layer.parameters and not layer.local]
    update = block_size(plan.top, tensors, plan.value_bits) + 128
    residual = 2 * sum(tensors) if plan.feedback else 0
    return {
        "client": CLIENT,
        "weights": weights,
        "activations and errors": values,
        "update": update + residual + _BINS,
        "objects": len(layers) * (_TABLE + _OBJECTS),
    }
