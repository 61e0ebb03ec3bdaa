"""What a round changed on this board, and which of it is largest; for _WIDE see kernels.py."""

import micropython
from micropython import const

_WIDE = const(0)

_LARGEST = const(65535)  # change, from one end of the weight range to the other
_THRESHOLD = const(0)  # sparse.py knows the same slots
_EQUAL = const(1)


@micropython.viper
def subtract(theta: ptr32, base: ptr16, count: int):
    while count:
        theta[0] -= (base[0] ^ 0x8000) - 0x8000
        theta = ptr32(uint(theta) + 4)
        base = ptr16(uint(base) + 2)
        count -= 1


@micropython.viper
def add(theta: ptr32, base: ptr16, count: int):
    while count:
        theta[0] += (base[0] ^ 0x8000) - 0x8000
        theta = ptr32(uint(theta) + 4)
        base = ptr16(uint(base) + 2)
        count -= 1


@micropython.viper
def correct(delta: ptr32, residual: ptr16, count: int):
    """Add what earlier updates left; where the sum saturates, the residual gives way."""
    while count:
        r = (residual[0] ^ 0x8000) - 0x8000
        d = delta[0]
        if _WIDE:
            d = (d << 32) >> 32
        d += r
        if d > _LARGEST:
            r -= d - _LARGEST
            d = _LARGEST
        elif d < 0 - _LARGEST:
            r -= d + _LARGEST
            d = 0 - _LARGEST
        delta[0] = d
        residual[0] = r
        delta = ptr32(uint(delta) + 4)
        residual = ptr16(uint(residual) + 2)
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


def choose(delta, count, top, bins, job):
    """Find the magnitude down to which changes are among the largest, by a radix select.

    Args:
        delta: changes in words, below 2**16 in magnitude.
        count: how many.
        top: how many are wanted, at most count.
        bins: scratch of 256 words.
        job: its first two words become the magnitude above which changes are chosen, and how many
            that equal it.

    Returns:
        How many those are; what is zero is not among them.
    """
    _histogram(delta, count, bins, -1)
    high = _find(bins, top, job)
    wanted = job[_EQUAL]
    _histogram(delta, count, bins, high)
    threshold = high << 8 | _find(bins, wanted, job)
    job[_THRESHOLD] = threshold
    if threshold == 0:
        top -= job[_EQUAL]
        job[_EQUAL] = 0
    return top
