"""The spec: a fleet's model, partition and training plan, as a TOML file that a person writes."""

from __future__ import annotations

import re
import tomllib
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    PrivateAttr,
    StringConstraints,
    Tag,
    ValidationError,
    model_validator,
)

from protocol import fixed, memory
from protocol.cohort import MOST_CHOSEN
from protocol.errors import SpecError
from protocol.layers import Kind, LayerShape
from protocol.messages import LOSSES, U32, Plan
from protocol.part import Part
from protocol.sparse import MAX_BLOCK, MAX_PARAMETERS, block_size, top_count
from protocol.strategy import Combine, Optimizer, Privacy, check
from protocol.topics import NAME

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydantic_core import ErrorDetails

Name = Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")]
Samples = Annotated[int, Field(ge=1, le=2047)]
Rate = Annotated[float, Field(gt=0, le=0.5)]
Percent = Annotated[float, Field(gt=0, le=100)]


class _Weighted(Part):
    activation: Literal["relu", "none"] = Field(description="What follows the sums.")
    local: bool = Field(
        default=False,
        description="Whether the layer stays on the board and is rebuilt there in every round.",
    )


class Dense(_Weighted):
    """Every output sees every input; a grid below is taken as one long row."""

    kind: Literal["dense"] = "dense"
    outputs: int = Field(ge=1, le=fixed.MAX_OUTPUTS, description="Neurons of the layer.")


class Conv(_Weighted):
    """A convolution; windows lie inside the input, so the grid shrinks."""

    kind: Literal["conv"]
    outputs: int = Field(ge=1, le=fixed.MAX_OUTPUTS, description="Channels of the output.")
    kernel: Literal[1, 3] = Field(description="Height and width of a window.")
    stride: int = Field(default=1, ge=1, le=8, description="Pixels from a window to the next.")


class Depthwise(_Weighted):
    """A convolution of each channel on its own."""

    kind: Literal["depthwise"]
    kernel: Literal[3] = Field(default=3, description="Height and width of a window.")
    stride: int = Field(default=1, ge=1, le=8, description="Pixels from a window to the next.")


class Pool(Part):
    """The mean of windows that do not overlap; pixels that fill no window are left out."""

    kind: Literal["pool"]
    size: Literal[2, 4] = Field(description="Height and width of a window.")


def _kind(layer: object) -> object:
    """What a layer says that it is; dense, if it says nothing."""
    if isinstance(layer, dict):
        return layer.get("kind", "dense")
    return getattr(layer, "kind", None)


Layer = Annotated[
    Annotated[Dense, Tag("dense")]
    | Annotated[Conv, Tag("conv")]
    | Annotated[Depthwise, Tag("depthwise")]
    | Annotated[Pool, Tag("pool")],
    Discriminator(_kind),
]
Side = Annotated[int, Field(ge=1, le=fixed.MAX_INPUTS)]
Inputs = Annotated[
    Annotated[Side, Tag("values")] | Annotated[tuple[Side, Side, Side], Tag("grid")],
    # A list, too: JSON, as the journal keeps a spec, has no tuples.
    Discriminator(lambda inputs: "grid" if isinstance(inputs, tuple | list) else "values"),
]
_TAGS = {"dense", "conv", "depthwise", "pool", "values", "grid"}


