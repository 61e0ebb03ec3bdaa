"""The sparse block: which parameters changed most, and by how much. Used up and down.

=========================  ====================================================================
bytes                      what
=========================  ====================================================================
1                          coding: bits 0 to 3 low bits l of a gap; bits 4 and 5 width of a
                           value, 0 for 4 bits, 1 for 8, 2 for 16; bit 6 set where the gaps tell
                           the parameters that are no entries; bit 7 zero
2                          count of entries m, little endian
1 for two tensors          scale exponents, 4 bits each: an entry's change is its value times
                           2**exponent weight units
l bits a gap               low parts of the gaps
to the last gap's one      high parts of the gaps, in unary
4, 8 or 16 bits an entry   the values, two's complement, little endian
=========================  ====================================================================

Each part starts with a whole byte; bits are numbered from the lowest bit of its first byte, and
spare bits are zero.

A gap is how many parameters lie between an entry and the one before it. It is Rice coded (Golomb,
"Run-length encodings", 1966; Rice, "Some practical universal noiseless coding techniques", 1979):
the low ``l`` bits as they are, then ``gap >> l`` zeros and a one. The two parts of all gaps lie
apart, as in an Elias-Fano list, so that numpy reads them without a loop. The writer takes the ``l``
that makes the block the shortest; with l = 0 the unary part is a bitmap. Where more than half of
the parameters are entries, the gaps are those between all others.

For random entries, P from 5 to 25, this takes 1 to 4 % more than their entropy. Elias-Fano takes 9
to 24 %: it codes the high parts of indices, and so pays for an order among those that share one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from protocol.errors import SparseError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

VALUE_BITS: Final = (4, 8, 16)
"""Widths of a value; a block says which by its place."""
LARGEST: Final = 2**16 - 1
"""The largest change there is, from one end of the weight range to the other."""
CHANGE_BITS: Final = 18
"""Value width plus scale exponent at most: what it takes for LARGEST, whatever the width."""
MAX_PARAMETERS: Final = 2**16 - 1
MAX_BLOCK: Final = 2**16 - 1
"""Bytes of the largest block that a board can send: its message tells them in 16 bits."""
_LOW_MOST: Final = 15


class Sparse(NamedTuple):
    """A decoded block."""

    indices: NDArray[np.int64]
    """Strictly increasing, below the number of parameters; shape (m,)."""
    changes: NDArray[np.int64]
    """Changes in weight units; shape (m,)."""


class Layout(NamedTuple):
    """What a block's header says, and where its parts stand, in bytes from its start."""

    low_bits: int
    value_bits: int
    inverted: bool
    """Whether the gaps tell the parameters that are no entries."""
    entries: int
    gaps: int
    low: int
    high: int
    values: int


def top_count(parameters: int, percent: float) -> int:
    """How many entries ``percent`` % of ``parameters`` are, rounded up."""
    return math.ceil(parameters * percent / 100)


