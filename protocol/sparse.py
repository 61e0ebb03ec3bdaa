"""The sparse block: which parameters changed most, and by how much. Used up and down.

====================  =======================================================================
bytes                 what
====================  =======================================================================
1                     index coding: 0 Elias-Fano, 1 bitmap
2                     count of entries m, little endian
1 per tensor          scale exponent e: an entry's change is its value times 2**e weight units
see :func:`indices`   the m indices into the flat parameters, strictly increasing
m                     the values, int8
====================  =======================================================================

Elias-Fano (Elias 1974; Vigna, "Quasi-succinct indices", WSDM 2013): with n parameters, the low
``l = floor(log2(n / m))`` bits of each index are packed, and the high parts are unary: bit
``(index >> l) + i`` is set for the i-th index. It costs at most half a bit an index more than any
code could. A bitmap takes n bits and is used where it is not longer. Bits are numbered from the
lowest bit of the first byte; spare bits are zero.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from protocol.errors import SparseError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ELIAS_FANO: Final = 0
BITMAP: Final = 1
VALUE_MAX: Final = 127
MAX_EXPONENT: Final = 10
"""Enough for the largest change there is, from one end of the weight range to the other."""
MAX_PARAMETERS: Final = 2**16 - 1


class Sparse(NamedTuple):
    """A decoded block."""

    indices: NDArray[np.int64]
    """Strictly increasing, below the number of parameters; shape (m,)."""
    changes: NDArray[np.int64]
    """Changes in weight units; shape (m,)."""


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


def encode(changes: NDArray[np.int64], indices: NDArray[np.int64], tensors: Sequence[int]) -> bytes:
    """Encode the changes at ``indices``.

    Args:
        changes: all parameters' changes in weight units, each below 2**16 in magnitude; shape (n,).
        indices: strictly increasing; shape (m,).
        tensors: how many parameters each tensor has; their sum is n.

    Returns:
        The block. Each value lies within half of its tensor's scale from the change.
    """
    exponents = bytearray()
    values = np.empty(len(indices), np.int8)
    end = 0
    for size in tensors:
        start, end = end, end + size
        inside = (indices >= start) & (indices < end)
        chosen = changes[indices[inside]]
        exponent = scale_exponent(int(np.abs(chosen).max(initial=0)))
        exponents.append(exponent)
        values[inside] = np.clip(rounded_shift(chosen, exponent), -VALUE_MAX, VALUE_MAX)
    coding, packed = _pack_indices(indices, len(changes))
    head = bytes([coding]) + len(indices).to_bytes(2, "little")
    return head + bytes(exponents) + packed + values.tobytes()


def scale_exponent(largest: int) -> int:
    """The least exponent at which ``largest`` weight units round to what a value can hold."""
    exponent = 0
    while (largest + (1 << exponent >> 1)) >> exponent > VALUE_MAX:
        exponent += 1
    return exponent


def rounded_shift(changes: NDArray[np.int64], exponent: int) -> NDArray[np.int64]:
    """Changes divided by ``2**exponent``, to the nearest; halves go up."""
    return (changes + (1 << exponent >> 1)) >> exponent


def decode(block: bytes, tensors: Sequence[int]) -> Sparse:
    """Decode a block for parameters in tensors of the given sizes.

    Raises:
        SparseError: whatever is wrong with the bytes.
    """
    parameters = sum(tensors)
    head = 3 + len(tensors)
    if len(block) < head:
        msg = f"sparse block: {len(block)} bytes are fewer than its header's {head}"
        raise SparseError(msg)
    coding = block[0]
    count = int.from_bytes(block[1:3], "little")
    exponents = np.frombuffer(block[3:head], np.uint8)
    if coding not in (ELIAS_FANO, BITMAP):
        msg = f"sparse block: index coding {coding} is unknown; 0 and 1 are known"
        raise SparseError(msg)
    if count > parameters:
        msg = f"sparse block: {count} entries, but the model has {parameters} parameters"
        raise SparseError(msg)
    if exponents.max(initial=0) > MAX_EXPONENT:
        msg = f"sparse block: scale exponent {exponents.max()} is above {MAX_EXPONENT}"
        raise SparseError(msg)
    size = _index_bytes(coding, count, parameters)
    if len(block) != head + size + count:
        msg = f"sparse block: {len(block)} bytes, but {count} entries take {head + size + count}"
        raise SparseError(msg)
    packed = block[head : head + size]
    unpack = _unpack_elias_fano if coding == ELIAS_FANO else _unpack_bitmap
    indices = unpack(packed, count, parameters)
    values = np.frombuffer(block, np.int8, count, head + size)
    owners = np.searchsorted(np.cumsum(tensors), indices, side="right")
    return Sparse(indices, np.left_shift(values, exponents[owners], dtype=np.int64))


def low_bits(count: int, parameters: int) -> int:
    """Bits of each index that Elias-Fano packs as they are."""
    return (parameters // count).bit_length() - 1 if count else 0


def _index_bytes(coding: int, count: int, parameters: int) -> int:
    if coding == BITMAP:
        return -(-parameters // 8)
    if count == 0:
        return 0
    low = low_bits(count, parameters)
    high = count + ((parameters - 1) >> low)
    return -(-count * low // 8) + -(-high // 8)


def _pack_indices(indices: NDArray[np.int64], parameters: int) -> tuple[int, bytes]:
    count = len(indices)
    if _index_bytes(ELIAS_FANO, count, parameters) >= _index_bytes(BITMAP, count, parameters):
        bits = np.zeros(parameters, np.uint8)
        bits[indices] = 1
        return BITMAP, np.packbits(bits, bitorder="little").tobytes()
    if count == 0:
        return ELIAS_FANO, b""
    low = low_bits(count, parameters)
    low_part = ((indices[:, None] >> np.arange(low)) & 1).astype(np.uint8)
    high = np.zeros(count + ((parameters - 1) >> low), np.uint8)
    high[(indices >> low) + np.arange(count)] = 1
    packed_low = np.packbits(low_part.ravel(), bitorder="little").tobytes()
    return ELIAS_FANO, packed_low + np.packbits(high, bitorder="little").tobytes()


def _unpack_bitmap(packed: bytes, count: int, parameters: int) -> NDArray[np.int64]:
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little")
    indices = np.flatnonzero(bits)
    if len(indices) != count or (count and indices[-1] >= parameters):
        msg = f"sparse block: the bitmap marks {len(indices)} entries where {count} are announced"
        raise SparseError(msg)
    return indices


def _unpack_elias_fano(packed: bytes, count: int, parameters: int) -> NDArray[np.int64]:
    if count == 0:
        return np.empty(0, np.int64)
    low = low_bits(count, parameters)
    split = -(-count * low // 8)
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little")
    low_part = bits[: count * low].reshape(count, low).astype(np.int64)
    if bits[count * low : 8 * split].any():
        msg = "sparse block: a spare bit is set"
        raise SparseError(msg)
    positions = np.flatnonzero(bits[8 * split :])
    if len(positions) != count:
        msg = f"sparse block: {len(positions)} high parts where {count} entries are announced"
        raise SparseError(msg)
    high = positions - np.arange(count)
    indices: NDArray[np.int64] = (high << low) | (low_part << np.arange(low)).sum(axis=1)
    if indices[-1] >= parameters or (np.diff(indices) <= 0).any():
        msg = f"sparse block: indices must increase and stay below {parameters}"
        raise SparseError(msg)
    return indices