class Model(Part):
    """The network."""

    inputs: Inputs = Field(
        description="Values in a sample; or height, width and channels of a grid of them."
    )
    loss: Literal["mse", "cross_entropy"] = Field(
        description="What is minimised: the mean squared error, or the cross-entropy of classes."
    )
    layers: tuple[Layer, ...] = Field(min_length=1, description="From the input to the output.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        last = self.layers[-1]
        if not isinstance(last, Dense) or last.activation != "none":
            msg = "the last layer must be dense with activation 'none': its sums are the prediction"
            raise ValueError(msg)
        sides = {layer.local for layer in self.layers if not isinstance(layer, Pool)}
        if False not in sides:
            msg = "every layer is local, so there is nothing for the fleet to learn"
            raise ValueError(msg)
        if True not in sides:
            msg = (
                "no layer is local, so there is nothing to reconstruct; mark one with local = true"
            )
            raise ValueError(msg)
        for number, (layer, shape) in enumerate(zip(self.layers, self.shapes, strict=True)):
            if problem := _problem(shape):
                msg = f"layer {number} ({layer.kind}): {problem}"
                raise ValueError(msg)
        return self

    @cached_property
    def shapes(self) -> tuple[LayerShape, ...]:
        """The layers in their places."""
        grid = self.inputs if isinstance(self.inputs, tuple) else (1, 1, self.inputs)
        shapes = []
        for layer in self.layers:
            shape = _place(layer, *grid)
            shapes.append(shape)
            grid = (shape.rows, shape.columns, shape.outputs)
        return tuple(shapes)


def _place(layer: Layer, height: int, width: int, channels: int) -> LayerShape:
    """The layer on top of a grid."""
    match layer:
        case Dense():
            place = (Kind.SUMS, 1, 1, height * width * channels, layer.outputs, 1, 1)
        case Conv():
            place = (Kind.SUMS, height, width, channels, layer.outputs, layer.kernel, layer.stride)
        case Depthwise():
            place = (Kind.DEPTHWISE, height, width, channels, channels, layer.kernel, layer.stride)
        case Pool():
            place = (Kind.POOL, height, width, channels, channels, layer.size, layer.size)
            return LayerShape(*place, relu=False, local=False)
    return LayerShape(*place, relu=layer.activation == "relu", local=layer.local)


def _problem(shape: LayerShape) -> str | None:
    """Why a layer cannot be computed where it stands."""
    if shape.rows < 1 or shape.columns < 1:
        return (
            f"its {shape.kernel} x {shape.kernel} windows do not fit into the "
            f"{shape.height} x {shape.width} pixels below it"
        )
    if shape.dot_shift > fixed.WEIGHT_BITS:
        return f"{shape.row_size - 1} products in a sum; the arithmetic holds up to about 2**15"
    if shape.error_shift >= fixed.WEIGHT_BITS:
        return f"{shape.outputs} outputs share an input; the arithmetic holds up to 2**11 in all"
    return None


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


class Canary(Part):
    """A new version of the model is tried out by some boards before the others get it."""

    share: float = Field(gt=0, lt=1, description="Share of the boards that try it out.")
    tolerance: float = Field(
        ge=0,
        le=100,
        description="It is taken back when their loss exceeds the others' by more than this share.",
    )


class Rounds(Part):
    """What the aggregator does."""

    count: int = Field(ge=1, le=U32, description="Rounds until the fleet is done.")
    mode: Literal["synchronous", "buffered"] = Field(
        default="synchronous",
        description="Whether an update counts in its own round only, or may come late.",
    )
    cohort: int = Field(ge=1, le=1_000_000, description="Boards at work in a round.")
    choose: Literal["sampling", "fairness", "battery"] = Field(
        default="sampling",
        description="Whom it asks: each alike, who was not heard for longest, or the best charged.",
    )
    extra: float = Field(
        default=0.0,
        ge=0,
        le=10,
        description="Boards asked beyond the cohort, as a share of it, in case some fail.",
    )
    quorum: int | None = Field(
        default=None, ge=1, description="Updates that close a round; the whole cohort if not given."
    )
    max_age: int = Field(
        default=8,
        ge=1,
        le=255,
        description="Buffered: rounds by which an update may be late; an older one is refused.",
    )
    discount: float = Field(
        default=0.5,
        ge=0,
        le=10,
        description="Buffered: an update that is a rounds late weighs (1 + a) ** -discount.",
    )
    deadline: float = Field(
        gt=0, le=1_000_000, description="Seconds for which a round stays open at most."
    )
    step_max: float = Field(
        ge=0, le=100, description="The first round's step, a_max of the cosine rule."
    )
    step_min: float = Field(default=0.0, ge=0, le=100, description="The step at the end, a_min.")
    percent_down: Percent = Field(
        description="Share of the global parameters that the aggregator sends after a round."
    )
    canary: Canary | None = None
    combine: Combine = Combine()
    optimizer: Optimizer = Optimizer()
    privacy: Privacy | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.quorum is not None and self.quorum > self.cohort:
            msg = f"quorum {self.quorum} is more than the cohort's {self.cohort} boards"
            raise ValueError(msg)
        if self.step_min > self.step_max:
            msg = f"step_min {self.step_min} is above step_max {self.step_max}"
            raise ValueError(msg)
        if self.mode == "buffered" and self.quorum is None:
            msg = "buffered rounds need a quorum: the updates after which a version is made"
            raise ValueError(msg)
        if self.mode == "buffered" and self.privacy is not None:
            msg = "privacy counts one update of a board in a version; buffered rounds may hold two"
            raise ValueError(msg)
        if self.choose != "sampling" and self.asking > MOST_CHOSEN:
            msg = (
                f"a round can name at most {MOST_CHOSEN} boards, and this one asks {self.asking}: "
                f"take choose = 'sampling', or a smaller cohort"
            )
            raise ValueError(msg)
        check(self.combine, self.privacy, self.asking, self.closing)
        return self

    @property
    def asking(self) -> int:
        """Boards that a round asks."""
        return ceil(self.cohort * (1 + self.extra))

    @property
    def oldest(self) -> int:
        """Rounds by which an update may be late; 0 if it must be in time."""
        return self.max_age if self.mode == "buffered" else 0

    @property
    def closing(self) -> int:
        """Updates that close a round."""
        return self.cohort if self.quorum is None else self.quorum

    @property
    def clip(self) -> float | None:
        """Largest L2 norm of an update that counts as it is, in weight values."""
        return self.combine.clip_norm if self.privacy is None else self.privacy.clip


class Spec(Part):
    """A fleet's model, partition and training plan."""

    fleet: Name = Field(description="The fleet's name: a level of every topic.")
    seed: int = Field(default=1, ge=0, le=U32, description="Starts every generator of the fleet.")
    heap: int = Field(
        default=memory.BOARD, ge=1, description="Bytes of heap of the fleet's smallest board."
    )
    model: Model
    training: Training
    rounds: Rounds
    _life: int = PrivateAttr(default=0)

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        if self.global_count > MAX_PARAMETERS:
            msg = f"{self.global_count} global parameters; at most {MAX_PARAMETERS} can be indexed"
            raise ValueError(msg)
        if self.model.loss != "mse":
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
        needed = memory.needed(self.layers, self.plan)
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
    def lineage(self) -> int:
        """32 bits that change with the fleet, its seed, its model and its life."""
        identity = self.model_dump_json(include={"fleet", "seed", "model"})
        return fixed.fnv1a(f"{identity}/{self._life}" if self._life else identity)

    def in_life(self, life: int) -> Self:
        """The same spec in another life: what learned from it once shares nothing with it now.

        Args:
            life: 1 to 2**32 - 1, drawn at random by who keeps the model; 0 for none.
        """
        other = self.model_copy()
        other._life = life  # noqa: SLF001 - its own class
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
        chosen = [layer for layer in self.layers if layer.local == local]
        limits = [layer.limit for layer in chosen for _ in range(layer.parameters)]
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
    reason = problem["msg"].removeprefix("Value error, ")
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
    return tuple(step for at, step in enumerate(steps) if at < 2 or step not in _TAGS)


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