def top_indices(changes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The indices of the ``count`` largest magnitudes, in increasing order.

    Zeros are never among them. Among equals the lower index goes first, as on the board.
    """
    magnitudes = np.abs(changes)
    count = min(count, int(np.count_nonzero(magnitudes)))
    if count == 0:
        return np.empty(0, np.int64)
    threshold = np.partition(magnitudes, -count)[-count]
    above = np.flatnonzero(magnitudes > threshold)
    equal = np.flatnonzero(magnitudes == threshold)[: count - len(above)]
    return np.sort(np.concatenate([above, equal]))


def block_size(top: int, tensors: Sequence[int], value_bits: int) -> int:
    """The most bytes that a block takes with up to ``top`` entries, wherever they lie."""
    parameters = sum(tensors)
    top = min(top, parameters)
    # No writer takes more bits for the gaps than with the l that suits evenly spread entries.
    gaps = min(top * (low + 1) + ((parameters - top) >> low) for low in range(_LOW_MOST + 1))
    # One byte more because low and high parts are rounded up apart.
    return _head(len(tensors)) + _bytes(gaps) + 1 + _bytes(top * value_bits)


# --- Writing


def encode(
    changes: NDArray[np.int64],
    indices: NDArray[np.int64],
    tensors: Sequence[int],
    value_bits: int = 8,
) -> bytes:
    """Encode the changes at ``indices``.

    Args:
        changes: all parameters' changes in weight units, at most LARGEST in magnitude; shape (n,).
        indices: strictly increasing; shape (m,).
        tensors: how many parameters each tensor has; their sum is n.
        value_bits: 4, 8 or 16.

    Returns:
        The block. Each value lies within half of its tensor's scale from the change.
    """
    exponents = np.zeros(len(tensors), np.uint8)
    values = np.empty(len(indices), np.int64)
    end = 0
    for tensor, size in enumerate(tensors):
        start, end = end, end + size
        inside = (indices >= start) & (indices < end)
        chosen = changes[indices[inside]]
        exponent = scale_exponent(int(np.abs(chosen).max(initial=0)), value_bits)
        exponents[tensor] = exponent
        values[inside] = rounded_shift(chosen, exponent)
    inverted = 2 * len(indices) > len(changes)
    low, gaps = _pack_gaps(_others(indices, len(changes)) if inverted else indices)
    coding = low | VALUE_BITS.index(value_bits) << 4 | inverted << 6
    head = bytes([coding]) + len(indices).to_bytes(2, "little")
    return head + _pack(exponents, 4) + gaps + _pack(values, value_bits)


def scale_exponent(largest: int, value_bits: int) -> int:
    """The least exponent at which ``largest`` weight units round to what a value can hold."""
    exponent = 0
    while (largest + (1 << exponent >> 1)) >> exponent >= 1 << (value_bits - 1):
        exponent += 1
    return exponent


def rounded_shift(changes: NDArray[np.int64], exponent: int) -> NDArray[np.int64]:
    """Changes divided by ``2**exponent``, to the nearest; halves go up."""
    return (changes + (1 << exponent >> 1)) >> exponent


def _pack_gaps(indices: NDArray[np.int64]) -> tuple[int, bytes]:
    """The number of low bits, and both parts of the gaps between indices."""
    gaps = np.diff(indices, prepend=-1) - 1
    lows = range(_LOW_MOST + 1)
    low = int(np.argmin([len(gaps) * low + int((gaps >> low).sum()) for low in lows]))
    ends = np.cumsum((gaps >> low) + 1) - 1  # Where each gap's one stands.
    high = np.zeros(ends[-1] + 1 if len(ends) else 0, np.uint8)
    high[ends] = 1
    return low, _pack(gaps, low) + _pack(high, 1)


def _pack(words: NDArray[np.integer], bits: int) -> bytes:
    """The low ``bits`` of each word, one after the other."""
    each = (words[:, None] >> np.arange(bits, dtype=words.dtype)) & 1
    return np.packbits(each.astype(np.uint8).ravel(), bitorder="little").tobytes()


# --- Reading


def decode(block: bytes, tensors: Sequence[int]) -> Sparse:
    """Decode a block for parameters in tensors of the given sizes.

    Raises:
        SparseError: whatever is wrong with the bytes.
    """
    parameters = sum(tensors)
    at = layout(block, parameters, len(tensors))
    exponents = _unpack(block[3 : at.low], 4, len(tensors))
    if exponents.max(initial=0) > CHANGE_BITS - at.value_bits:
        msg = (
            f"sparse block: scale exponent {exponents.max()} is above "
            f"{CHANGE_BITS - at.value_bits}, the most for {at.value_bits} bits"
        )
        raise SparseError(msg)
    indices = _unpack_gaps(block, at, parameters)
    if at.inverted:
        indices = _others(indices, parameters)
    sign = 1 << (at.value_bits - 1)
    values = (_unpack(block[at.values :], at.value_bits, at.entries) ^ sign) - sign
    owners = np.searchsorted(np.cumsum(tensors), indices, side="right")
    return Sparse(indices, values << exponents[owners])


def layout(block: bytes, parameters: int, tensors: int) -> Layout:
    """Read a block's header.

    Raises:
        SparseError: its parts cannot have the sizes that it says.
    """
    head = _head(tensors)
    if len(block) < head:
        msg = f"sparse block: {len(block)} bytes are fewer than its header's {head}"
        raise SparseError(msg)
    low_bits, width, inverted = block[0] & 15, block[0] >> 4 & 3, block[0] >> 6 & 1
    if width >= len(VALUE_BITS) or block[0] >> 7:
        msg = f"sparse block: coding 0x{block[0]:02x} is unknown"
        raise SparseError(msg)
    count = int.from_bytes(block[1:3], "little")
    if count > parameters:
        msg = f"sparse block: {count} entries, but the model has {parameters} parameters"
        raise SparseError(msg)
    gaps = parameters - count if inverted else count
    high = head + _bytes(gaps * low_bits)
    values = len(block) - _bytes(count * VALUE_BITS[width])
    if high > values:
        msg = f"sparse block: {len(block)} bytes are too few for {count} entries"
        raise SparseError(msg)
    return Layout(low_bits, VALUE_BITS[width], bool(inverted), count, gaps, head, high, values)


def _unpack_gaps(block: bytes, at: Layout, parameters: int) -> NDArray[np.int64]:
    """The indices that the gaps tell."""
    high = np.unpackbits(np.frombuffer(block[at.high : at.values], np.uint8), bitorder="little")
    ends = np.flatnonzero(high)
    if len(ends) != at.gaps:
        msg = f"sparse block: {len(ends)} high parts where {at.gaps} gaps are announced"
        raise SparseError(msg)
    if len(high) != 8 * _bytes(int(ends[-1]) + 1 if at.gaps else 0):
        msg = "sparse block: bytes follow the last high part"
        raise SparseError(msg)
    gaps = (np.diff(ends, prepend=-1) - 1) << at.low_bits
    gaps |= _unpack(block[at.low : at.high], at.low_bits, at.gaps)
    indices = np.cumsum(gaps + 1) - 1
    if at.gaps and indices[-1] >= parameters:
        msg = f"sparse block: index {indices[-1]}; the model has {parameters} parameters"
        raise SparseError(msg)
    return indices


def _unpack(packed: bytes, bits: int, count: int) -> NDArray[np.int64]:
    """``count`` words of so many bits, without a sign."""
    each = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little")
    if each[count * bits :].any():
        msg = "sparse block: a spare bit is set"
        raise SparseError(msg)
    words: NDArray[np.int64] = each[: count * bits].reshape(count, bits) @ (1 << np.arange(bits))
    return words


def _others(indices: NDArray[np.int64], parameters: int) -> NDArray[np.int64]:
    """All indices but these."""
    is_other = np.ones(parameters, bool)
    is_other[indices] = False
    return np.flatnonzero(is_other)


def _head(tensors: int) -> int:
    """Bytes before the low parts."""
    return 3 + _bytes(4 * tensors)


def _bytes(bits: int) -> int:
    return -(-bits // 8)
