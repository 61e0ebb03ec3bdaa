"""A network that learns one sample at a time, partly its own and partly the fleet's.

Parameters are words in two flat arrays, phi (local) and theta (global); a layer is a view into one
of them, a row of weights an output, the bias last. Activations and errors share a third. All memory
is taken in the constructor, but for the words of a sample that is not in the network's format. A
phase of training is a program: a flat list of kernel calls, each with four arrays.
"""

import gc
from array import array

import micropython
from micropython import const

from tinymetafed.errors import ModelError
from tinymetafed.inputs import Activations, Label, Values
from tinymetafed.layers import Layer, Shape, places
from tinymetafed.words import draw, load, read_floats, words

_LOCAL = const(1)
_CROSS_ENTROPY = const(1)
_ONE = const(512)
_SEED_STEP = const(0x2545F491)
_STATE = const(16)  # of a layer's table
_LOSS = const(1)  # of the tally
_CORRECT = const(2)


def _set_word(words, i, value):
    """Store an unsigned 32-bit number in an array of signed words."""
    value &= 0xFFFFFFFF
    words[i] = value if value < 0x80000000 else value - 0x100000000


def bytes_needed(plan):
    """Bytes of heap that a Network for this plan takes, but for a sample and the objects."""
    shapes = [Shape(entry) for entry in plan.layers]
    return sum([shape.bytes_needed for shape in shapes]) + 4 * places(shapes)[1]


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
        self._lay_out()
        self.theta = self._share(0)
        self.phi = self._share(_LOCAL)
        # The fleet's weights as published: int16, little endian.
        self.base = bytearray(2 * len(self.theta))
        self.tensors = array(
            "i", [layer.size for layer in self._layers if layer.size and not layer.local]
        )
        self._x = Values("x", self._layers[0].inputs)
        self._are_numbers = False
        # Of two losses a board needs one.
        if plan.loss == _CROSS_ENTROPY:
            from tinymetafed.entropy import derive

            self._y: "Values | Label" = Label(self.outputs)
        else:
            from tinymetafed.squares import derive

            self._y = Values("y", self.outputs)
            if self._layers[0].inputs == self.outputs == 1:
                # As long as x and y are one number each, they are read in one go.
                self._are_numbers = True
                self._floats = array("f", (0, 0))
                self._pair = words(2)
                self._x.take_own(memoryview(self._pair)[:1])
                self._y.take_own(memoryview(self._pair)[1:])
        # Outputs, sum of losses, samples whose class was correct, largest error.
        self.tally = array("i", (self.outputs, 0, 0, plan.clip))
        self._forward = [self._x.feeds(self._layers[0].forward(self._x.words))]
        for layer in self._layers[1:]:
            self._forward.append(layer.forward(layer.below.above))
        learn = self._y.feeds([derive, last.above, self._y.words, last.error, self.tally])
        self._programs = [self._forward + [learn] + self._backward(side) for side in (0, _LOCAL)]

    def _lay_out(self):
        """Give each layer its activations and errors, views into one array."""
        found, count = places(self._layers)
        whole = memoryview(words(count))
        for i, layer in enumerate(self._layers):
            above, error = found[i]
            layer.above = whole[above : above + layer.outputs]
            layer.error = whole[error : error + layer.outputs]
            layer.weights = layer.above  # of a layer that has none; its kernels do not look

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
                if i:
                    calls.append(layer.update(layer.below.above))
                else:
                    calls.append(self._x.feeds(layer.update(self._x.words)))
        return calls

    def begin(self, seed):
        """Start a round: theta from base, phi from its seeded start, rounding from seed."""
        load(self.theta, self.base, len(self.theta))
        _set_word(self._draws, 0, self._seed)
        for layer in self._layers:
            seed += _SEED_STEP
            _set_word(layer.table, _STATE, seed)
            if layer.size and layer.local:
                draw(layer.weights, layer.size, layer.limit, self._draws)

    def begin_phase(self):
        """Start the sums of a phase anew."""
        self.tally[_LOSS] = 0
        self.tally[_CORRECT] = 0

    @property
    def loss(self):
        """The losses of this phase's samples, each before it was learned from, summed."""
        return self.tally[_LOSS]

    @property
    def correct(self):
        """Samples of this phase whose class led the outputs before they were learned from."""
        return self.tally[_CORRECT]

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
                if read_floats(floats, self._pair, 0, 2) >= 0:
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
        if isinstance(x, Activations):  # The kernels are pointed away from the pair.
            self._are_numbers = False
        self._x.read(x)
        for function, a, b, c, d in self._forward:
            function(a, b, c, d)
        above = self._forward[-1][3]
        return [above[i] / _ONE for i in range(self.outputs)]
