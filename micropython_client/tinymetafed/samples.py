"""What a sensor gives, turned into what the network takes."""

from array import array

from tinymetafed import kernels
from tinymetafed.errors import ModelError
from tinymetafed.layers import words

_NUMBERS = (int, float)


class Label:
    """Takes in a class."""

    def __init__(self, classes):
        self._classes = classes
        self.words = words(1)

    def read(self, label):
        if not isinstance(label, int):
            raise ModelError("y must be a class, an integer from 0 to %d" % (self._classes - 1))
        if not 0 <= label < self._classes:
            raise ModelError("y is class %d; the last is %d" % (label, self._classes - 1))
        self.words[0] = label


class Values:
    """Turns the values of x, or of y, into activations.

    Args:
        name: what messages call it.
        words: where the activations go.
        count: how many values it takes.
        floats: a scratch array("f") for as many values.
    """

    def __init__(self, name, words, count, floats):
        self._name = name
        self.words = words
        self._count = count
        self._scratch = floats
        self._known = None  # the array("f") that was read last

    def read(self, values):
        """Take in values; allocates nothing for existing numbers, or for an array("f") again."""
        floats = self._scratch
        if self._count == 1 and isinstance(values, _NUMBERS):
            floats[0] = values
        elif len(values) != self._count:
            raise ModelError(
                "%s has %d values; the model takes %d" % (self._name, len(values), self._count)
            )
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

    def _is_floats(self, values):
        """Whether this is an array("f"): each float taken out of it would be a new object."""
        return (
            isinstance(values, array)
            and isinstance(values[0], float)
            and len(bytes(values)) == 4 * self._count
        )
