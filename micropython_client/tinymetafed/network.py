"""A network that learns one sample at a time, partly its own and partly the fleet's.

Parameters are words in two flat arrays, phi (local) and theta (global); a layer is a view into one
of them, a row of weights an output, the bias last. All memory is taken in the constructor. Each
phase of training is a program: a flat list of kernel calls.
"""

import gc
from array import array

from micropython import const

from tinymetafed import channelwise, kernels, losses
from tinymetafed.errors import ModelError

try:  # On a Cortex-M the three kernels are there in assembler, with the same results.
    from tinymetafed import thumb as fast
except ImportError:
    fast = kernels

_SUMS = const(0)
_DEPTHWISE = const(1)
_POOL = const(2)
_LOCAL = const(1)
_RELU = const(2)
_CROSS_ENTROPY = const(1)
_ONE = const(512)
_SLOTS = const(32)
_SEED_STEP = const(0x2545F491)
_NUMBERS = (int, float)


def _words(count):
    return array("i", bytes(4 * count))


def _ceil_log2(n):
    bits = 0
    while 1 << bits < n:
        bits += 1
    return bits


class _Layer:
    """A layer in its place: sizes, weights, table for the kernels, and what lies around it."""

    def __init__(self, entry, plan, below):
        self.kind, height, width, channels, outputs, kernel, stride, flags, self.limit = entry
        rows = (height - kernel) // stride + 1
        columns = (width - kernel) // stride + 1
        self.local = flags & _LOCAL
        self.relu = flags & _RELU
        segment = kernel * (channels if self.kind == _SUMS else 1)
        row_size = 0 if self.kind == _POOL else kernel * segment + 1
        self.size = outputs * row_size
        self.inputs = height * width * channels
        self.outputs = rows * columns * outputs
        self.below = below
        words = memoryview(_words(2 * self.outputs))
        self.above = words[: self.outputs]
        self.error = words[self.outputs :]
        self.weights = self.above  # of a layer that has none; its kernels do not look
        if self.kind == _SUMS:
            dot_shift = _ceil_log2(kernel * (segment + 7 >> 3) + 1)
            length = segment
        else:
            dot_shift = _ceil_log2(kernel + 1)
            length = channels
        overlap = -(-kernel // stride)
        error_shift = _ceil_log2((outputs if self.kind == _SUMS else 1) * overlap * overlap)
        if self.kind == _POOL:
            dot_shift = 2 * _ceil_log2(kernel)
            error_shift = 12  # shares are rounded already
        self.table = array(
            "i",
            (
                rows,
                columns,
                outputs,
                kernel,
                length,
                4 * width * channels,
                4 * stride * channels,
                4 * stride * width * channels,
                dot_shift,
                12 - dot_shift,
                0 if self.relu else -8191,
                error_shift,
                below.relu if below else 0,
                plan.clip,
                plan.rate_local if self.local else plan.rate_global,
                13 if plan.loss == _CROSS_ENTROPY else 10,
                0,
                self.inputs,
                4 * row_size,
            )
            + (0,) * 13,
        )

    def forward(self, a):
        """The call that computes this layer's activations."""
        function = (fast.forward, channelwise.depthwise, channelwise.pool)[self.kind]
        return (function, self.weights, a, self.above, self.table)

    def back(self):
        """The calls that carry this layer's errors to the layer below."""
        function = (fast.carry_back, channelwise.depthwise_back, channelwise.pool_back)[self.kind]
        below = self.below
        return [
            (function, self.weights, self.error, below.error, self.table),
            (fast.settle, self.weights, below.above, below.error, self.table),
        ]

    def update(self, a):
        """The call that lets this layer's weights learn."""
        function = (fast.update, channelwise.depthwise_update)[self.kind]
        return (function, self.weights, a, self.error, self.table)
