"""The board's networks in float64: what fixed point is held against.

The same layers, order of steps and losses as :mod:`simulation.engine`, without rounding, saturation
or clipping. What goes in and comes out has the same formats, so that one may stand for the other;
what lies between are real numbers. A leading axis runs over boards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from protocol import fixed
from protocol.layers import Kind, LayerShape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from protocol.fixed import Words
    from protocol.spec import Spec

    Reals = NDArray[np.float64]

UNIT: Final = 2.0**-fixed.WEIGHT_BITS
"""A weight unit."""
VALUE: Final = 2.0**-fixed.ACTIVATION_BITS
"""A unit of an activation."""


class FloatEngine:
    """A fleet's networks: ``boards`` copies of the spec's layers, trained in step.

    ``weights[l]`` has shape (boards, outputs, row_size); the last column is the bias.
    """

    def __init__(self, spec: Spec, boards: int) -> None:
        self.layers = spec.layers
        self.loss = spec.model.loss
        self.boards = boards
        self.weights: list[Reals] = [
            np.zeros((boards, layer.outputs, layer.row_size)) for layer in spec.layers
        ]
        self._rates = [
            spec.training.rate_local if layer.local else spec.training.rate_global
            for layer in spec.layers
        ]

    def seed(self, seeds: Sequence[int]) -> None:
        """Nothing here is drawn."""

    def load(self, parameters: NDArray[np.int16], *, local: bool) -> None:
        """Set the local or the global parameters of every board, from weight units."""
        end = 0
        for layer, w in zip(self.layers, self.weights, strict=True):
            if layer.local == local:
                start, end = end, end + layer.parameters
                w[:] = parameters[start:end].reshape(w.shape[1:]) * UNIT

    def flat(self, *, local: bool) -> Reals:
        """The local or the global parameters in weight units, shape (boards, parameters)."""
        return np.concatenate(
            [
                w.reshape(self.boards, -1) / UNIT
                for w, layer in zip(self.weights, self.layers, strict=True)
                if layer.local == local
            ],
            axis=1,
        )

    def forward(self, x: Words) -> list[Reals]:
        """Activations below each layer, then the last's; shape (boards, values)."""
        return [values / VALUE for values in self._forward(x)]

    def _forward(self, x: Words) -> list[Reals]:
        """The same as real numbers."""
        values: list[Reals] = [x.astype(np.float64) * VALUE]
        for layer, w in zip(self.layers, self.weights, strict=True):
            windows = _windows(
                layer, values[-1].reshape(self.boards, layer.height, layer.width, -1)
            )
            if layer.kind is Kind.POOL:
                z = windows.mean(axis=2)
            elif layer.kind is Kind.DEPTHWISE:
                z = np.einsum("bpko,bok->bpo", windows, w[:, :, :-1]) + w[:, None, :, -1]
            else:
                flat = windows.reshape(self.boards, windows.shape[1], -1)
                z = flat @ w[:, :, :-1].transpose(0, 2, 1) + w[:, None, :, -1]
            values.append(
                np.maximum(z, 0).reshape(self.boards, -1)
                if layer.relu
                else z.reshape(self.boards, -1)
            )
        return values

    def step(self, x: Words, y: Words, *, local: bool) -> tuple[Reals, Words]:
        """One online step on the local or the global layers: see :meth:`Engine.step`."""
        values = self._forward(x)
        z = values[-1]
        if self.loss == "mse":
            error = z - y * VALUE
            loss, told = (error**2).sum(axis=1), np.zeros(self.boards, bool)
        else:
            classes = y
            distance = z.max(axis=1, keepdims=True) - z
            weight = np.exp(-distance)
            total = weight.sum(axis=1, keepdims=True)
            error = weight / total
            loss = (np.log(total) + np.take_along_axis(distance, classes, axis=1))[:, 0]
            told = z.argmax(axis=1) == classes[:, 0]
            np.put_along_axis(error, classes, np.take_along_axis(error, classes, 1) - 1, axis=1)
        first = min(
            i for i, layer in enumerate(self.layers) if layer.local == local and layer.parameters
        )
        for i in range(len(self.layers) - 1, first - 1, -1):
            layer, w = self.layers[i], self.weights[i]
            e = error.reshape(self.boards, layer.rows * layer.columns, layer.outputs)
            if i > first:
                error = self._back(layer, w, e)
                if self.layers[i - 1].relu:
                    error = np.where(values[i] > 0, error, 0)
            if layer.local == local and layer.parameters:
                windows = _windows(
                    layer, values[i].reshape(self.boards, layer.height, layer.width, -1)
                )
                if layer.kind is Kind.DEPTHWISE:
                    change = np.einsum("bpo,bpko->bok", e, windows)
                else:
                    flat = windows.reshape(self.boards, windows.shape[1], -1)
                    change = e.transpose(0, 2, 1) @ flat
                w[:, :, :-1] -= self._rates[i] * change
                w[:, :, -1] -= self._rates[i] * e.sum(axis=1)
        return loss * 2**fixed.LOSS_BITS, told.astype(np.int64)

    def _back(self, layer: LayerShape, w: Reals, e: Reals) -> Reals:
        """The error of the values below a layer."""
        grid = np.zeros((self.boards, layer.height, layer.width, layer.channels))
        e = e.reshape(self.boards, layer.rows, layer.columns, layer.outputs)
        for tap in range(layer.kernel**2):
            dy, dx = divmod(tap, layer.kernel)
            bottom = dy + layer.stride * (layer.rows - 1) + 1
            right = dx + layer.stride * (layer.columns - 1) + 1
            into = grid[:, dy : bottom : layer.stride, dx : right : layer.stride]
            if layer.kind is Kind.POOL:
                into += e / layer.kernel**2
            elif layer.kind is Kind.DEPTHWISE:
                into += e * w[:, None, None, :, tap]
            else:
                part = w[:, :, tap * layer.channels : (tap + 1) * layer.channels]
                into += np.einsum("bijo,boc->bijc", e, part)
        return grid.reshape(self.boards, -1)


def _windows(layer: LayerShape, grid: Reals) -> Reals:
    """Every window; shape (boards, pixels, taps, channels)."""
    view = np.lib.stride_tricks.sliding_window_view(grid, (layer.kernel, layer.kernel), axis=(1, 2))
    view = view[:, :: layer.stride, :: layer.stride]
    taps = np.moveaxis(view, 3, 5)  # boards, rows, columns, kernel, kernel, channels
    return taps.reshape(len(grid), layer.rows * layer.columns, layer.kernel**2, layer.channels)
