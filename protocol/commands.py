"""What an operator can tell the aggregator, on the fleet's command topic, as JSON.

Some commands act at once. Those that change what boards work on (a spec, a version) are journaled,
and wait until no round is open: what boards have learned for it is not thrown away.
"""

import base64
import binascii
import json
from typing import Annotated, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from protocol.errors import CommandError
from protocol.spec.spec import Spec

MAX_COMMAND_BYTES: Final = 3 * 2**16
"""A longer message is not looked into. Weights for the largest model of a spec fit; the broker's
``max_packet_size`` allows for it."""


class _Command(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: str = Field(default="", max_length=64)
    """Repeated in the answer, so that who asked knows it."""


class Pause(_Command):
    """Withdraw the open round; what still comes for it counts."""

    command: Literal["pause"] = "pause"


class Resume(_Command):
    """Go on after a pause or a stop."""

    command: Literal["resume"] = "resume"


class Stop(_Command):
    """Close the open round with what there is, and open no other."""

    command: Literal["stop"] = "stop"


class Apply(_Command):
    """Go on by another spec of this fleet, given as its TOML text."""

    command: Literal["apply"] = "apply"
    spec: str

    def read(self) -> Spec:
        """The spec.

        Raises:
            SpecError: it cannot be used.
        """
        return Spec.from_toml(self.spec)


class RollBack(_Command):
    """Go on from an earlier version's weights."""

    command: Literal["rollback"] = "rollback"
    version: int = Field(ge=0)


class Import(_Command):
    """Go on from these weights."""

    command: Literal["import"] = "import"
    weights: str
    """Every global parameter as int16, little endian, in base64."""

    @classmethod
    def of(cls, weights: NDArray[np.int16], id_: str = "") -> "Import":
        """The command that brings these weights, of shape (parameters,)."""
        return cls(id=id_, weights=base64.b64encode(weights.astype("<i2").tobytes()).decode())

    def read(self, count: int) -> NDArray[np.int16]:
        """The weights, shape (count,).

        Raises:
            CommandError: they are not so many.
        """
        try:
            raw = base64.b64decode(self.weights, validate=True)
        except binascii.Error as error:
            raise CommandError(f"import: weights are not base64 ({error})") from error
        if len(raw) != 2 * count:
            raise CommandError(f"import: {len(raw) // 2} weights; the model has {count}")
        return np.frombuffer(raw, "<i2").astype(np.int16)


class Answer(BaseModel):
    """What came of a command."""

    command: str
    """Which it was; empty where that could not be read."""
    id: str
    """The command's."""
    ok: bool
    """Whether it was carried out."""
    detail: str
    """For people."""


Command = Pause | Resume | Stop | Apply | RollBack | Import
AtOnce = Pause | Resume | Stop

_ADAPTER: Final[TypeAdapter[Command]] = TypeAdapter(
    Annotated[Command, Field(discriminator="command")]
)


def parse(payload: bytes | str) -> Command:
    """Read a command.

    Raises:
        CommandError: it is none; says why.
    """
    if len(payload) > MAX_COMMAND_BYTES:
        raise CommandError(f"a command of {len(payload)} bytes; at most {MAX_COMMAND_BYTES}")
    try:
        return _ADAPTER.validate_json(payload)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        reason = f"no command: {where + ': ' if where else ''}{first['msg']}"
        raise CommandError(reason, _id_of(payload)) from error


def _id_of(payload: bytes | str) -> str:
    """The id of what is no command, if it has one."""
    try:
        given = json.loads(payload)
    except (ValueError, RecursionError):
        return ""
    id_ = given.get("id") if isinstance(given, dict) else None
    return id_ if isinstance(id_, str) else ""
