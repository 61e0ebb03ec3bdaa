"""The sparse block on a board: its largest changes out, the fleet's changes in.

The layout and its sources stand in the host's ``protocol/sparse.py``, error feedback in its
``protocol/feedback.py``; for _WIDE see kernels.py. A block is written into and read from buffers
that exist: only a Codec allocates, once. Hence the loops that count by hand: a for loop over an
array takes heap.
"""

from array import array

import micropython
from micropython import const

from tinymetafed import changes
from tinymetafed.errors import MessageError, ModelError
from tinymetafed.words import clear

_WIDE = const(0)

_CHANGE_BITS = const(18)  # value width plus scale exponent, at most
_HEAD = const(3)  # bytes before the scales

# Slots of the table that a pass over one tensor works from and carries on to the next tensor.
_THRESHOLD = const(0)  # entries above it are sent
_EQUAL = const(1)  # how many that equal it may still be sent
_START = const(2)  # the tensor's first index
_SIZE = const(3)  # its parameters
_EXPONENT = const(4)  # the tensor's scale
_ENTRY = const(5)  # entries done so far
_BEFORE = const(6)  # the last index that a gap told
_LARGEST_SENT = const(7)  # magnitude among the tensor's entries
_LOW = const(8)  # bits of a gap that are packed as they are
_LOW_AT = const(9)  # byte where low parts start
_HIGH_BIT = const(10)  # the next bit of the high parts
_VALUES_AT = const(11)  # byte where values start
_VALUE_BITS = const(12)
_KEEP = const(13)  # whether what is not sent goes to the residual
_APPLY = const(14)  # whether entries are added, or only checked
_INVERTED = const(15)  # 1 where gaps tell the parameters that are no entries
_GAP = const(16)  # gaps done so far; when reading, all
_SLOTS = const(17)


@micropython.viper
def _survey(delta: ptr32, sums: ptr32, job: ptr32):
    """Look through one tensor's entries: for the largest, and into sums[l] goes each gap >> l."""
    index = job[_START]
    end = index + job[_SIZE]
    delta = ptr32(uint(delta) + (index << 2))
    threshold = job[_THRESHOLD]
    equal = job[_EQUAL]
    before = job[_BEFORE]
    if _WIDE:
        before = (before << 32) >> 32
    largest = 0
    while index < end:
        m = delta[0]
        if _WIDE:
            m = (m << 32) >> 32
        if m < 0:
            m = 0 - m
        told = job[_INVERTED]
        if m > threshold or (m == threshold and equal):
            if m == threshold:
                equal -= 1
            if m > largest:
                largest = m
            told ^= 1
        if told:
            gap = index - before - 1
            before = index
            low = 0
            while gap:
                sums[low] += gap
                gap >>= 1
                low += 1
        delta = ptr32(uint(delta) + 4)
        index += 1
    job[_EQUAL] = equal
    job[_BEFORE] = before
    job[_LARGEST_SENT] = largest


@micropython.viper
def _pack(delta: ptr32, residual: ptr16, out: ptr8, job: ptr32):
    """Write one tensor's entries into out, and what is left over to the residual.

    Where there is a residual, what it brought to delta goes again.
    """
    index = job[_START]
    end = index + job[_SIZE]
    delta = ptr32(uint(delta) + (index << 2))
    residual = ptr16(uint(residual) + (index << 1))
    threshold = job[_THRESHOLD]
    equal = job[_EQUAL]
    exponent = job[_EXPONENT]
    half = 1 << exponent >> 1
    entry = job[_ENTRY]
    before = job[_BEFORE]
    if _WIDE:
        before = (before << 32) >> 32
    low = job[_LOW]
    low_bit = (job[_LOW_AT] << 3) + job[_GAP] * low
    high_bit = job[_HIGH_BIT]
    bits = job[_VALUE_BITS]
    while index < end:
        d = delta[0]
        if _WIDE:
            d = (d << 32) >> 32
        m = d
        if m < 0:
            m = 0 - m
        told = job[_INVERTED]
        left = d
        if m > threshold or (m == threshold and equal):
            if m == threshold:
                equal -= 1
            told ^= 1
            v = (d + half) >> exponent
            left = d - (v << exponent)
            at = job[_VALUES_AT]
            if bits == 4:
                out[at + (entry >> 1)] |= (v & 15) << ((entry & 1) << 2)
            elif bits == 8:
                out[at + entry] = v
            else:
                at += entry << 1
                out[at] = v
                out[at + 1] = v >> 8
            entry += 1
        if told:
            gap = index - before - 1
            before = index
            high_bit += gap >> low
            out[high_bit >> 3] |= 1 << (high_bit & 7)
            high_bit += 1
            i = 0
            while i < low:
                out[low_bit >> 3] |= ((gap >> i) & 1) << (low_bit & 7)
                low_bit += 1
                i += 1
            job[_GAP] += 1
        if job[_KEEP]:
            delta[0] = d - ((residual[0] ^ 0x8000) - 0x8000)
            if left > 32767:
                left = 32767
            elif left < 0 - 32768:
                left = 0 - 32768
            residual[0] = left
            residual = ptr16(uint(residual) + 2)
        delta = ptr32(uint(delta) + 4)
        index += 1
    job[_EQUAL] = equal
    job[_ENTRY] = entry
    job[_BEFORE] = before
    job[_HIGH_BIT] = high_bit


