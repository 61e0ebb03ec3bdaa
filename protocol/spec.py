"""The spec: a fleet's model, partition and training plan, as a TOML file that a person writes."""

from __future__ import annotations

import math
import re
import tomllib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from protocol import fixed
from protocol.errors import SpecError
from protocol.messages import LOCAL, RELU, U32, Plan
from protocol.sparse import MAX_PARAMETERS, top_count
from protocol.topics import NAME

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydantic_core import ErrorDetails

Name = Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")]
Samples = Annotated[int, Field(ge=1, le=2047)]
Rate = Annotated[float, Field(gt=0, le=0.5)]
Percent = Annotated[float, Field(gt=0, le=100)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Layer(_Part):
    """A dense layer as the spec gives it."""

    outputs: int = Field(ge=1, le=fixed.MAX_OUTPUTS, description="Neurons of the layer.")
    activation: Literal["relu", "none"] = Field(description="What follows the sums.")
    local: bool = Field(
        default=False,
        description="Whether the layer stays on the board and is rebuilt there in every round.",
    )


class Model(_Part):
    """The network."""

    inputs: int = Field(ge=1, le=fixed.MAX_INPUTS, description="Values in a sample.")
    loss: Literal["mse"] = Field(description="What is minimised: the mean squared error.")
    layers: tuple[Layer, ...] = Field(min_length=1, description="From the input to the output.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        last = self.layers[-1]
        if last.activation != "none":
            msg = "the last layer's activation must be 'none': its sums are the prediction"
            raise ValueError(msg)
        if all(layer.local for layer in self.layers):
            msg = "every layer is local, so there is nothing for the fleet to learn"
            raise ValueError(msg)
        if not any(layer.local for layer in self.layers):
            msg = (
                "no layer is local, so there is nothing to reconstruct; mark one with local = true"
            )
            raise ValueError(msg)
        return self


class Training(_Part):
    """What a board does in a round."""

    support: Samples = Field(description="Samples that reconstruct the local layers.")
    query: Samples = Field(description="Samples that update the global layers.")
    rate_local: Rate = Field(description="Learning rate of the local layers.")
    rate_global: Rate = Field(description="Learning rate of the global layers.")
    percent: Percent = Field(description="P: share of the global parameters that a board sends.")


class Rounds(_Part):
    """What the aggregator does."""

    count: int = Field(ge=1, le=U32, description="Rounds until the fleet is done.")
    cohort: int = Field(ge=1, le=1_000_000, description="Boards asked in a round.")
    quorum: int | None = Field(
        default=None, ge=1, description="Updates that close a round; the whole cohort if not given."
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

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.quorum is not None and self.quorum > self.cohort:
            msg = f"quorum {self.quorum} is more than the cohort's {self.cohort} boards"
            raise ValueError(msg)
        if self.step_min > self.step_max:
            msg = f"step_min {self.step_min} is above step_max {self.step_max}"
            raise ValueError(msg)
        return self

    @property
    def closing(self) -> int:
        """Updates that close a round."""
        return self.cohort if self.quorum is None else self.quorum


class LayerShape(BaseModel):
    """A layer with what follows from its place."""

    model_config = ConfigDict(frozen=True)

    inputs: int
    outputs: int
    relu: bool
    local: bool

    @property
    def parameters(self) -> int:
        """Weights and biases: one row of ``inputs + 1`` an output, the bias last."""
        return self.outputs * (self.inputs + 1)

    @property
    def limit(self) -> int:
        """Its start is drawn evenly between minus and plus this many weight units.

        One over the root of the inputs (LeCun et al., "Efficient BackProp", 1998, for a uniform
        draw without the root of three): on the sine task it ended at a third of the loss that twice
        as wide a start gave.
        """
        return max(1, round(2**fixed.WEIGHT_BITS / math.sqrt(self.inputs)))


class Spec(_Part):
    """A fleet's model, partition and training plan."""

    fleet: Name = Field(description="The fleet's name: a level of every topic.")
    seed: int = Field(default=1, ge=0, le=U32, description="Starts every generator of the fleet.")
    model: Model
    training: Training
    rounds: Rounds

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        if self.global_count > MAX_PARAMETERS:
            msg = f"{self.global_count} global parameters; at most {MAX_PARAMETERS} can be indexed"
            raise ValueError(msg)
        outputs = self.layers[-1].outputs
        for phase in ("support", "query"):
            samples = getattr(self.training, phase)
            if samples * outputs >= 2 ** (31 - 2 * 15 + 2 * fixed.ERROR_BITS - fixed.LOSS_BITS):
                msg = (
                    f"{phase} {samples} times {outputs} outputs: the sum of losses could leave "
                    f"32 bits; keep the product below 2048"
                )
                raise ValueError(msg)
        return self

    @cached_property
    def layers(self) -> tuple[LayerShape, ...]:
        """The layers with their inputs."""
        shapes = []
        inputs = self.model.inputs
        for layer in self.model.layers:
            relu = layer.activation == "relu"
            shapes.append(
                LayerShape(inputs=inputs, outputs=layer.outputs, relu=relu, local=layer.local)
            )
            inputs = layer.outputs
        return tuple(shapes)

    @cached_property
    def tensors(self) -> tuple[int, ...]:
        """Sizes of the global tensors, one a layer, in order: how flat parameters divide."""
        return tuple(layer.parameters for layer in self.layers if not layer.local)

    @property
    def global_count(self) -> int:
        """How many parameters the fleet shares."""
        return sum(self.tensors)

    @property
    def lineage(self) -> int:
        """32 bits that change with the fleet, its seed or its model, and with nothing else."""
        return fixed.fnv1a(self.model_dump_json(include={"fleet", "seed", "model"}))

    @property
    def plan(self) -> Plan:
        """What boards need to know."""
        return Plan(
            lineage=self.lineage,
            seed=self.seed,
            layers=tuple(
                (
                    layer.inputs,
                    layer.outputs,
                    LOCAL * layer.local + RELU * layer.relu,
                    layer.limit,
                )
                for layer in self.layers
            ),
            rate_local=fixed.to_rate(self.training.rate_local),
            rate_global=fixed.to_rate(self.training.rate_global),
            support=self.training.support,
            query=self.training.query,
            top=top_count(self.global_count, self.training.percent),
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
    where = ".".join(str(step) for step in problem["loc"])
    reason = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        reason = "is not a setting of a spec; see specs/sine.toml for those that are"
    elif problem["type"] == "missing":
        reason = "is missing"
    line = _line_of(problem["loc"], text)
    return f"{name}:{line}: {where + ': ' if where else ''}{reason}"


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
