"""A dense network that learns one sample at a time, partly its own and partly the fleet's.

Parameters are words in two flat arrays, phi (local) and theta (global); a layer is a view into one
of them, a row of inputs + 1 weights an output, the bias last. All memory is taken in the
constructor.
"""

import gc
from array import array

from micropython import const

from tinymetafed import kernels
from tinymetafed.errors import ModelError

_LOCAL = const(1)
_RELU = const(2)
_ONE = const(512)
_TABLE = const(6)
_NUMBERS = (int, float)


def _words(count):
    return array("i", bytes(4 * count))


def _ceil_log2(n):
    bits = 0
    while 1 << bits < n:
        bits += 1
    return bits


class _Layer:
    """A layer: its table for the kernels, its weights, its errors, the activations around it."""

    def __init__(self, inputs, outputs, flags, limit, rate, below):
        self.local = flags & _LOCAL
        self.relu = flags & _RELU
        self.limit = limit
        self.size = outputs * (inputs + 1)
        self.table = array(
            "i",
            (
                inputs,
                outputs,
                _ceil_log2((inputs + 8) >> 3),
                _ceil_log2(outputs),
                self.relu,
                rate,
            ),
        )
        self.below = below
        self.above = _words(outputs + 1)
        self.above[outputs] = _ONE
        self.error = _words(outputs)
        self.weights = None


class _Intake:
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


def bytes_needed(plan):
    """Bytes of heap that a Network for this plan takes, but for the objects themselves."""
    need = 0
    for inputs, outputs, flags, _ in plan.layers:
        size = outputs * (inputs + 1)
        need += 4 * size if flags & _LOCAL else 6 * size
        need += 4 * (inputs + 2 * outputs + 2) + 4 * _TABLE
    return need


class Network:
    """The network of a plan (messages.Plan).

    Raises:
        ModelError: it does not fit into the free heap; with the numbers.
    """

    def __init__(self, plan):
        gc.collect()
        need = bytes_needed(plan)
        free = gc.mem_free()
        if need > free:
            raise ModelError("the model needs %d bytes, but only %d are free" % (need, free))
        self.inputs = plan.layers[0][0]
        self.outputs = plan.layers[-1][1]
        self._seed = plan.seed
        floats = array("f", bytes(4 * max(self.inputs, self.outputs)))
        x = _words(self.inputs + 1)
        x[self.inputs] = _ONE
        self._x = _Intake("x", x, self.inputs, floats)
        self._y = _Intake("y", _words(self.outputs), self.outputs, floats)
        self._draws = _words(1)
        self._layers = []
        below = x
        for inputs, outputs, flags, limit in plan.layers:
            rate = plan.rate_local if flags & _LOCAL else plan.rate_global
            layer = _Layer(inputs, outputs, flags, limit, rate, below)
            self._layers.append(layer)
            below = layer.above
        self.phi = self._share(_LOCAL)
        self.theta = self._share(0)
        # The fleet's weights as published: int16, little endian.
        self.base = bytearray(2 * len(self.theta))
        self.tensors = array("i", [layer.size for layer in self._layers if not layer.local])
        self.loss = _words(1)

    def _share(self, local):
        """One array for all local or all global parameters, and each layer's view into it."""
        mine = [layer for layer in self._layers if layer.local == local]
        flat = _words(sum(layer.size for layer in mine))
        whole = memoryview(flat)
        start = 0
        for layer in mine:
            layer.weights = whole[start : start + layer.size]
            start += layer.size
        return flat

    def begin(self, seed):
        """Start a round: theta from base, phi from its seeded start, rounding from seed."""
        kernels.load(self.theta, self.base, len(self.theta))
        self._seed_draws(self._seed)
        for layer in self._layers:
            if layer.local:
                kernels.draw(layer.weights, layer.size, layer.limit, self._draws)
        self._seed_draws(seed)

    def _seed_draws(self, seed):
        self._draws[0] = seed if seed < 0x80000000 else seed - 0x100000000

    def read(self, x, y=None):
        """Take in a sample: a number where there is one value, else a sequence of numbers.

        Raises:
            ModelError: it has the wrong length or a value that is not finite.
            TypeError: it is not numbers.
        """
        self._x.read(x)
        if y is not None:
            self._y.read(y)

    def step(self, local):
        """Learn from the sample at hand on one side, local (1) or global (0).

        Its loss before the step is added to loss[0].
        """
        self._forward()
        layers = self._layers
        i = len(layers) - 1
        top = layers[i]
        kernels.output_error(top.above, self._y.words, top.error, self.outputs, self.loss)
        first = 0
        while layers[first].local != local:
            first += 1
        while i >= first:
            layer = layers[i]
            if i > first:
                below = layers[i - 1]
                kernels.carry_back(layer.weights, layer.error, below.error, layer.table)
                kernels.settle(below.error, layer.below, layer.table, below.relu)
            if layer.local == local:
                kernels.update(layer.weights, layer.below, layer.error, layer.table, self._draws)
            i -= 1

    def _forward(self):
        for layer in self._layers:
            kernels.forward(layer.weights, layer.below, layer.above, layer.table)

    def predict(self):
        """The outputs for the sample at hand, as floats."""
        self._forward()
        above = self._layers[-1].above
        return [above[i] / _ONE for i in range(self.outputs)]