@micropython.viper
def _unpack(base: ptr16, block: ptr8, job: ptr32, tensors: ptr32) -> int:
    """Check a block's gaps or, where the table says so, add its changes to base.

    Returns:
        0 where there are fewer gaps than announced, or they lead beyond the parameters, or
        something follows the last one; else 1.
    """
    parameters = job[_SIZE]
    gaps = job[_GAP]
    low = job[_LOW]
    low_bit = job[_LOW_AT] << 3
    high_bit = job[_HIGH_BIT]
    last = job[_VALUES_AT] << 3
    bits = job[_VALUE_BITS]
    entry = 0
    tensor = 0
    end = tensors[0]
    start = 0
    while start < parameters:
        told = start
        if gaps:
            while True:
                if high_bit == last:
                    return 0
                if (block[high_bit >> 3] >> (high_bit & 7)) & 1:
                    break
                high_bit += 1
                told += 1 << low
                if told >= parameters:
                    return 0
            high_bit += 1
            i = 0
            while i < low:
                told += ((block[low_bit >> 3] >> (low_bit & 7)) & 1) << i
                low_bit += 1
                i += 1
            if told >= parameters:
                return 0
            gaps -= 1
        elif job[_INVERTED]:
            told = parameters
        else:
            break
        index = told
        stop = told + 1
        if job[_INVERTED]:
            index = start
            stop = told
        start = told + 1
        if not job[_APPLY]:
            index = stop
        while index < stop:
            while index >= end:
                tensor += 1
                end += tensors[tensor]
            at = job[_VALUES_AT]
            if bits == 4:
                v = (block[at + (entry >> 1)] >> ((entry & 1) << 2)) & 15
                v = (v ^ 0x8) - 0x8
            elif bits == 8:
                v = (block[at + entry] ^ 0x80) - 0x80
            else:
                at += entry << 1
                v = ((block[at] | (block[at + 1] << 8)) ^ 0x8000) - 0x8000
            v <<= (block[_HEAD + (tensor >> 1)] >> ((tensor & 1) << 2)) & 15
            v += (base[index] ^ 0x8000) - 0x8000
            if v > 32767:
                v = 32767
            elif v < 0 - 32768:
                v = 0 - 32768
            base[index] = v
            entry += 1
            index += 1
    if gaps or last - high_bit > 7:
        return 0
    if high_bit & 7 and block[high_bit >> 3] >> (high_bit & 7):
        return 0
    return 1


def _spare(block, at, bits):
    """Whether a bit is set between the end of so many bits from byte at on and the next byte."""
    return bits & 7 and block[at + (bits >> 3)] >> (bits & 7)


def block_size(top, parameters, tensors, value_bits):
    """The most bytes that a block takes with up to top entries, wherever they lie."""
    top = min(top, parameters)
    gaps = min([top * (low + 1) + (parameters - top >> low) for low in range(16)])
    # One byte more because low and high parts are rounded up apart.
    return _HEAD + (tensors + 1 >> 1) + (gaps + 7 >> 3) + 1 + (top * value_bits + 7 >> 3)


