"""The spec's part on the network: its layers as a person writes them, and in their places."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Final, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from protocol import fixed
from protocol.spec.layers import Kind, LayerShape
from protocol.spec.part import Part


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
TAGS: Final = {"dense", "conv", "depthwise", "pool", "values", "grid"}
"""Of the unions here: steps of where a problem is that the file does not have."""


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
