"""A network's layers as arithmetic: grids, windows, and the shifts that keep sums in 32 bits.

A layer with weights is a grid of pixels. Each of its outputs is a dot product of a row of weights
with a window of the grid below; channels lie last, so that a window is a few contiguous segments.
A dense layer is the case of one pixel and one segment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from protocol import fixed

LOCAL: Final = 1
RELU: Final = 2


class Kind(IntEnum):
    """What a layer computes; the number stands in a plan."""

    SUMS = 0
    """Dense and convolution: each output sums over all channels of its window."""
    DEPTHWISE = 1
    """Depthwise convolution: each channel on its own."""
    POOL = 2
    """The mean of windows that do not overlap."""


@dataclass(frozen=True)
class LayerShape:
    """A layer in its place.

    The input is a grid of ``height`` x ``width`` pixels with ``channels`` each; windows of
    ``kernel`` x ``kernel`` pixels lie ``stride`` apart and inside it.
    """

    kind: Kind
    height: int
    width: int
    channels: int
    outputs: int
    """Channels of the output."""
    kernel: int
    stride: int
    relu: bool
    local: bool

    @classmethod
    def of_plan(cls, numbers: tuple[int, ...]) -> LayerShape:
        """The inverse of :attr:`compiled`."""
        kind, height, width, channels, outputs, kernel, stride, flags, _limit = numbers
        return cls(
            kind=Kind(kind),
            height=height,
            width=width,
            channels=channels,
            outputs=outputs,
            kernel=kernel,
            stride=stride,
            relu=bool(flags & RELU),
            local=bool(flags & LOCAL),
        )

    @property
    def rows(self) -> int:
        """Height of the output's grid."""
        return (self.height - self.kernel) // self.stride + 1

    @property
    def columns(self) -> int:
        """Width of the output's grid."""
        return (self.width - self.kernel) // self.stride + 1

    @property
    def words_in(self) -> int:
        """Values below the layer."""
        return self.height * self.width * self.channels

    @property
    def words_out(self) -> int:
        """Values above the layer."""
        return self.rows * self.columns * self.outputs

    @property
    def segment(self) -> int:
        """Values of a window that lie side by side and belong to one sum."""
        return self.kernel * (self.channels if self.kind is Kind.SUMS else 1)

    @property
    def row_size(self) -> int:
        """Parameters of an output: its window's weights, then the bias."""
        return 0 if self.kind is Kind.POOL else self.kernel * self.segment + 1

    @property
    def parameters(self) -> int:
        """Weights and biases, a row an output."""
        return self.outputs * self.row_size

    @property
    def dot_shift(self) -> int:
        """Bits by which each group's sum is shifted before it joins a dot product's total.

        Each segment is summed in groups of :data:`~protocol.fixed.GROUP` products; the bias is one
        more.
        """
        groups = self.kernel * -(-self.segment // fixed.GROUP) + 1
        return (groups - 1).bit_length()

    @property
    def error_shift(self) -> int:
        """Bits by which each product is shifted before it joins the error of a value below.

        As many windows as overlap in a value, times the outputs that see it, are summed there.
        """
        outputs = self.outputs if self.kind is Kind.SUMS else 1
        overlap = -(-self.kernel // self.stride)
        return (outputs * overlap * overlap - 1).bit_length()

    @property
    def limit(self) -> int:
        """Its start is drawn evenly between minus and plus this many weight units.

        One over the root of a window's values (LeCun et al., "Efficient BackProp", 1998, for a
        uniform draw without the root of three): on the sine task it ended at a third of the loss
        that twice as wide a start gave.
        """
        return max(1, round(2**fixed.WEIGHT_BITS / math.sqrt(max(1, self.row_size - 1))))

    @property
    def compiled(self) -> tuple[int, ...]:
        """As a plan has it: see :class:`protocol.messages.Plan`."""
        flags = LOCAL * self.local + RELU * self.relu
        return (
            self.kind.value,
            self.height,
            self.width,
            self.channels,
            self.outputs,
            self.kernel,
            self.stride,
            flags,
            self.limit,
        )
