"""The board's networks in float64: what fixed point is held against.

The same layers, order of steps and losses as :mod:`simulation.engine.fixed`, without rounding or
saturation; errors are clipped where the spec says. What goes in and comes out has the same formats,
so that one may stand for the other; what lies between are real numbers. A leading axis runs over
boards. Unlike a board, this engine also learns from mini-batches: baselines do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from protocol import fixed
from protocol.spec.layers import Kind, LayerShape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from protocol.fixed import Words
    from protocol.spec.spec import Spec

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
        self._clip = spec.training.clip
        self._rates = [
            spec.training.rate_local if layer.local else spec.training.rate_global
            for layer in spec.layers
        ]

    def seed(self, seeds: Sequence[int]) -> None:
        """Nothing here is drawn."""

    def load(self, parameters: NDArray[np.integer | np.floating], *, local: bool) -> None:
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
        values, _ = self._forward(x[:, None])
        return [each[:, 0] / VALUE for each in values]

    def _forward(self, x: Words) -> tuple[list[Reals], list[Reals]]:
        """The same for several samples a board, as real numbers, and what rows of weights meet.

        Values have the shape (boards, samples, values); windows (boards, samples * pixels, taps,
        channels).
        """
        values: list[Reals] = [x.astype(np.float64) * VALUE]
        seen = []
        for layer, w in zip(self.layers, self.weights, strict=True):
            windows = _windows(layer, values[-1])
            if layer.kind is Kind.POOL:
                z = windows.mean(axis=2)
            elif layer.kind is Kind.DEPTHWISE:
                z = np.einsum("bpko,bok->bpo", windows, w[:, :, :-1]) + w[:, None, :, -1]
            else:
                flat = windows.reshape(*windows.shape[:2], -1)
                z = flat @ w[:, :, :-1].transpose(0, 2, 1) + w[:, None, :, -1]
            seen.append(windows)
            z = z.reshape(*x.shape[:2], -1)
            values.append(np.maximum(z, 0) if layer.relu else z)
        return values, seen

    def step(self, x: Words, y: Words, *, local: bool) -> tuple[Reals, Words]:
        """One step on the local or the global layers: see :meth:`Engine.step`.

        A board's batch may be of several samples, shapes (boards, samples, inputs) and (boards,
        samples, outputs or 1): then the step follows the mean gradient, and what is returned is the
        sum of the losses and how many classes were correct.
        """
        batch = x if x.ndim == 3 else x[:, None]
        labels = y if y.ndim == 3 else y[:, None]
        values, seen = self._forward(batch)
        loss, error, correct = self._judge(values[-1], labels)
        error = np.clip(error, -self._clip, self._clip) / batch.shape[1]
        first = min(
            i for i, layer in enumerate(self.layers) if layer.local == local and layer.parameters
        )
        for i in range(len(self.layers) - 1, first - 1, -1):
            layer, w = self.layers[i], self.weights[i]
            e = error.reshape(self.boards, -1, layer.outputs)
            if i > first:
                error = self._back(layer, w, e, batch.shape[1])
                if self.layers[i - 1].relu:
                    error = np.where(values[i] > 0, error, 0)
            if layer.local == local and layer.parameters:
                if layer.kind is Kind.DEPTHWISE:
                    change = np.einsum("bpo,bpko->bok", e, seen[i])
                else:
                    change = e.transpose(0, 2, 1) @ seen[i].reshape(*seen[i].shape[:2], -1)
                w[:, :, :-1] -= self._rates[i] * change
                w[:, :, -1] -= self._rates[i] * e.sum(axis=1)
        return loss.sum(axis=1) * 2**fixed.LOSS_BITS, correct.sum(axis=1).astype(np.int64)

    def _judge(self, z: Reals, y: Words) -> tuple[Reals, Reals, NDArray[np.bool_]]:
        """Losses, their derivatives, and whether the class leads; a sample each."""
        if self.loss == "mse":
            error = z - y * VALUE
            return (error**2).sum(axis=2), error, np.zeros(z.shape[:2], bool)
        distance = z.max(axis=2, keepdims=True) - z
        weight = np.exp(-distance)
        total = weight.sum(axis=2, keepdims=True)
        error = weight / total
        loss = (np.log(total) + np.take_along_axis(distance, y, axis=2))[:, :, 0]
        np.put_along_axis(error, y, np.take_along_axis(error, y, axis=2) - 1, axis=2)
        return loss, error, z.argmax(axis=2) == y[:, :, 0]

    def _back(self, layer: LayerShape, w: Reals, e: Reals, samples: int) -> Reals:
        """The error of the values below a layer; shape (boards, samples, values)."""
        grid = np.zeros((self.boards * samples, layer.height, layer.width, layer.channels))
        above = (self.boards * samples, layer.rows, layer.columns)
        for tap in range(layer.kernel**2):
            dy, dx = divmod(tap, layer.kernel)
            bottom = dy + layer.stride * (layer.rows - 1) + 1
            right = dx + layer.stride * (layer.columns - 1) + 1
            into = grid[:, dy : bottom : layer.stride, dx : right : layer.stride]
            if layer.kind is Kind.POOL:
                part = e / layer.kernel**2
            elif layer.kind is Kind.DEPTHWISE:
                part = e * w[:, None, :, tap]
            else:
                part = e @ w[:, :, tap * layer.channels : (tap + 1) * layer.channels]
            into += part.reshape(*above, layer.channels)
        limit = self._clip / samples
        return np.clip(grid, -limit, limit).reshape(self.boards, samples, -1)


def _windows(layer: LayerShape, values: Reals) -> Reals:
    """Every window of some samples; shape (boards, samples * pixels, taps, channels)."""
    boards, samples, _ = values.shape
    grid = values.reshape(boards * samples, layer.height, layer.width, layer.channels)
    if layer.kernel > 1:
        size = (layer.kernel, layer.kernel)
        view = np.lib.stride_tricks.sliding_window_view(grid, size, axis=(1, 2))
        view = view[:, :: layer.stride, :: layer.stride]
        grid = np.moveaxis(view, 3, 5)  # samples, rows, columns, kernel, kernel, channels
    else:
        grid = grid[:, :: layer.stride, :: layer.stride]
    pixels = layer.rows * layer.columns
    return grid.reshape(boards, samples * pixels, layer.kernel**2, layer.channels)
