"""The arithmetic that a board and the host agree on, bit for bit.

Every number is a 32-bit word that holds a fixed-point value. The formats are chosen so that no
product and no sum in the kernels can leave 32 bits, whatever the data, for every network that a
spec allows:

==========  =============  ========  ===========  =================================================
quantity    fraction bits  range     largest      where
==========  =============  ========  ===========  =================================================
weight      12             +-8       2**15        parameters, on the board and on the wire
activation  9              +-16      2**13 - 1    samples, hidden values, predictions, labels
error       11 (14)        +-16 (2)  2**15 - 1    derivative of the loss by a sum (cross-entropy)
step        16             +-2       2**17 - 1    error times rate: clips the gradient
loss        12             0..2**19  2**31 - 1    sum over the samples of a phase
==========  =============  ========  ===========  =================================================

* dot: products are summed in groups of :data:`GROUP`; ``2**15 * (2**13 - 1) * 8 < 2**31``. Each
  group's sum is shifted right by the layer's ``dot_shift`` before it joins the total, so the total
  fits as well.
* axpy into the error: each product, at most 2**30, is shifted by the layer's ``error_shift`` before
  it is added.
* axpy into the weights: ``2**17 * 2**13 + 2**13 < 2**31``. The product is brought to weight format
  by adding a random number below one weight unit and truncating (stochastic rounding): its
  expectation is exact, so steps smaller than a unit are not lost. One draw serves a whole row: each
  weight's rounding stays unbiased.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

WEIGHT_BITS: Final = 12
ACTIVATION_BITS: Final = 9
ERROR_BITS: Final = {"mse": 11, "cross_entropy": 14}
"""By loss: a class's probability is at most one, so its error needs less range."""
STEP_BITS: Final = 16
RATE_BITS: Final = 15
LOSS_BITS: Final = 12

WEIGHT_MAX: Final = 2**15 - 1
WEIGHT_MIN: Final = -(2**15)
ACTIVATION_MAX: Final = 2**13 - 1
ERROR_MAX: Final = 2**15 - 1
STEP_MAX: Final = 2**17 - 1

GROUP: Final = 8
"""Products summed before a shift; the kernels are unrolled by it."""

MAX_INPUTS: Final = (2**12 - 1) * GROUP
"""Inputs of a dense layer: more would need a dot shift of more than :data:`WEIGHT_BITS`."""
MAX_OUTPUTS: Final = 2**11
"""Outputs of a layer: more would need an error shift of more than :data:`WEIGHT_BITS` - 1."""

UPDATE_SHIFT: Final = STEP_BITS + ACTIVATION_BITS - WEIGHT_BITS
"""From a step times an activation to weight units; also the bits of one random draw."""

LCG_MULTIPLIER: Final = 1664525
LCG_INCREMENT: Final = 1013904223
"""The generator of Press et al., *Numerical Recipes*, 2nd ed., 7.1.

The modulus is 2**32; the high bits are used.
"""

Words = NDArray[np.int64]


def to_error(value: float, loss: str) -> int:
    """A derivative of a loss in error format, saturated."""
    return min(ERROR_MAX, round(value * (1 << ERROR_BITS[loss])))


def fnv1a(text: str) -> int:
    """32-bit FNV-1a hash of a text's UTF-8 bytes (draft-eastlake-fnv).

    It is cheap on a board, and the same everywhere.
    """
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193
    return value & 0xFFFFFFFF  # Nothing above these bits ever comes down: once is enough.


def lcg(state: int, count: int) -> NDArray[np.uint32]:
    """The next ``count`` states of the generator after ``state`` (which is not among them)."""
    states = np.empty(count, np.uint32)
    for i in range(count):
        state = (state * LCG_MULTIPLIER + LCG_INCREMENT) & 0xFFFFFFFF
        states[i] = state
    return states


def layer_seed(seed: int, layer: int) -> int:
    """Where a layer's generator for stochastic rounding starts: far from the other layers'."""
    return (seed + (layer + 1) * 0x2545F491) & 0xFFFFFFFF


def uniform_weights(seed: int, limits: Sequence[int]) -> NDArray[np.int16]:
    """Weights drawn evenly, the i-th from ``[-limits[i], limits[i])`` weight units.

    Every board draws its local ones so.
    """
    high = (lcg(seed, len(limits)) >> np.uint32(16)).astype(np.int64)
    wide = np.asarray(limits, np.int64)
    drawn: NDArray[np.int16] = ((high - 2**15) * wide >> 15).astype(np.int16)
    return drawn


def to_rate(rate: float) -> int:
    """A learning rate in rate format, at least one unit."""
    return max(1, round(rate * 2**RATE_BITS))


def to_activation(values: NDArray[np.floating]) -> Words:
    """Real numbers as activations: by way of float32, as on a board.

    They are rounded, halves away from zero, and saturated.
    """
    narrow = np.asarray(values, np.float32).astype(np.float64)
    magnitude = np.floor(np.abs(narrow) * 2**ACTIVATION_BITS + 0.5)
    words: Words = (np.sign(narrow) * np.minimum(magnitude, ACTIVATION_MAX)).astype(np.int64)
    return words


def exp_of_minus(distances: Words) -> Words:
    """``exp(-d)`` with 15 fraction bits, for distances of 0 or more in activation format.

    A power of two whose fraction is a cubic, exact at both ends; within 5 units.
    """
    exponents = distances * 47274 >> 10  # times log2(e), now with 14 fraction bits
    fraction = exponents & 16383
    cubic = 1298 * fraction >> 14
    cubic = (7579 - cubic) * fraction >> 14
    cubic = (22665 - cubic) * fraction >> 14
    return (32768 - cubic) >> (exponents >> 14)


def log_of(totals: Words) -> Words:
    """``log(s)`` in loss format of sums from 1 up, with 15 fraction bits; shape as given.

    The binary logarithm's fraction is a cubic, exact at both ends; within 5 units of 2**-12.
    """
    power = np.zeros_like(totals)
    while (large := totals >= 65536).any():
        totals = np.where(large, totals >> 1, totals)
        power += large
    fraction = totals - 32768
    cubic = 5217 * fraction >> 15
    cubic = (19074 - cubic) * fraction >> 15
    cubic = (46624 - cubic) * fraction >> 15
    return ((power << 15) + cubic >> 3) * 22713 >> 15  # times log(2)
