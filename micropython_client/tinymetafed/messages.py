"""The messages that a board reads and writes.

Their fields are explained in the host's ``protocol/messages.py``. Of MessagePack they need unsigned
integers, strings, byte strings and arrays.
"""

from collections import namedtuple

from micropython import const

from tinymetafed.errors import MessageError
from tinymetafed.layers import Shape, windows_fit

FORMAT = const(2)
_DEPTH = const(3)
_RATE_MOST = const(32768)
_ERROR_MOST = const(32767)
_TOP_MOST = const(65535)
_CHOSEN_MOST = const(1024)
_AGE_MOST = const(255)

# A letter a field: u unsigned integer, s string, b byte string, a array.
Plan = namedtuple(
    "Plan",
    (
        "lineage",
        "seed",
        "loss",
        "layers",
        "rate_local",
        "rate_global",
        "support",
        "query",
        "clip",
        "top",
        "value_bits",
        "feedback",
    ),
)
_PLAN = "uuuauuuuuuuu"
Round = namedtuple(
    "Round",
    (
        "lineage",
        "round",
        "version",
        "ticket_limit",
        "deadline",
        "chosen",
        "max_age",
        "canary_version",
        "canary_share",
    ),
)
_ROUND = "uuuuubuuu"
Chunk = namedtuple("Chunk", ("lineage", "version", "chunk", "chunks", "checksum", "weights"))
_CHUNK = "uuuuub"
Delta = namedtuple("Delta", ("lineage", "version", "checksum", "changes"))
_DELTA = "uuub"
Receipt = namedtuple("Receipt", ("lineage", "round", "boards"))
_RECEIPT = "uua"


class _Reader:
    """Reads values one after the other. Byte strings come as views, not copies."""

    def __init__(self, data):
        self._data = memoryview(data)
        self._at = 0

    def _take(self, size):
        start = self._at
        self._at = start + size
        if self._at > len(self._data):
            raise MessageError("message: cut short")
        return self._data[start : self._at]

    def _number(self, size):
        value = 0
        for byte in self._take(size):
            value = value << 8 | byte
        return value

    def message(self):
        """The one value that the data are."""
        value = self.value()
        if self._at < len(self._data):
            raise MessageError("message: goes on after its end")
        return value

    def value(self, depth=0):
        head = self._number(1)
        if head < 0x80:
            return head
        if head & 0xF0 == 0x90:
            return self._array(head & 0x0F, depth)
        if head & 0xE0 == 0xA0:
            return self._text(head & 0x1F)
        if 0xC4 <= head <= 0xC6:
            return self._take(self._number(1 << head - 0xC4))
        if 0xCC <= head <= 0xCE:
            return self._number(1 << head - 0xCC)
        if head == 0xCF:  # a cohort limit of 2**32 needs it
            return self._number(8)
        if head == 0xD9:
            return self._text(self._number(1))
        if head == 0xDC:
            return self._array(self._number(2), depth)
        raise MessageError("message: type 0x%02x is not used here" % head)

    def _text(self, size):
        try:
            return str(self._take(size), "utf-8")
        except UnicodeError:
            raise MessageError("message: a name is not UTF-8")

    def _array(self, size, depth):
        if depth == _DEPTH:
            raise MessageError("message: nested too deep")
        return [self.value(depth + 1) for _ in range(size)]


def _unpack(kind, types, data):
    try:
        values = _Reader(data).message()
    except MemoryError:
        raise MessageError("message: too long for this board")
    if not isinstance(values, list) or not values or not isinstance(values[0], int):
        raise MessageError("message: not an array that starts with a format number")
    if values[0] != FORMAT:
        raise MessageError(
            "the aggregator speaks format %d, this client %d: update whichever is older"
            % (values[0], FORMAT)
        )
    if len(values) != len(types) + 1:
        raise MessageError("message: not %d fields" % len(types))
    for i, letter in enumerate(types):
        value = values[i + 1]
        wanted = {"u": int, "b": memoryview, "a": list}[letter]
        if not isinstance(value, wanted) or (isinstance(value, int) and value > 1 << 32):
            raise MessageError("message: field %d has the wrong type or size" % i)
    return kind(*values[1:])


def unpack_plan(data):
    plan = _unpack(Plan, _PLAN, data)
    if plan.rate_local > _RATE_MOST or plan.rate_global > _RATE_MOST:
        raise MessageError("plan: a learning rate is above 1")
    if plan.loss > 1 or plan.clip > _ERROR_MOST or plan.top > _TOP_MOST or plan.feedback > 1:
        raise MessageError("plan: a number is out of its range")
    if plan.value_bits not in (4, 8, 16):
        raise MessageError("plan: values have 4, 8 or 16 bits")
    # The kernels trust the sizes, and a round needs both sides.
    sides = 0
    below = None
    for entry in plan.layers:
        if not isinstance(entry, list) or len(entry) != 9:
            raise MessageError("plan: a layer is nine integers")
        for number in entry:
            if not isinstance(number, int):
                raise MessageError("plan: a layer is nine integers")
        if not windows_fit(entry):
            raise MessageError("plan: a layer's windows do not fit into its input")
        shape = Shape(entry)
        if not shape.fits_on(shape.inputs if below is None else below):
            raise MessageError("plan: a layer does not fit on the one below it")
        if shape.size:
            sides |= 1 << shape.local
        below = shape.outputs
    if sides != 3:
        raise MessageError("plan: it takes a local and a global layer")
    return plan


def unpack_round(data):
    announced = _unpack(Round, _ROUND, data)
    if len(announced.chosen) > _CHOSEN_MOST or announced.max_age > _AGE_MOST:
        raise MessageError("round: a field is out of its range")
    return announced


def unpack_chunk(data):
    return _unpack(Chunk, _CHUNK, data)


def unpack_delta(data):
    return _unpack(Delta, _DELTA, data)


def unpack_receipt(data):
    return _unpack(Receipt, _RECEIPT, data)


class UpdateWriter:
    """Writes updates into one buffer that lasts.

    Args:
        board: the board's name.
        block: most bytes of the sparse block, below 65536.
    """

    def __init__(self, board, block):
        self._board = board.encode()
        self.out = bytearray(2 + 13 * 5 + 2 + len(self._board) + 3 + block)
        self._at = 0

    def begin(self, lineage, round_, nonce, facts):
        """Write what stands before the sparse block; facts: the fields from support to heap_free.

        Returns:
            Where in ``out`` the block goes.
        """
        self._at = 0
        self._byte(0x90 | 15)
        self._byte(FORMAT)
        self._uint(lineage)
        self._uint(round_)
        self._byte(0xD9)
        self._byte(len(self._board))
        self.out[self._at : self._at + len(self._board)] = self._board
        self._at += len(self._board)
        self._uint(nonce)
        for number in facts:
            self._uint(number)
        return self._at + 3

    def end(self, block_end):
        """Complete the update whose block ends there.

        Returns:
            Its bytes, as a view that the next update overwrites.
        """
        size = block_end - self._at - 3
        self._byte(0xC5)
        self._byte(size >> 8)
        self._byte(size & 0xFF)
        return memoryview(self.out)[:block_end]

    def _byte(self, value):
        self.out[self._at] = value
        self._at += 1

    def _uint(self, value):
        if value < 0x80:
            self._byte(value)
        elif value < 0x10000:
            self._byte(0xCD)
            self._big_endian(value, 2)
        else:
            self._byte(0xCE)
            self._big_endian(value, 4)

    def _big_endian(self, value, size):
        while size:
            size -= 1
            self._byte(value >> 8 * size & 0xFF)
