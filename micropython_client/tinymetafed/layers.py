"""A layer in its place; the host's ``protocol/layers.py`` says what the numbers mean."""

from array import array

from micropython import const

from tinymetafed import channelwise

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
_PIECE = const(64)
_WEIGHT_BITS = const(12)
_STRIDE_MOST = const(255)
_LIMIT_MOST = const(32768)


def words(count):
    """An array of so many words of 32 bits, all zero.

    It grows in its place: made at once from as many bytes, it would take room for both.
    """
    made = array("i")
    zeros = bytes(4 * _PIECE)
    while count >= _PIECE:
        made.extend(zeros)
        count -= _PIECE
    made.extend(bytes(4 * count))
    return made


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
        """Bytes of heap for weights, activations, errors and table."""
        weights = self.size * (4 if self.local else 6)  # words; and int16 as published
        return weights + 8 * self.outputs + 4 * _SLOTS

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


class Layer(Shape):
    """A layer with its weights, table, activations and errors; for the kernels.

    Args:
        entry: of a plan's layers.
        plan: the plan.
        below: the layer below, or None.
    """

    def __init__(self, entry, plan, below):
        super().__init__(entry)
        self.below = below
        self.above = words(self.outputs)
        self.error = words(self.outputs)
        self.weights = self.above  # of a layer that has none; its kernels do not look
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
        function = (fast.forward, channelwise.depthwise, channelwise.pool)[self.kind]
        return (function, self.weights, a, self.above, self.table)

    def back(self):
        """The calls that carry its errors to the layer below."""
        function = (fast.carry_back, channelwise.depthwise_back, channelwise.pool_back)[self.kind]
        below = self.below
        return [
            (function, self.weights, self.error, below.error, self.table),
            (fast.settle, below.above, below.above, below.error, self.table),
        ]

    def update(self, a):
        """The call that lets its weights learn from the activations below it, a."""
        function = (fast.update, channelwise.depthwise_update)[self.kind]
        return (function, self.weights, a, self.error, self.table)
