"""The spec as a whole: read from TOML, checked, and compiled to the plan that boards get."""

from __future__ import annotations

import re
import tomllib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import (
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    model_validator,
)

from protocol import fixed
from protocol.errors import SpecError
from protocol.messages import LOSSES, U32, Plan
from protocol.sparse import MAX_BLOCK, MAX_PARAMETERS, block_size, top_count
from protocol.spec import heap
from protocol.spec.layers import LayerShape
from protocol.spec.model import TAGS, Model
from protocol.spec.part import Part, Percent
from protocol.spec.rounds import Rounds
from protocol.topics import NAME
from protocol.validation import reason_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydantic_core import ErrorDetails

Name = Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")]
Samples = Annotated[int, Field(ge=1, le=2047)]
Rate = Annotated[float, Field(gt=0, le=0.5)]


class Training(Part):
    """What a board does in a round."""

    support: Samples = Field(description="Samples that reconstruct the local layers.")
    query: Samples = Field(description="Samples that update the global layers.")
    rate_local: Rate = Field(description="Learning rate of the local layers.")
    rate_global: Rate = Field(description="Learning rate of the global layers.")
    percent: Percent = Field(description="P: share of the global parameters that a board sends.")
    clip: float = Field(
        default=16.0,
        gt=0,
        le=16,
        description="Largest derivative by a neuron's sum: gradients are clipped there.",
    )
    value_bits: Literal[4, 8, 16] = Field(default=8, description="Bits of a value that it sends.")
    error_feedback: bool = Field(
        default=False,
        description="Whether what a board did not send is added to its next update.",
    )


