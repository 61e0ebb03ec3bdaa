"""Every machine message of a fleet: its fields, in wire order, in one place.

A message is a MessagePack array: the format number 2, then the fields in the order in which they
stand here. A board reads and writes the same layouts in
``micropython_client/tinymetafed/messages.py``; golden vectors hold the two together.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import msgpack

from protocol.cohort import MOST_CHOSEN
from protocol.errors import FormatError, MessageError
from protocol.topics import NAME

if TYPE_CHECKING:
    from collections.abc import Callable

FORMAT: Final = 2
"""Version of all that goes over the wire. A message of another one is not looked into."""
CHUNK_BYTES: Final = 1024
"""Bytes of the model in one chunk: what any board can take in at once."""
MAX_MESSAGE_BYTES: Final = 2**17
"""No message of a fleet is longer; a longer one is not looked into."""
U32: Final = 2**32 - 1
LOSSES: Final = ("mse", "cross_entropy")
"""A plan says which by its place."""


def _integer(most: int = U32) -> Any:  # noqa: ANN401 - a dataclass field, as the field's own type
    def check(value: object) -> bool:
        return type(value) is int and 0 <= value <= most

    wanted = f"an integer from 0 to {most}"
    return field(metadata={"check": check, "wanted": wanted, "is_u32": most == U32})


def _name() -> Any:  # noqa: ANN401
    def check(value: object) -> bool:
        return isinstance(value, str) and NAME.fullmatch(value) is not None

    return field(metadata={"check": check, "wanted": "a name of 1 to 32 letters, digits, . _ -"})


def _names() -> Any:  # noqa: ANN401
    def check(value: object) -> bool:
        return isinstance(value, tuple) and all(
            isinstance(name, str) and NAME.fullmatch(name) for name in value
        )

    return field(metadata={"check": check, "wanted": "a list of names"})


def _bytes(most: int = MAX_MESSAGE_BYTES) -> Any:  # noqa: ANN401
    def check(value: object) -> bool:
        return isinstance(value, bytes) and len(value) <= most

    return field(metadata={"check": check, "wanted": f"at most {most} bytes"})


def _layers() -> Any:  # noqa: ANN401
    def check(value: object) -> bool:
        return isinstance(value, tuple) and all(
            isinstance(layer, tuple)
            and len(layer) == 9
            and all(type(number) is int and 0 <= number <= U32 for number in layer)
            for layer in value
        )

    return field(metadata={"check": check, "wanted": "a list of layers, nine integers each"})


class _Fields(NamedTuple):
    """What a kind of message holds, without its format number."""

    checks: list[tuple[str, Callable[[object], bool], str]]
    """Of each field: its name, its check, and what is wanted."""
    u32: Callable[[tuple[object, ...]], tuple[Any, ...]]
    """Takes out the fields that may be any 32-bit integer, at least two, to be checked together."""
    others: list[int]
    """The places of the other fields."""


@cache
def _fields(message: type[Message]) -> _Fields:
    checks = [(f.name, f.metadata["check"], f.metadata["wanted"]) for f in fields(message)]
    is_u32 = [f.metadata.get("is_u32", False) for f in fields(message)]
    places = [place for place, is_it in enumerate(is_u32) if is_it]
    others = [place for place, is_it in enumerate(is_u32) if not is_it]
    return _Fields(checks, itemgetter(*places), others)


def _check_format(kind: str, values: object) -> None:
    """See that it is a message of our format.

    Raises:
        FormatError: it is one of another format.
        MessageError: it is none at all.
    """
    if not isinstance(values, tuple) or not values or type(values[0]) is not int:
        msg = f"{kind}: not an array that starts with the format number {FORMAT}"
        raise MessageError(msg)
    if values[0] != FORMAT:
        msg = f"{kind}: {of_another_format(values[0])}"
        raise FormatError(msg)


def of_another_format(number: int) -> str:
    """What is said of a peer that speaks another format."""
    return f"of format {number}, and this aggregator speaks {FORMAT}: update whichever is older"


@dataclass(frozen=True, slots=True)
class Message:
    """What all messages share."""

    def pack(self) -> bytes:
        """The message's bytes."""
        values = [getattr(self, name) for name, _, _ in _fields(type(self)).checks]  # type: ignore[arg-type]
        packed: bytes = msgpack.packb((FORMAT, *values))
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read a message.

        Raises:
            FormatError: they are a message of another format.
            MessageError: whatever else is wrong with the bytes.
        """
        kind = cls.__name__.lower()
        if len(data) > MAX_MESSAGE_BYTES:
            msg = f"{kind}: {len(data)} bytes; at most {MAX_MESSAGE_BYTES} are read"
            raise MessageError(msg)
        try:
            values = msgpack.unpackb(data, use_list=False, strict_map_key=True)
        except (ValueError, RecursionError) as error:
            msg = f"{kind}: not MessagePack ({type(error).__name__}: {error})"
            raise MessageError(msg) from error
        checks, u32, others = _fields(cls)  # type: ignore[arg-type]  # mypy: a class is not hashable
        _check_format(kind, values)
        values = values[1:]
        if len(values) != len(checks):
            msg = f"{kind}: {len(values)} fields instead of {len(checks)}"
            raise MessageError(msg)
        numbers = u32(values)
        is_sound = set(map(type, numbers)) == {int} and 0 <= min(numbers) <= max(numbers) <= U32
        if not (is_sound and all(checks[place][1](values[place]) for place in others)):
            wrong = next(i for i, (_, check, _) in enumerate(checks) if not check(values[i]))
            name, _, wanted = checks[wrong]
            msg = f"{kind}: field {name!r} must be {wanted}"
            raise MessageError(msg)
        return cls(*values)


@dataclass(frozen=True, slots=True)
class Plan(Message):
    """What a board needs of the spec, compiled to integers."""

    lineage: int = _integer()
    """Which model this is: boards and journals never mix two."""
    seed: int = _integer()
    """Start of the generator that draws the local parameters."""
    loss: int = _integer(len(LOSSES) - 1)
    """0 mean squared error, 1 cross-entropy."""
    layers: tuple[tuple[int, ...], ...] = _layers()
    """Per layer: kind, height, width, channels, outputs, kernel, stride, flags, and the limit of
    its seeded start in weight units: see :class:`protocol.spec.layers.LayerShape`.

    The flags are 1 for a local layer and 2 for ReLU.
    """
    rate_local: int = _integer(2**15)
    """Learning rate of the local layers, in units of 2**-15."""
    rate_global: int = _integer(2**15)
    """Learning rate of the global layers, in units of 2**-15."""
    support: int = _integer()
    """Samples that reconstruct the local layers."""
    query: int = _integer()
    """Samples that update the global layers."""
    clip: int = _integer(2**15 - 1)
    """Largest derivative by a neuron's sum, in error format."""
    top: int = _integer(2**16 - 1)
    """Most entries of an update."""
    value_bits: int = _integer(16)
    """Bits of a value in an update: 4, 8 or 16."""
    feedback: int = _integer(1)
    """1 where a board adds what it did not send to its next update."""


