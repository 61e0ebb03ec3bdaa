"""A layer in its place; the host's ``protocol/spec/layers.py`` says what the numbers mean."""

from array import array

from micropython import const

try:  # On a Cortex-M the kernels are there in assembler, with the same results.
    from tinymetafed import thumb as fast
except ImportError:
    from tinymetafed import kernels as fast  # type: ignore[no-redef]

_SUMS = const(0)
_POOL = const(2)
_LOCAL = const(1)
_RELU = const(2)
_CROSS_ENTROPY = const(1)
_SLOTS = const(32)
_WEIGHT_BITS = const(12)
_STRIDE_MOST = const(255)
_LIMIT_MOST = const(32768)


def ceil_log2(n):
    bits = 0
    while 1 << bits < n:
        bits += 1
    return bits


class Shape:
    """The sizes of a layer of a plan."""

    def __init__(self, entry):
        self.kind, self.height, self.width, self.channels = entry[:4]
        self.filters, self.kernel, self.stride, flags, self.limit = entry[4:]
        self.local = flags & _LOCAL
        self.relu = flags & _RELU
        self.rows = (self.height - self.kernel) // self.stride + 1
        self.columns = (self.width - self.kernel) // self.stride + 1
        self.inputs = self.height * self.width * self.channels
        self.outputs = self.rows * self.columns * self.filters
        self.segment = self.kernel * (self.channels if self.kind == _SUMS else 1)
        self.row_size = 0 if self.kind == _POOL else self.kernel * self.segment + 1
        self.size = self.filters * self.row_size

    @property
    def dot_shift(self):
        """Bits by which a group's sum is shifted; of a pool, by which a window's is."""
        if self.kind == _POOL:
            return 2 * ceil_log2(self.kernel)
        return ceil_log2(self.kernel * (self.segment + 7 >> 3) + 1)

    @property
    def error_shift(self):
        """Bits by which a product is shifted before it joins an error below."""
        overlap = -(-self.kernel // self.stride)
        return ceil_log2((self.filters if self.kind == _SUMS else 1) * overlap * overlap)

    @property
    def bytes_needed(self):
        """Bytes of heap for weights and table."""
        weights = self.size * (4 if self.local else 6)  # words; and int16 as published
        return weights + 4 * _SLOTS

    def fits_on(self, outputs):
        """Whether the kernels can run it on top of so many values: they look at nothing else."""
        return (
            self.kind <= _POOL
            and self.inputs == outputs
            and self.inputs > 0
            and self.filters > 0
            and (self.kind == _SUMS or self.filters == self.channels)
            and (self.kind != _POOL or (self.kernel in (2, 4) and self.stride == self.kernel))
            and self.limit <= _LIMIT_MOST
            and self.dot_shift <= _WEIGHT_BITS
            and self.error_shift < _WEIGHT_BITS
        )


def windows_fit(entry):
    """Whether a layer of a plan has windows inside its input, so that there is a Shape of it."""
    height, width, kernel, stride = entry[1], entry[2], entry[5], entry[6]
    return 0 < kernel <= min(height, width) and 0 < stride <= _STRIDE_MOST


def _kernels(kind):
    """The module for such layers; it takes heap where it is needed."""
    if kind == _SUMS:
        return fast
    if kind == _POOL:
        from tinymetafed import pool

        return pool
    from tinymetafed import depthwise

    return depthwise


def places(shapes):
    """Where the activations and the errors of layers lie among the words that all of them share.

    A layer's activations are done with once its errors are settled and the layer above has learned.
    So errors may lie where activations of layers above lay, but neither on those of their own layer
    or below, nor on the errors of the layer above, which they are made from.

    Returns:
        A pair for each layer, the first word of its activations and of its errors; and how many
        words there are.
    """
    found = []
    above = start = end = count = 0
    for shape in shapes:
        error = above + shape.outputs
        if error < end and error + shape.outputs > start:
            error = end
        found.append((above, error))
        above += shape.outputs
        start, end = error, error + shape.outputs
        count = max(count, end)
    return found, count


class Layer(Shape):
    """A layer with its table; the network gives it weights, activations and errors.

    Args:
        entry: of a plan's layers.
        plan: the plan.
        below: the layer below, or None.
    """

    def __init__(self, entry, plan, below):
        super().__init__(entry)
        self.below = below
        self.weights = self.above = self.error = None
        self._kernels = _kernels(self.kind)
        dot_shift = self.dot_shift
        line = 4 * self.width * self.channels
        self.table = array(
            "i",
            (
                self.rows,
                self.columns,
                self.filters,
                self.kernel,
                self.segment if self.kind == _SUMS else self.channels,
                line,
                4 * self.stride * self.channels,
                self.stride * line,
                dot_shift,
                _WEIGHT_BITS - dot_shift,
                0 if self.relu else -8191,
                # The share of a pool's error is rounded already.
                _WEIGHT_BITS if self.kind == _POOL else self.error_shift,
                1 if below and below.relu else 0,
                plan.clip,
                plan.rate_local if self.local else plan.rate_global,
                13 if plan.loss == _CROSS_ENTROPY else 10,
                0,
                self.inputs,
                4 * self.row_size,
            )
            + (0,) * 13,
        )

    def forward(self, a):
        """The call that computes its activations from those below it, a."""
        return [self._kernels.forward, self.weights, a, self.above, self.table]

    def back(self):
        """The calls that carry its errors to the layer below."""
        below = self.below
        return [
            (self._kernels.carry_back, self.weights, self.error, below.error, self.table),
            (fast.settle, below.above, below.above, below.error, self.table),
        ]

    def update(self, a):
        """The call that lets its weights learn from the activations below it, a."""
        return [self._kernels.update, self.weights, a, self.error, self.table]