class Codec:
    """Sparse blocks for parameters in tensors of given sizes.

    Args:
        tensors: the sizes, an array of words.
        value_bits: width of the values in the blocks that it writes; it reads all.
        residual: None; or an int16 for each parameter, zero at first, that keeps what was not sent.

    Raises:
        ModelError: there are no values of that width.
    """

    def __init__(self, tensors, value_bits=8, residual=None):
        if value_bits not in (4, 8, 16):
            raise ModelError("values have 4, 8 or 16 bits, not %d" % value_bits)
        self._tensors = tensors
        self._parameters = sum(tensors)
        self._residual = residual
        self._bins = array("i", bytes(4 * 256))
        self._job = array("i", bytes(4 * _SLOTS))
        self._width = value_bits

    def encode(self, theta, base, top, out, start):
        """Write the at most top largest changes from base to theta as a block at out[start:].

        Among equals the lower index goes first; what did not change is not sent. Where there is a
        residual, it is added to the changes, and then keeps what the block leaves of them.

        Args:
            theta: parameters in words; used as scratch, and as before at the end.
            base: the same parameters as they were, int16.
            top: most entries, at least 1.
            out: a bytearray with block_size bytes from start on.
            start: where the block begins.

        Returns:
            Where the block ends.
        """
        job = self._job
        parameters = self._parameters
        residual = self._residual
        changes.subtract(theta, base, parameters)
        job[_KEEP] = int(residual is not None)
        if residual is None:
            residual = self._bins  # which is not looked at then
        else:
            changes.correct(theta, residual, parameters)
        count = changes.choose(theta, parameters, min(top, parameters), self._bins, job)
        equal = job[_EQUAL]
        inverted = int(2 * count > parameters)
        job[_INVERTED] = inverted
        head = start + _HEAD + (len(self._tensors) + 1 >> 1)
        clear(out, start, head)
        self._scale(theta, out, start + _HEAD)
        end = self._split(count, parameters - count if inverted else count, head)
        out[start] = job[_LOW] | (self._width >> 3) << 4 | inverted << 6
        out[start + 1] = count & 0xFF
        out[start + 2] = count >> 8
        clear(out, head, end)
        job[_EQUAL] = equal
        job[_ENTRY] = job[_GAP] = job[_START] = 0
        job[_BEFORE] = -1
        i = 0
        while i < len(self._tensors):
            job[_SIZE] = self._tensors[i]
            job[_EXPONENT] = out[start + _HEAD + (i >> 1)] >> (i & 1) * 4 & 15
            _pack(theta, residual, out, job)
            job[_START] += job[_SIZE]
            i += 1
        changes.add(theta, base, parameters)
        return end

    def _scale(self, delta, out, at):
        """Write each tensor's scale to out, from byte at on; sum up the gaps >> l in bins[l]."""
        job = self._job
        bins = self._bins
        i = 0
        while i < 17:
            bins[i] = 0
            i += 1
        job[_START] = 0
        job[_BEFORE] = -1
        most = (1 << self._width - 1) - 1
        i = 0
        while i < len(self._tensors):
            job[_SIZE] = self._tensors[i]
            _survey(delta, bins, job)
            largest = job[_LARGEST_SENT]
            exponent = 0
            while largest + (1 << exponent >> 1) >> exponent > most:
                exponent += 1
            out[at + (i >> 1)] |= exponent << (i & 1) * 4
            job[_START] += job[_SIZE]
            i += 1

    def _split(self, count, gaps, head):
        """Choose the low bits, and lay out so many entries and gaps from byte head on.

        Returns:
            Where the block ends.
        """
        job = self._job
        bins = self._bins
        low = 0
        # A low bit more costs a bit a gap, and saves the less the more there are.
        while gaps + bins[low + 1] < bins[low]:
            low += 1
        high_at = head + (gaps * low + 7 >> 3)
        job[_LOW] = low
        job[_LOW_AT] = head
        job[_HIGH_BIT] = high_at << 3
        job[_VALUE_BITS] = self._width
        job[_VALUES_AT] = high_at + (gaps + bins[low] + 7 >> 3)
        return job[_VALUES_AT] + (count * self._width + 7 >> 3)

    def take_back(self, block):
        """Put a block that this codec wrote, and that was never sent, back into the residual."""
        if self._residual is not None:
            self.apply(block, self._residual)

    def apply(self, block, base):
        """Add a block's changes to int16 parameters.

        Raises:
            MessageError: the bytes are not a block for these parameters; base is as it was.
        """
        job = self._job
        tensors = len(self._tensors)
        low_at = _HEAD + (tensors + 1 >> 1)
        if len(block) < low_at or block[0] >> 7 or block[0] >> 4 & 3 == 3:
            raise MessageError("sparse block: no header")
        low = block[0] & 15
        bits = 4 << (block[0] >> 4 & 3)
        inverted = block[0] >> 6
        i = 0
        while i < tensors:
            if (block[_HEAD + (i >> 1)] >> (i & 1) * 4 & 15) + bits > _CHANGE_BITS:
                raise MessageError("sparse block: a scale is out of range")
            i += 1
        count = block[1] | block[2] << 8
        gaps = self._parameters - count if inverted else count
        high_at = low_at + (gaps * low + 7 >> 3)
        values_at = len(block) - (count * bits + 7 >> 3)
        if count > self._parameters or high_at > values_at:
            raise MessageError("sparse block: wrong length")
        if (
            _spare(block, _HEAD, 4 * tensors)
            or _spare(block, low_at, gaps * low)
            or _spare(block, values_at, count * bits)
        ):
            raise MessageError("sparse block: a spare bit is set")
        job[_INVERTED] = inverted
        job[_GAP] = gaps
        job[_SIZE] = self._parameters
        job[_LOW] = low
        job[_LOW_AT] = low_at
        job[_HIGH_BIT] = high_at << 3
        job[_VALUES_AT] = values_at
        job[_VALUE_BITS] = bits
        job[_APPLY] = 0
        if not _unpack(base, block, job, self._tensors):
            raise MessageError("sparse block: gaps out of range")
        job[_APPLY] = 1
        _unpack(base, block, job, self._tensors)
