"""What a sensor gives, turned into what the network takes: activations, words of 1/512."""

from array import array

import micropython
from micropython import const

from tinymetafed import kernels
from tinymetafed.errors import ModelError
from tinymetafed.layers import words

_NUMBERS = (int, float)
_ACTIVATION_BITS = const(9)
_MANTISSA_BITS = const(14)
_SHIFT_MOST = const(30)


class Activations:
    """A sample that is in the network's format already; what comes next overwrites it."""

    def __init__(self, count):
        self.words = words(count)


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
        kernels.read_counts(counts, self.words, len(self.words), self._table)
        return self


class Label:
    """Takes in a class, an integer from 0 up."""

    def __init__(self, classes):
        self._classes = classes
        self.words = words(1)

    def read(self, label):
        """Take it in.

        Raises:
            ModelError: there is no such class.
        """
        if not isinstance(label, int):
            raise ModelError("y must be a class, an integer from 0 to %d" % (self._classes - 1))
        if not 0 <= label < self._classes:
            raise ModelError("y is class %d; the last is %d" % (label, self._classes - 1))
        self.words[0] = label


class Values:
    """Takes in the values of x, or of y.

    Args:
        name: what messages call it.
        words: where the activations go.
        floats: a scratch array("f") for as many values.
    """

    def __init__(self, name, words, floats):
        self._name = name
        self.words = words
        self._count = len(words)
        self._scratch = floats
        self._known = None  # the array("f") that was read last

    @micropython.native
    def read(self, values):
        """Take in values; allocates nothing for existing numbers, or for an array("f") again.

        Raises:
            ModelError: the wrong number of values, or one that is not finite.
            TypeError: something else than numbers.
        """
        if isinstance(values, Activations):
            if len(values.words) != self._count:
                self._refuse(len(values.words))
            kernels.copy(values.words, self.words, self._count)
            return
        floats = self._scratch
        if self._count == 1 and isinstance(values, _NUMBERS):
            floats[0] = values
        elif len(values) != self._count:
            self._refuse(len(values))
        elif values is self._known or self._is_floats(values):
            self._known = floats = values
        else:
            i = 0
            while i < self._count:
                floats[i] = values[i]
                i += 1
        bad = kernels.read_floats(floats, self.words, self._count)
        if bad >= 0:
            raise ModelError("%s[%d] is not a finite number" % (self._name, bad))

    def _refuse(self, count):
        raise ModelError("%s has %d values; the model takes %d" % (self._name, count, self._count))

    def _is_floats(self, values):
        """Whether this is an array("f"): each float taken out of it would be a new object."""
        return (
            isinstance(values, array)
            and isinstance(values[0], float)
            and len(bytes(values)) == 4 * self._count
        )