class Spec(Part):
    """A fleet's model, partition and training plan."""

    fleet: Name = Field(description="The fleet's name: a level of every topic.")
    seed: int = Field(default=1, ge=0, le=U32, description="Starts every generator of the fleet.")
    heap: int = Field(
        default=heap.BOARD, ge=1, description="Bytes of heap of the fleet's smallest board."
    )
    model: Model
    training: Training
    rounds: Rounds
    _incarnation: int = PrivateAttr(default=0)

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        if self.global_count > MAX_PARAMETERS:
            msg = f"{self.global_count} global parameters; at most {MAX_PARAMETERS} can be indexed"
            raise ValueError(msg)
        if self.is_classifier:
            return self  # A sample's cross-entropy is below 40: 2047 of them are no matter.
        outputs = self.layers[-1].outputs
        for phase in ("support", "query"):
            samples = getattr(self.training, phase)
            if samples * outputs >= 2 ** (31 - fixed.LOSS_BITS - 8):  # 16 * 16 is the largest.
                msg = (
                    f"{phase} {samples} times {outputs} outputs: the sum of losses could leave "
                    f"32 bits; keep the product below 2048"
                )
                raise ValueError(msg)
        top = top_count(self.global_count, self.training.percent)
        size = block_size(top, self.tensors, self.training.value_bits)
        if size > MAX_BLOCK:
            msg = (
                f"an update could take {size:,} bytes; a board can send {MAX_BLOCK:,}: "
                f"lower percent or value_bits"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _fits_a_board(self) -> Self:
        needed = heap.needed(self.layers, self.plan)
        if sum(needed.values()) > self.heap:
            parts = ", ".join(f"{name} {size:,}" for name, size in needed.items())
            msg = (
                f"a board needs {sum(needed.values()):,} bytes of heap ({parts}), but the smallest "
                f"has {self.heap:,}: take fewer channels or larger strides, or set heap if all "
                f"boards have more"
            )
            raise ValueError(msg)
        return self

    @property
    def layers(self) -> tuple[LayerShape, ...]:
        """The layers in their places."""
        return self.model.shapes

    @cached_property
    def tensors(self) -> tuple[int, ...]:
        """Sizes of the global tensors, one a layer, in order: how flat parameters divide."""
        return tuple(
            layer.parameters for layer in self.layers if layer.parameters and not layer.local
        )

    @property
    def global_count(self) -> int:
        """How many parameters the fleet shares."""
        return sum(self.tensors)

    @property
    def has_local(self) -> bool:
        """Whether any layer is local. A spec's is, but a simulation may play others."""
        return any(layer.local for layer in self.layers)

    @property
    def is_classifier(self) -> bool:
        """Whether labels are classes, and the loss their cross-entropy; else values."""
        return self.model.loss == "cross_entropy"

    @property
    def loss_outputs(self) -> int:
        """Over how many outputs a sample's loss is a mean; 1 for the cross-entropy."""
        return 1 if self.is_classifier else self.layers[-1].outputs

    @property
    def heap_needed(self) -> int:
        """Bytes of heap that a board takes: see :func:`protocol.spec.heap.needed`."""
        return sum(heap.needed(self.layers, self.plan).values())

    @property
    def lineage(self) -> int:
        """32 bits that change with the fleet, its seed, its model and its incarnation."""
        identity = self.model_dump_json(include={"fleet", "seed", "model"})
        return fixed.fnv1a(f"{identity}/{self._incarnation}" if self._incarnation else identity)

    def with_incarnation(self, incarnation: int) -> Self:
        """The same spec in another incarnation: what learned in one shares nothing with another.

        Args:
            incarnation: 1 to 2**32 - 1, drawn at random by who keeps the model; 0 for none.
        """
        other = self.model_copy()
        other._incarnation = incarnation  # noqa: SLF001 - its own class
        return other

    @property
    def plan(self) -> Plan:
        """What boards need to know."""
        return Plan(
            lineage=self.lineage,
            seed=self.seed,
            loss=LOSSES.index(self.model.loss),
            layers=tuple(layer.compiled for layer in self.layers),
            rate_local=fixed.to_rate(self.training.rate_local),
            rate_global=fixed.to_rate(self.training.rate_global),
            support=self.training.support,
            query=self.training.query,
            clip=fixed.to_error(self.training.clip, self.model.loss),
            top=top_count(self.global_count, self.training.percent),
            value_bits=self.training.value_bits,
            feedback=int(self.training.error_feedback),
        )

    def start(self) -> NDArray[np.int16]:
        """Version 0 of the global parameters, shape (global_count,)."""
        return self._draw(local=False, seed=fixed.fnv1a(f"{self.seed}/global"))

    def local_start(self) -> NDArray[np.int16]:
        """The local parameters from which every board reconstructs."""
        return self._draw(local=True, seed=self.seed)

    def _draw(self, *, local: bool, seed: int) -> NDArray[np.int16]:
        limits: list[int] = []
        for layer in self.layers:
            if layer.local == local:
                limits += [layer.limit] * layer.parameters
        return fixed.uniform_weights(seed, limits)

    @classmethod
    def from_file(cls, path: Path) -> Spec:
        """Read a spec.

        Raises:
            SpecError: the file cannot be read, is not TOML, or breaks a rule; with the line and
                the reason.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            msg = (
                f"{path}: cannot be read ({error}); give the path of a spec such as specs/sine.toml"
            )
            raise SpecError(msg) from error
        return cls.from_toml(text, str(path))

    @classmethod
    def from_toml(cls, text: str, name: str = "spec") -> Spec:
        """Read a spec from its text; ``name`` is how messages call it.

        Raises:
            SpecError: it is not TOML, or it breaks a rule; with the line and the reason.
        """
        try:
            return cls.model_validate(_tuples(tomllib.loads(text)))
        except tomllib.TOMLDecodeError as error:
            msg = f"{name}: not TOML: {error}"
            raise SpecError(msg) from error
        except ValidationError as error:
            problems = [_explain(problem, text, name) for problem in error.errors()]
            raise SpecError("\n".join(problems)) from error


def _tuples(value: object) -> object:
    """TOML's lists as tuples, which strict models want."""
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return tuple(_tuples(inner) for inner in value)
    return value


def _explain(problem: ErrorDetails, text: str, name: str) -> str:
    location = _location(problem["loc"])
    where = ".".join(str(step) for step in location)
    reason = reason_of(problem)
    if problem["type"] == "extra_forbidden":
        reason = "is not a setting of a spec; see specs/sine.toml for those that are"
    elif problem["type"] == "missing":
        reason = "is missing"
    elif problem["type"].startswith("union_tag"):
        reason = "kind must be 'dense', 'conv', 'depthwise' or 'pool'"
    line = _line_of(location, text)
    return f"{name}:{line}: {where + ': ' if where else ''}{reason}"


def _location(steps: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Where a setting stands in the file, which knows nothing of a union's members."""
    if steps[:1] != ("model",):
        return steps
    return tuple(step for at, step in enumerate(steps) if at < 2 or step not in TAGS)


_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]#]+?)\s*\]")
_KEY = re.compile(r"^\s*([A-Za-z0-9_-]+)\s*=")


def _line_of(location: tuple[int | str, ...], text: str) -> int:
    """The line of a setting, or of the nearest table above it; tomllib does not tell."""
    lines: dict[tuple[int | str, ...], int] = {(): 1}
    table: tuple[int | str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = tuple(step.strip() for step in header[2].split("."))
            if header[1] == "[[":
                table += (
                    sum(1 for known in lines if known[:-1] == table and isinstance(known[-1], int)),
                )
            lines[table] = number
        elif key := _KEY.match(line):
            lines[(*table, key[1])] = number
    while location not in lines:
        location = location[:-1]
    return lines[location]
