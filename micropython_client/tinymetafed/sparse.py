"""The sparse block on a board: its largest changes out, the fleet's changes in.

The layout and its sources stand in the host's ``protocol/sparse.py``; for _WIDE see kernels.py. A
block is written into and read from buffers that exist: only a Codec allocates, once.
"""

from array import array

import micropython
from micropython import const

from tinymetafed.errors import MessageError

_WIDE = const(0)

_ELIAS_FANO = const(0)
_BITMAP = const(1)
_VALUE_MAX = const(127)
_MAX_EXPONENT = const(10)

# Slots of the table that a pass over one tensor works from and carries on to the next tensor.
_START = const(0)  # the tensor's first index
_SIZE = const(1)  # its parameters
_THRESHOLD = const(2)  # entries above it are sent
_EQUAL = const(3)  # how many that equal it may still be sent
_EXPONENT = const(4)  # the tensor's scale
_ENTRY = const(5)  # entries done so far
_CODING = const(6)
_LOW = const(7)  # bits of an index that are packed as they are
_LOW_AT = const(8)  # byte where packed bits, or the bitmap, start
_HIGH_AT = const(9)  # byte where unary bits start
_VALUES_AT = const(10)  # byte where values start
_SLOTS = const(11)


@micropython.viper
def _subtract(theta: ptr32, base: ptr16, count: int):
    while count:
        theta[0] -= (base[0] ^ 0x8000) - 0x8000
        theta = ptr32(uint(theta) + 4)
        base = ptr16(uint(base) + 2)
        count -= 1


@micropython.viper
def _add(theta: ptr32, base: ptr16, count: int):
    while count:
        theta[0] += (base[0] ^ 0x8000) - 0x8000
        theta = ptr32(uint(theta) + 4)
        base = ptr16(uint(base) + 2)
        count -= 1


@micropython.viper
def _histogram(delta: ptr32, count: int, bins: ptr32, high: int):
    """Count magnitudes by their high byte.

    Where high is not negative: those with that high byte, by their low byte.
    """
    i = 0
    while i < 256:
        bins[i] = 0
        i += 1
    while count:
        d = delta[0]
        if _WIDE:
            d = (d << 32) >> 32
        if d < 0:
            d = 0 - d
        if high < 0:
            bins[d >> 8] += 1
        elif d >> 8 == high:
            bins[d & 0xFF] += 1
        delta = ptr32(uint(delta) + 4)
        count -= 1


@micropython.viper
def _find(bins: ptr32, wanted: int, job: ptr32) -> int:
    """The highest bin at and above which at least wanted are counted.

    How many of this bin are wanted goes to _EQUAL.
    """
    i = 256
    while i:
        i -= 1
        if wanted <= bins[i]:
            break
        wanted -= bins[i]
    job[_EQUAL] = wanted
    return i


@micropython.viper
def _largest(delta: ptr32, start: int, count: int) -> int:
    delta = ptr32(uint(delta) + (start << 2))
    largest = 0
    while count:
        d = delta[0]
        if _WIDE:
            d = (d << 32) >> 32
        if d < 0:
            d = 0 - d
        if d > largest:
            largest = d
        delta = ptr32(uint(delta) + 4)
        count -= 1
    return largest


@micropython.viper
def _clear(out: ptr8, start: int, end: int):
    while start < end:
        out[start] = 0
        start += 1


@micropython.viper
def _pack(delta: ptr32, out: ptr8, job: ptr32):
    """Write one tensor's entries into out."""
    index = job[_START]
    end = index + job[_SIZE]
    delta = ptr32(uint(delta) + (index << 2))
    threshold = job[_THRESHOLD]
    equal = job[_EQUAL]
    exponent = job[_EXPONENT]
    half = 1 << exponent >> 1
    entry = job[_ENTRY]
    low = job[_LOW]
    while index < end:
        d = delta[0]
        if _WIDE:
            d = (d << 32) >> 32
        m = d
        if m < 0:
            m = 0 - m
        chosen = m > threshold
        if m == threshold and equal:
            equal -= 1
            chosen = True
        if chosen:
            bit = (job[_LOW_AT] << 3) + index
            if job[_CODING] == _ELIAS_FANO:
                bit = (job[_LOW_AT] << 3) + entry * low
                i = 0
                while i < low:
                    out[bit >> 3] |= ((index >> i) & 1) << (bit & 7)
                    bit += 1
                    i += 1
                bit = (job[_HIGH_AT] << 3) + entry + (index >> low)
            out[bit >> 3] |= 1 << (bit & 7)
            out[job[_VALUES_AT] + entry] = (d + half) >> exponent
            entry += 1
        delta = ptr32(uint(delta) + 4)
        index += 1
    job[_EQUAL] = equal
    job[_ENTRY] = entry


