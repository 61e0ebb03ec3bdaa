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
_ROWS: Final = 64
"""Rows that are encoded at once: a core's cache holds what they take."""


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
    return _encode_rows(changes[None], indices[None], tensors, value_bits)[0]


def encode_all(
    changes: NDArray[np.int64], top: int, tensors: Sequence[int], value_bits: int = 8
) -> list[bytes]:
    """Encode the ``top`` largest changes of each row: :func:`top_indices`, then :func:`encode`.

    Args:
        changes: as for :func:`encode`, a row each; shape (rows, n).
        top: most entries of a block.
        tensors: how many parameters each tensor has; their sum is n.
        value_bits: 4, 8 or 16.
    """
    magnitudes = np.abs(changes)
    counts = np.minimum(np.count_nonzero(magnitudes, axis=1), top)
    blocks = [b""] * len(changes)
    for count in np.unique(counts).tolist():
        places = np.flatnonzero(counts == count)
        # Rows of as many entries have their parts at the same places: they are matrices.
        for at in range(0, len(places), _ROWS):
            rows = places[at : at + _ROWS]
            chosen = _top_of_rows(magnitudes[rows], count)
            encoded = _encode_rows(changes[rows], chosen, tensors, value_bits)
            for row, block in zip(rows.tolist(), encoded, strict=True):
                blocks[row] = block
    return blocks


def _top_of_rows(magnitudes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """:func:`top_indices` of rows that have at least so many others than zero."""
    if count == 0:
        return np.empty((len(magnitudes), 0), np.int64)
    threshold = np.partition(magnitudes, -count, axis=1)[:, -count, None]
    above = magnitudes > threshold
    equal = magnitudes == threshold
    wanted = count - np.count_nonzero(above, axis=1)
    is_first = equal & (np.cumsum(equal, axis=1, dtype=np.int32) <= wanted[:, None])
    return _places(above | is_first, count)


def _encode_rows(
    changes: NDArray[np.int64],
    indices: NDArray[np.int64],
    tensors: Sequence[int],
    value_bits: int,
) -> list[bytes]:
    """Encode rows of as many entries; shapes (rows, n) and (rows, m)."""
    rows, parameters = changes.shape
    entries = indices.shape[1]
    owners = np.searchsorted(np.cumsum(tensors), indices, side="right")
    chosen = np.take_along_axis(changes, indices, axis=1)
    exponents = np.zeros((rows, len(tensors)), np.int64)
    for tensor in range(len(tensors)):
        largest = np.abs(chosen).max(axis=1, initial=0, where=owners == tensor)
        exponents[:, tensor] = [scale_exponent(most, value_bits) for most in largest.tolist()]
    values = rounded_shift(chosen, np.take_along_axis(exponents, owners, axis=1))
    inverted = 2 * entries > parameters
    if inverted:
        is_other = np.ones(changes.shape, np.bool_)
        np.put_along_axis(is_other, indices, values=False, axis=1)
        indices = _places(is_other, parameters - entries)
    low, lows, highs = _pack_gaps(indices)
    coding = (low | VALUE_BITS.index(value_bits) << 4 | inverted << 6).astype(np.uint8)
    count = entries.to_bytes(2, "little")
    heads, ends = _pack(exponents, 4), _pack(values, value_bits)
    return [
        bytes([code]) + count + b"".join(parts)
        for code, *parts in zip(coding.tolist(), heads, lows, highs, ends, strict=True)
    ]


def scale_exponent(largest: int, value_bits: int) -> int:
    """The least exponent at which ``largest`` weight units round to what a value can hold."""
    exponent = 0
    while (largest + (1 << exponent >> 1)) >> exponent >= 1 << (value_bits - 1):
        exponent += 1
    return exponent


def rounded_shift(
    changes: NDArray[np.int64], exponent: int | NDArray[np.int64]
) -> NDArray[np.int64]:
    """Changes divided by ``2**exponent``, to the nearest; halves go up."""
    rounded: NDArray[np.int64] = (changes + (1 << exponent >> 1)) >> exponent
    return rounded


def _pack_gaps(indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[bytes], list[bytes]]:
    """The number of low bits, and both parts of the gaps between indices; of each row."""
    rows, count = indices.shape
    gaps = np.diff(indices, axis=1, prepend=-1) - 1
    sizes = [count * low + (gaps >> low).sum(axis=1) for low in range(_LOW_MOST + 1)]
    best = np.argmin(sizes, axis=0)
    lows, highs = [b""] * rows, [b""] * rows
    for low in np.unique(best).tolist():
        places = np.flatnonzero(best == low)
        some = gaps[places]
        ends = np.cumsum((some >> low) + 1, axis=1) - 1  # Where each gap's one stands.
        bits = ends[:, -1] + 1 if count else np.zeros(len(places), np.int64)
        high = np.zeros((len(places), int(bits.max())), np.uint8)
        np.put_along_axis(high, ends, 1, axis=1)
        packed = np.packbits(high, axis=1, bitorder="little")
        for i, (place, part) in enumerate(zip(places.tolist(), _pack(some, low), strict=True)):
            lows[place] = part
            highs[place] = packed[i, : _bytes(int(bits[i]))].tobytes()
    return best, lows, highs


def _pack(words: NDArray[np.integer], bits: int) -> list[bytes]:
    """The low ``bits`` of each word of a row, one after the other; of each row."""
    if bits == 8:
        return [row.tobytes() for row in words.astype(np.uint8)]
    each = (words[..., None] >> np.arange(bits, dtype=words.dtype)) & 1
    packed = np.packbits(each.astype(np.uint8).reshape(len(words), -1), axis=1, bitorder="little")
    return [row.tobytes() for row in packed]


def _places(flags: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """Where each row's flags are set, as many in each; shape (rows, count)."""
    return np.nonzero(flags)[1].reshape(len(flags), count)


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
