"""What a model takes of a board's heap, in bytes, so that a spec is refused here and not out there.

The arrays are counted. What the client takes is measured, with the objects around the arrays and
what lies idle between them: `make bench-board` finds the least heap with which a whole client takes
part in a round on an emulated Cortex-M0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from protocol.sparse import block_size
from protocol.spec.layers import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocol.messages import Plan
    from protocol.spec.layers import LayerShape

BOARD: Final = 138 * 1024
"""Heap of an RP2040 with MicroPython and a network stack, about: the smallest board meant."""
CLIENT: Final = 58 * 1024
"""The compiled client, umqtt.simple, their objects, a message as it comes, and heap in pieces."""
LISTENING: Final = 15 * 1024
"""tinymetafed.speech with its features, and a buffer of samples."""
_FEATURES: Final = (31, 20, 1)
"""The input of a network that listens."""
_LOADED: Final = {Kind.POOL: 1400, Kind.DEPTHWISE: 2800}
"""Kernels that a board loads where a network has such layers."""
_OBJECTS: Final = 4 * 32 + 400
"""Of a layer: its table, object, views and calls."""


def needed(layers: Sequence[LayerShape], plan: Plan) -> dict[str, int]:
    """Bytes of heap that a board takes for a plan with these layers, by what for."""
    first = layers[0]
    listens = (first.height, first.width, first.channels) == _FEATURES
    tensors = [layer.parameters for layer in layers if layer.parameters and not layer.local]
    update = block_size(plan.top, tensors, plan.value_bits) + 128
    residual = 2 * sum(tensors) if plan.feedback else 0
    kinds = {layer.kind for layer in layers}
    return {
        "client": CLIENT + sum(size for kind, size in _LOADED.items() if kind in kinds),
        # As it came, and as activations; features are activations already.
        "sample": LISTENING if listens else 8 * first.words_in,
        "weights": sum(layer.parameters * (4 if layer.local else 6) for layer in layers),
        "activations and errors": 4 * words_shared(layers),
        "update": update + residual,
        "objects": len(layers) * _OBJECTS,
    }


def words_shared(layers: Sequence[LayerShape]) -> int:
    """Words that all activations and errors take on a board.

    Errors lie where activations of layers above lay: micropython_client/tinymetafed/layers.py.
    """
    above = start = end = count = 0
    for layer in layers:
        above += layer.words_out
        # Not on activations of its own layer or below, nor on errors of the layer below.
        error = end if start - layer.words_out < above < end else above
        start, end = error, error + layer.words_out
        count = max(count, end)
    return count
