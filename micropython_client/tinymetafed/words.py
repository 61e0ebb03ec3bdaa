"""Arrays of 32-bit words, in which a board keeps all its numbers: made, cleared, drawn, converted.

In viper; see kernels.py for what its functions rely on, and for _WIDE.
"""

from array import array

import micropython
from micropython import const

_ACTIVATION_MAX = const(8191)


@micropython.viper
def clear(out: ptr8, start: int, end: int):
    while start < end:
        out[start] = 0
        start += 1


def words(count):
    """An array of so many words of 32 bits, all zero.

    Made from as many bytes, it would take room for both; grown, it would move about.
    """
    made = array("i", range(count))
    clear(made, 0, 4 * count)
    return made


@micropython.viper
def draw(w: ptr32, count: int, limit: int, state: ptr32):
    """Fill w with count weights, evenly from [-limit, limit); state is the generator's."""
    s = state[0]
    while count:
        s = s * 1664525 + 1013904223
        w[0] = ((((s >> 16) & 0xFFFF) - 32768) * limit) >> 15
        w = ptr32(uint(w) + 4)
        count -= 1
    state[0] = s


@micropython.viper
def load(theta: ptr32, base: ptr16, count: int):
    """Copy int16 weights into words."""
    while count:
        theta[0] = (base[0] ^ 0x8000) - 0x8000
        theta = ptr32(uint(theta) + 4)
        base = ptr16(uint(base) + 2)
        count -= 1


@micropython.viper
def read_floats(bits: ptr32, words: ptr32, start: int, count: int) -> int:
    """Convert float32 values, given by their bits, to activations from word start on.

    Returns:
        The index of a value that is not finite, or -1 where there is none.
    """
    words = ptr32(uint(words) + (start << 2))
    i = 0
    while i < count:
        b = bits[i]
        shift = 141 - ((b >> 23) & 0xFF)
        if shift < 0 - 113:
            return i
        v = 0
        if shift < 1:
            v = _ACTIVATION_MAX
        elif shift < 26:
            v = ((b & 0x7FFFFF) | 0x800000) + (1 << (shift - 1)) >> shift
            if v > _ACTIVATION_MAX:
                v = _ACTIVATION_MAX
        if (b >> 31) & 1:
            v = 0 - v
        words[i] = v
        i += 1
    return -1
