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
_CELLS: Final = 2**17
"""Bits or parameters that are decoded at once: what they take fits a processor's cache."""


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
    return _ones(above | is_first, count)


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
        indices = _ones(is_other, parameters - entries)
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


# --- Reading


def decode(block: bytes, tensors: Sequence[int]) -> Sparse:
    """Decode a block for parameters in tensors of the given sizes.

    Raises:
        SparseError: whatever is wrong with the bytes.
    """
    (decoded,) = decode_all([block], tensors)
    if isinstance(decoded, SparseError):
        raise decoded
    return decoded


def decode_all(blocks: Sequence[bytes], tensors: Sequence[int]) -> list[Sparse | SparseError]:
    """Decode many blocks, for each what :func:`decode` returns or raises.

    Those of one length and header have their parts at the same places: they are read together, as
    the rows of a matrix.
    """
    parameters = sum(tensors)
    owners = np.repeat(np.arange(len(tensors)), tensors)
    alike: dict[tuple[bytes, int], list[int]] = {}
    for i, block in enumerate(blocks):
        alike.setdefault((block[:3], len(block)), []).append(i)
    found: dict[int, Sparse | SparseError] = {}
    for (_, size), places in alike.items():
        try:
            at = layout(blocks[places[0]], parameters, len(tensors))
        except SparseError as error:
            found |= dict.fromkeys(places, error)
            continue
        rows = max(1, _CELLS // max(8 * size, parameters if at.inverted else 0))
        for start in range(0, len(places), rows):
            part = places[start : start + rows]
            content = np.frombuffer(b"".join(blocks[i] for i in part), np.uint8)
            found |= zip(part, _decode_rows(content.reshape(-1, size), at, owners), strict=True)
    return [found[i] for i in range(len(blocks))]


def _decode_rows(
    blocks: NDArray[np.uint8], at: Layout, owners: NDArray[np.int64]
) -> list[Sparse | SparseError]:
    """Decode blocks of one layout; shape (blocks, bytes).

    Args:
        blocks: a row each.
        at: their layout.
        owners: each parameter's tensor; shape (parameters,).
    """
    faults: dict[int, str] = {}

    def refuse(rows: NDArray[np.bool_], why: str, values: NDArray[np.int64] | None = None) -> None:
        for row in rows.nonzero()[0]:
            faults.setdefault(int(row), why if values is None else why.format(values[row]))

    exponents, odd_exponents = _unpack(blocks[:, 3 : at.low], 4, int(owners[-1]) + 1)
    low, odd_low = _unpack(blocks[:, at.low : at.high], at.low_bits, at.gaps)
    values, odd_values = _unpack(blocks[:, at.values :], at.value_bits, at.entries)
    refuse(odd_exponents | odd_low | odd_values, "a spare bit is set")
    largest, most = exponents.max(axis=1), CHANGE_BITS - at.value_bits
    why = f"scale exponent {{}} is above {most}, the most for {at.value_bits} bits"
    refuse(largest > most, why, largest)
    high = np.unpackbits(blocks[:, at.high : at.values], axis=1, bitorder="little")
    ones = np.count_nonzero(high, axis=1)
    refuse(ones != at.gaps, f"{{}} high parts where {at.gaps} gaps are announced", ones)
    if high.size:  # Only the last byte's bits may follow a block's last one.
        refuse(high[:, -8:].max(axis=1) == 0, "bytes follow the last high part")

    def sound() -> NDArray[np.int64]:
        return np.array([row for row in range(len(blocks)) if row not in faults], np.int64)

    rows = sound()
    ends = _ones(high[rows], at.gaps)
    gaps = ends.copy()
    gaps[:, 1:] -= ends[:, :-1] + 1
    indices = ((gaps << at.low_bits | low[rows]) + 1).cumsum(axis=1) - 1
    if at.gaps:
        last = np.zeros(len(blocks), np.int64)
        last[rows] = indices[:, -1]
        why = f"index {{}}; the model has {len(owners)} parameters"
        refuse(last >= len(owners), why, last)
        indices = indices[last[rows] < len(owners)]
        rows = sound()
    if at.inverted:
        is_entry = np.ones((len(rows), len(owners)), bool)
        is_entry[np.arange(len(rows))[:, None], indices] = False
        indices = _ones(is_entry, at.entries)
    sign = 1 << (at.value_bits - 1)
    scales = exponents[rows[:, None], owners[indices]]
    changes = ((values[rows] ^ sign) - sign) << scales
    decoded = dict(zip(rows.tolist(), map(Sparse, indices, changes), strict=True))
    return [
        decoded.get(row) or SparseError(f"sparse block: {faults[row]}")
        for row in range(len(blocks))
    ]


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


def _unpack(
    packed: NDArray[np.uint8], bits: int, count: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """``count`` words a row, of so many bits and without a sign; whether a row has more bits set.

    The words have shape (rows, count).
    """
    unit = 8 if bits % 8 == 0 else 1  # Whole bytes need not be taken apart.
    units = packed if unit == 8 else np.unpackbits(packed, axis=1, bitorder="little")
    each = bits // unit
    words = np.zeros((len(packed), count), np.int64)
    for i in range(each):
        words |= units[:, i : count * each : each].astype(np.int64) << (i * unit)
    return words, units[:, count * each :].max(axis=1, initial=0) > 0


def _ones(flags: NDArray[np.uint8 | np.bool_], count: int) -> NDArray[np.int64]:
    """Where each row's ones stand, of which it has ``count``; shape (rows, count)."""
    rows, width = flags.shape
    places: NDArray[np.int64] = np.flatnonzero(flags).reshape(rows, count)
    places -= width * np.arange(rows)[:, None]
    return places


def _head(tensors: int) -> int:
    """Bytes before the low parts."""
    return 3 + _bytes(4 * tensors)


def _bytes(bits: int) -> int:
    return -(-bits // 8)