@micropython.viper
def _unpack(base: ptr16, block: ptr8, job: ptr32, tensors: ptr32, apply: int) -> int:
    """Check a block's entries or, where apply is set, add them to base.

    Returns:
        0 where its indices are out of order, else 1.
    """
    count = job[_ENTRY]
    low = job[_LOW]
    entry = 0
    before = -1
    tensor = 0
    end = tensors[0]
    bit = job[_HIGH_AT] << 3
    first = bit
    last = job[_VALUES_AT] << 3
    elias_fano = job[_CODING] == _ELIAS_FANO
    while bit < last:
        if (block[bit >> 3] >> (bit & 7)) & 1:
            index = bit - first
            if entry >= count:
                return 0
            if elias_fano:
                index = index - entry << low
                at = (job[_LOW_AT] << 3) + entry * low
                i = 0
                while i < low:
                    index |= ((block[at >> 3] >> (at & 7)) & 1) << i
                    at += 1
                    i += 1
            if index <= before or index >= job[_SIZE]:
                return 0
            before = index
            while index >= end:
                tensor += 1
                end += tensors[tensor]
            if apply:
                v = ((block[(last >> 3) + entry] ^ 0x80) - 0x80) << block[3 + tensor]
                v += (base[index] ^ 0x8000) - 0x8000
                if v > 32767:
                    v = 32767
                elif v < 0 - 32768:
                    v = 0 - 32768
                base[index] = v
            entry += 1
        bit += 1
    return int(entry == count)


def _split(job, coding, count, parameters, head):
    """Fill in where the parts of a block stand whose indices start at byte head.

    Returns:
        The byte after its values.
    """
    low = 0
    packed = parameters + 7 >> 3
    low_bytes = 0
    if coding == _ELIAS_FANO:
        while count and parameters // count >> low + 1:
            low += 1
        low_bytes = count * low + 7 >> 3
        high_bytes = count + (parameters - 1 >> low) + 7 >> 3 if count else 0
        packed = low_bytes + high_bytes
    job[_CODING] = coding
    job[_LOW] = low
    job[_LOW_AT] = head
    job[_HIGH_AT] = head + low_bytes
    job[_VALUES_AT] = head + packed
    return head + packed + count


def block_size(top, parameters, tensors):
    """The most bytes that a block takes with up to top entries."""
    return 3 + tensors + (parameters + 7 >> 3) + top


class Codec:
    """Sparse blocks for parameters in tensors of the given sizes (an array of words)."""

    def __init__(self, tensors):
        self._tensors = tensors
        self._parameters = sum(tensors)
        self._bins = array("i", bytes(4 * 256))
        self._job = array("i", bytes(4 * _SLOTS))

    def encode(self, theta, base, top, out, start):
        """Write the at most top largest changes from base to theta as a block at out[start:].

        Among equals the lower index goes first; what did not change is not sent.

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
        _subtract(theta, base, parameters)
        count = self._choose(theta, top)
        head = start + 3 + len(self._tensors)
        end = _split(job, _ELIAS_FANO, count, parameters, head)
        if end - head - count >= parameters + 7 >> 3:
            end = _split(job, _BITMAP, count, parameters, head)
        out[start] = job[_CODING]
        out[start + 1] = count & 0xFF
        out[start + 2] = count >> 8
        _clear(out, head, job[_VALUES_AT])
        job[_ENTRY] = 0
        job[_START] = 0
        at = start + 3
        for size in self._tensors:
            exponent = 0
            largest = _largest(theta, job[_START], size)
            if largest > job[_THRESHOLD] or (largest == job[_THRESHOLD] and job[_EQUAL]):
                while largest + (1 << exponent >> 1) >> exponent > _VALUE_MAX:
                    exponent += 1
            out[at] = exponent
            at += 1
            job[_SIZE] = size
            job[_EXPONENT] = exponent
            _pack(theta, out, job)
            job[_START] += size
        _add(theta, base, parameters)
        return end

    def _choose(self, delta, top):
        """Find the magnitude down to which entries are sent, by a radix select.

        Returns:
            How many entries those are.
        """
        job = self._job
        _histogram(delta, self._parameters, self._bins, -1)
        high = _find(self._bins, top, job)
        wanted = job[_EQUAL]
        _histogram(delta, self._parameters, self._bins, high)
        threshold = high << 8 | _find(self._bins, wanted, job)
        job[_THRESHOLD] = threshold
        if threshold == 0:
            top -= job[_EQUAL]
            job[_EQUAL] = 0
        return top

    def apply(self, block, base):
        """Add a block's changes to int16 parameters.

        Raises:
            MessageError: the bytes are not a block for these parameters; base is as it was.
        """
        job = self._job
        tensors = len(self._tensors)
        head = 3 + tensors
        if len(block) < head or block[0] > _BITMAP:
            raise MessageError("sparse block: no header")
        count = block[1] | block[2] << 8
        end = _split(job, block[0], count, self._parameters, head)
        for i in range(tensors):
            if block[3 + i] > _MAX_EXPONENT:
                raise MessageError("sparse block: a scale is out of range")
        if count > self._parameters or len(block) != end:
            raise MessageError("sparse block: wrong length")
        spare = count * job[_LOW] & 7
        if spare and block[job[_HIGH_AT] - 1] >> spare:
            raise MessageError("sparse block: a spare bit is set")
        job[_ENTRY] = count
        job[_SIZE] = self._parameters
        if not _unpack(base, block, job, self._tensors, 0):
            raise MessageError("sparse block: indices out of order")
        _unpack(base, block, job, self._tensors, 1)
