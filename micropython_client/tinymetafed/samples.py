"""Samples that need no float for each value: in the network's format, or integers of a converter.

Activations are words of 1/512.
"""

from array import array

import micropython
from micropython import const

from tinymetafed.errors import ModelError
from tinymetafed.inputs import Activations

__all__ = ["Activations", "Counts"]

_WIDE = const(0)  # see kernels.py
_ACTIVATION_BITS = const(9)
_ACTIVATION_MAX = const(8191)
_MANTISSA_BITS = const(14)
_SHIFT_MOST = const(30)


@micropython.viper
def _convert(counts: ptr8, words: ptr32, count: int, scale: ptr32):
    """Convert 16-bit integers, at any address, to activations, rounded and saturated.

    scale: mantissa (14 bits), shift (0 to 30), offset, 1 where the integers are signed.
    """
    mantissa = scale[0]
    shift = scale[1]
    half = 1 << shift >> 1
    while count:
        v = counts[0] | counts[1] << 8
        if scale[3]:
            v = (v ^ 0x8000) - 0x8000
        v -= scale[2]
        if _WIDE:
            v = (v << 32) >> 32
        if v > 65535:
            v = 65535
        elif v < 0 - 65535:
            v = 0 - 65535
        v = (v * mantissa + half) >> shift
        if v > _ACTIVATION_MAX:
            v = _ACTIVATION_MAX
        elif v < 0 - _ACTIVATION_MAX:
            v = 0 - _ACTIVATION_MAX
        words[0] = v
        words = ptr32(uint(words) + 4)
        counts = ptr8(uint(counts) + 2)
        count -= 1


class Counts(Activations):
    """Integers of a converter or a microphone as activations: (count - offset) * scale.

    Args:
        count: how many make a sample.
        scale: what one count is worth, above 0 and at most 16.
        offset: the count that stands for zero; a count counts up to 65535 away from it.
        is_signed: whether arrays of 16-bit counts hold negative ones, array("h") not array("H").

    Raises:
        ModelError: the scale or the offset is out of its range.
    """

    def __init__(self, count, scale, offset=0, is_signed=True):
        super().__init__(count)
        self._known = None  # the buffer that was read last, and its length
        self._length = 0
        if not -65536 <= offset <= 65536:
            raise ModelError("offset must be from -65536 to 65536, not %s" % offset)
        if not 0 < scale <= 16:
            raise ModelError("scale must be above 0 and at most 16, not %s" % scale)
        # An activation is count * mantissa / 2**shift. With a mantissa of 14 bits and a count of 17
        # the product fits; so does the half that rounds it.
        shift = 0
        while shift < _SHIFT_MOST and (
            scale * (1 << shift + 1 + _ACTIVATION_BITS) < 1 << _MANTISSA_BITS
        ):
            shift += 1
        mantissa = int(scale * (1 << shift + _ACTIVATION_BITS) + 0.5)
        self._table = array("i", (mantissa, shift, offset, 1 if is_signed else 0))

    def read(self, counts):
        """These counts as a sample; itself, to be yielded.

        Allocates nothing for the buffer that was read last.

        Args:
            counts: an array of 16-bit integers, or another buffer of them such as a bytearray.

        Raises:
            ModelError: there are not as many as a sample has.
            TypeError: it is no buffer.
        """
        if len(counts) != self._length or counts is not self._known:
            # A copy, so only of what it does not know; of a view, for else it may be no buffer.
            size = len(bytes(memoryview(counts)))
            if size != 2 * len(self.words):
                raise ModelError(
                    "%d bytes; a sample is %d counts of 16 bits" % (size, len(self.words))
                )
            self._known = counts
            self._length = len(counts)
        _convert(counts, self.words, len(self.words), self._table)
        return self