@dataclass(frozen=True, slots=True)
class Round(Message):
    """The open round."""

    lineage: int = _integer()
    round: int = _integer()
    version: int = _integer()
    """Version of the model on which this round works."""
    ticket_limit: int = _integer(2**32)
    """A board is invited whose :func:`~protocol.cohort.ticket` for the round is below this."""
    deadline: int = _integer()
    """Milliseconds for which the round stays open at most, from its announcement."""
    chosen: bytes = _bytes(2 * MOST_CHOSEN)
    """Boards that are invited whatever their tickets: see :func:`~protocol.cohort.name_in`."""
    max_age: int = _integer(255)
    """An update for a round that ended so many rounds ago still counts; 0: for this round only."""
    canary_version: int = _integer()
    """Version of the model that some boards try out in this round; 0 if none."""
    canary_share: int = _integer(2**32)
    """Who they are: see :func:`~protocol.cohort.is_canary`."""


@dataclass(frozen=True, slots=True)
class Chunk(Message):
    """A part of the whole model: int16 weights, little endian, from byte ``1024 * chunk`` on."""

    lineage: int = _integer()
    version: int = _integer()
    chunk: int = _integer()
    chunks: int = _integer()
    checksum: int = _integer()
    """CRC-32 (ISO 3309) of the whole model's bytes."""
    weights: bytes = _bytes(CHUNK_BYTES)


@dataclass(frozen=True, slots=True)
class Delta(Message):
    """What changed since the version before."""

    lineage: int = _integer()
    version: int = _integer()
    """The version that results from ``version - 1`` and the changes."""
    checksum: int = _integer()
    """CRC-32 (ISO 3309) of the resulting model's bytes."""
    changes: bytes = _bytes()
    """A sparse block, see :mod:`protocol.sparse`."""


@dataclass(frozen=True, slots=True)
class Update(Message):
    """What a board learned in a round."""

    lineage: int = _integer()
    round: int = _integer()
    board: str = _name()
    nonce: int = _integer()
    """Drawn by the board for this update: a re-sent one bears the same."""
    support: int = _integer()
    """Samples used to reconstruct."""
    query: int = _integer()
    """Samples used to update."""
    support_loss: int = _integer()
    """Losses of the support samples, each before it was learned from, summed, in loss format."""
    query_loss: int = _integer()
    """The same of the query samples: the fleet's validation."""
    query_correct: int = _integer()
    """Query samples whose class was predicted correctly before it was learned from; else 0."""
    bytes_up: int = _integer()
    """MQTT bytes that this board has sent since it started."""
    bytes_down: int = _integer()
    """MQTT bytes that it has received."""
    milliseconds: int = _integer()
    """From the first support sample to the encoded update."""
    heap_free: int = _integer()
    """Bytes free on the board's heap."""
    changes: bytes = _bytes()
    """A sparse block, see :mod:`protocol.sparse`."""


@dataclass(frozen=True, slots=True)
class Receipt(Message):
    """The aggregator's word that these boards' updates of this round are journaled."""

    lineage: int = _integer()
    round: int = _integer()
    boards: tuple[str, ...] = _names()
