"""A network that learns one sample at a time, partly its own and partly the fleet's.

Parameters are words in two flat arrays, phi (local) and theta (global); a layer is a view into one
of them, a row of weights an output, the bias last. All memory is taken in the constructor. A phase
of training is a program: a flat list of kernel calls, each with four arrays.
"""

import gc
from array import array

import micropython
from micropython import const

from tinymetafed import kernels, losses
from tinymetafed.errors import ModelError
from tinymetafed.layers import Layer, Shape, words
from tinymetafed.samples import Label, Values

_LOCAL = const(1)
_CROSS_ENTROPY = const(1)
_ONE = const(512)
_SEED_STEP = const(0x2545F491)
_STATE = const(16)  # of a layer's table
_LOSS = const(1)  # of the tally
_TOLD = const(2)


def _set_word(words, i, value):
    """Store an unsigned 32-bit number in an array of signed words."""
    value &= 0xFFFFFFFF
    words[i] = value if value < 0x80000000 else value - 0x100000000


def bytes_needed(plan):
    """Bytes of heap that a Network for this plan takes, but for the objects themselves."""
    shapes = [Shape(entry) for entry in plan.layers]
    # A sample takes room twice: as it came, and as activations.
    return sum(shape.bytes_needed for shape in shapes) + 8 * shapes[0].inputs


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
        self._seed = plan.seed
        self._draws = words(1)
        self._layers = []
        below = None
        for entry in plan.layers:
            below = Layer(entry, plan, below)
            self._layers.append(below)
        last = self._layers[-1]
        self.outputs = last.outputs
        self.phi = self._share(_LOCAL)
        self.theta = self._share(0)
        # The fleet's weights as published: int16, little endian.
        self.base = bytearray(2 * len(self.theta))
        self.tensors = array(
            "i", [layer.size for layer in self._layers if layer.size and not layer.local]
        )
        inputs = self._layers[0].inputs
        self._floats = array("f", bytes(4 * max(inputs, self.outputs, 2)))
        self._sample = words(inputs + self.outputs)
        sample = memoryview(self._sample)
        self._x = Values("x", sample[:inputs], self._floats)
        self._y: "Values | Label" = Values("y", sample[inputs:], self._floats)
        derive = losses.squared_error
        if plan.loss == _CROSS_ENTROPY:
            self._y = Label(self.outputs)
            derive = losses.cross_entropy
        # As long as x and y are one number each, they are read in one go.
        self._are_numbers = inputs == self.outputs == 1 and plan.loss != _CROSS_ENTROPY
        # Outputs, sum of losses, classes told right, largest error.
        self.tally = array("i", (self.outputs, 0, 0, plan.clip))
        self._forward = []
        a = self._x.words
        for layer in self._layers:
            self._forward.append(layer.forward(a))
            a = layer.above
        learn = (derive, last.above, self._y.words, last.error, self.tally)
        self._programs = [self._forward + [learn] + self._backward(side) for side in (0, _LOCAL)]

    def _share(self, local):
        """One array for all local or all global parameters, and each layer's view into it."""
        mine = [layer for layer in self._layers if layer.size and layer.local == local]
        flat = words(sum(layer.size for layer in mine))
        whole = memoryview(flat)
        start = 0
        for layer in mine:
            layer.weights = whole[start : start + layer.size]
            start += layer.size
        return flat

    def _backward(self, local):
        """The calls that carry errors down to the lowest layer that learns, and let it learn."""
        first = 0
        while not (self._layers[first].size and self._layers[first].local == local):
            first += 1
        calls = []
        for i in range(len(self._layers) - 1, first - 1, -1):
            layer = self._layers[i]
            if i > first:
                calls += layer.back()
            if layer.size and layer.local == local:
                calls.append(layer.update(self._layers[i - 1].above if i else self._x.words))
        return calls

    def begin(self, seed):
        """Start a round: theta from base, phi from its seeded start, rounding from seed."""
        kernels.load(self.theta, self.base, len(self.theta))
        _set_word(self._draws, 0, self._seed)
        for layer in self._layers:
            seed += _SEED_STEP
            _set_word(layer.table, _STATE, seed)
            if layer.size and layer.local:
                kernels.draw(layer.weights, layer.size, layer.limit, self._draws)

    def begin_phase(self):
        """Start the sums of a phase anew."""
        self.tally[_LOSS] = 0
        self.tally[_TOLD] = 0

    @property
    def loss(self):
        """The losses of this phase's samples, each before it was learned from, summed."""
        return self.tally[_LOSS]

    @property
    def told(self):
        """Samples of this phase whose class led the outputs before they were learned from."""
        return self.tally[_TOLD]

    @micropython.native
    def read(self, x, y):
        """Take in a sample: a number where there is one value, else a sequence of numbers.

        x may also be samples.Activations. A class is an integer from 0 up.

        Raises:
            ModelError: it has the wrong length or a value that is not finite, or there is no such
                class.
            TypeError: it is not numbers.
        """
        if self._are_numbers:
            floats = self._floats
            try:
                floats[0] = x
                floats[1] = y
            except TypeError:
                self._are_numbers = False
            else:
                if kernels.read_floats(floats, self._sample, 2) >= 0:
                    raise ModelError("x or y is not a finite number")
                return
        self._x.read(x)
        self._y.read(y)

    @micropython.native
    def step(self, local):
        """Learn from the sample at hand on one side, local (1) or global (0).

        Its loss before the step is added to the phase's.
        """
        for function, a, b, c, d in self._programs[local]:
            function(a, b, c, d)

    def predict(self, x):
        """The outputs for x, as floats.

        Raises:
            ModelError, TypeError: as read does.
        """
        self._x.read(x)
        for function, a, b, c, d in self._forward:
            function(a, b, c, d)
        above = self._layers[-1].above
        return [above[i] / _ONE for i in range(self.outputs)]
