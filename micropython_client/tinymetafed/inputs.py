"""What a source of samples gives, taken in where the network's kernels find it."""

from array import array

import micropython
from micropython import const

from tinymetafed.errors import ModelError
from tinymetafed.words import read_floats, words

_NUMBERS = (int, float)
_PIECE = const(16)  # numbers that become activations together


class Activations:
    """A sample that is in the network's format already; what comes next overwrites it."""

    def __init__(self, count):
        self.words = words(count)


class Label:
    """Takes in a class, an integer from 0 up."""

    def __init__(self, classes):
        self._classes = classes
        self.words = words(1)

    def feeds(self, call):
        """As that of Values."""
        return call

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

    Numbers become activations in words of its own, which are taken when the first come. Activations
    stay where they are, and the kernels are pointed there.

    Args:
        name: what messages call it.
        count: of the values.
    """

    def __init__(self, name, count):
        self.words = None  # where the values lie
        self._name = name
        self._count = count
        self._own = None
        self._piece = array("f", bytes(4 * min(count, _PIECE)))
        self._known = None  # the array("f") that was read last
        self._calls = []

    def feeds(self, call):
        """Have the values be the second array of this kernel call, a list, from now on."""
        self._calls.append(call)
        return call

    def take_own(self, own=None):
        """Take words of its own, or these, and have the kernels find the values there."""
        try:
            self._own = self._own or own or words(self._count)
        except MemoryError:
            raise ModelError("no heap for %s: %d bytes" % (self._name, 4 * self._count))
        self._point(self._own)

    def _point(self, words):
        self.words = words
        for call in self._calls:
            call[2] = words

    @micropython.native
    def read(self, values):
        """Take in values; allocates nothing for existing numbers, or for an array("f") again.

        Raises:
            ModelError: the wrong number of values, or one that is not finite, or there is no heap
                for the first.
            TypeError: something else than numbers.
        """
        if isinstance(values, Activations):
            if values.words is not self.words:
                if len(values.words) != self._count:
                    self._refuse(len(values.words))
                self._point(values.words)
            return
        if self._own is None:
            self.take_own()
        count = self._count
        if count == 1 and isinstance(values, _NUMBERS):
            self._piece[0] = values
            bad = read_floats(self._piece, self.words, 0, 1)
        elif len(values) != count:
            self._refuse(len(values))
        elif values is self._known or self._is_floats(values):
            self._known = values
            bad = read_floats(values, self.words, 0, count)
        else:
            bad = self._read_pieces(values)
        if bad >= 0:
            raise ModelError("%s[%d] is not a finite number" % (self._name, bad))

    def _read_pieces(self, values):
        """As read_floats, from any sequence of numbers."""
        piece = self._piece
        start = 0
        while start < self._count:
            size = min(self._count - start, _PIECE)
            i = 0
            while i < size:
                piece[i] = values[start + i]
                i += 1
            bad = read_floats(piece, self.words, start, size)
            if bad >= 0:
                return start + bad
            start += size
        return -1

    def _refuse(self, count):
        raise ModelError("%s has %d values; the model takes %d" % (self._name, count, self._count))

    def _is_floats(self, values):
        """Whether this is an array("f"): each float taken out of it would be a new object."""
        return (
            isinstance(values, array)
            and isinstance(values[0], float)
            and len(bytes(memoryview(values)[:1])) == 4
        )
