"""The board's engine in numpy, for many boards at once, bit for bit.

Arrays are int64 although every value fits 32 bits: numpy does not warn when an int32 sum wraps. A
leading axis runs over boards. The arithmetic is explained in :mod:`protocol.fixed`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from protocol import fixed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from protocol.fixed import Words
    from protocol.spec import Spec


class Engine:
    """A fleet's networks: ``boards`` copies of the spec's layers, trained in step.

    ``weights[l]`` has shape (boards, outputs, inputs + 1); the last column is the bias.
    """

    def __init__(self, spec: Spec, boards: int) -> None:
        self.layers = spec.layers
        plan = spec.plan
        self.rates = [plan.rate_local if layer.local else plan.rate_global for layer in spec.layers]
        self.boards = boards
        self.weights: list[Words] = [
            np.zeros((boards, layer.outputs, layer.inputs + 1), np.int64) for layer in spec.layers
        ]
        self.draws = np.zeros(boards, np.uint64)
        self._powers = {layer.outputs: _lcg_powers(layer.outputs) for layer in spec.layers}

    def seed(self, seeds: Sequence[int]) -> None:
        """Set each board's generator for stochastic rounding."""
        self.draws = np.asarray(seeds, np.uint64)

    def load(self, parameters: NDArray[np.int16], *, local: bool) -> None:
        """Set the local or the global parameters of every board, from their flat form."""
        end = 0
        for layer, w in zip(self.layers, self.weights, strict=True):
            if layer.local == local:
                start, end = end, end + layer.parameters
                w[:] = parameters[start:end].reshape(w.shape[1:])

    def flat(self, *, local: bool) -> Words:
        """The local or the global parameters, shape (boards, parameters)."""
        return np.concatenate(
            [
                w.reshape(self.boards, -1)
                for w, layer in zip(self.weights, self.layers, strict=True)
                if layer.local == local
            ],
            axis=1,
        )

    def forward(self, x: Words) -> list[Words]:
        """Activations of every layer, the input first; each with the constant one appended."""
        one = np.full((self.boards, 1), 1 << fixed.ACTIVATION_BITS, np.int64)
        activations = [np.concatenate([x, one], axis=1)]
        for layer, w in zip(self.layers, self.weights, strict=True):
            shift = fixed.dot_shift(layer.inputs)
            z = _dot(w, activations[-1], shift)
            down = fixed.WEIGHT_BITS - shift
            z = (z + ((1 << down) >> 1)) >> down
            z = np.clip(z, -fixed.ACTIVATION_MAX, fixed.ACTIVATION_MAX)
            if layer.relu:
                z = np.maximum(z, 0)
            activations.append(np.concatenate([z, one], axis=1))
        return activations

    def step(self, x: Words, y: Words, *, local: bool) -> Words:
        """One online step on the local or the global layers; the loss of each board before it.

        Args:
            x: inputs in activation format, shape (boards, inputs).
            y: labels in activation format, shape (boards, outputs).
            local: which side learns; the other stays frozen.

        Returns:
            Squared error summed over the outputs, in loss format, shape (boards,).
        """
        activations = self.forward(x)
        difference = (activations[-1][:, :-1] - y) << (fixed.ERROR_BITS - fixed.ACTIVATION_BITS)
        error = np.clip(difference, -fixed.ERROR_MAX, fixed.ERROR_MAX)
        loss: Words = ((error * error) >> (2 * fixed.ERROR_BITS - fixed.LOSS_BITS)).sum(axis=1)
        first = min(i for i, layer in enumerate(self.layers) if layer.local == local)
        for i in range(len(self.layers) - 1, first - 1, -1):
            layer, w, a = self.layers[i], self.weights[i], activations[i]
            below = error
            if i > first:
                below = _carry_back(w, error, layer.outputs)
                if self.layers[i - 1].relu:
                    below = np.where(a[:, :-1] > 0, below, 0)
            if layer.local == local:
                self._update(i, error, a)
            error = below
        return loss

    def _update(self, i: int, error: Words, a: Words) -> None:
        down = fixed.ERROR_BITS + fixed.RATE_BITS - fixed.STEP_BITS
        step = (error * self.rates[i] + ((1 << down) >> 1)) >> down
        step = np.clip(step, -fixed.STEP_MAX, fixed.STEP_MAX)
        multiplier, increment = self._powers[error.shape[1]]
        states = (self.draws[:, None] * multiplier + increment) & np.uint64(0xFFFFFFFF)
        self.draws = states[:, -1]
        dither = (states >> np.uint64(32 - fixed.UPDATE_SHIFT)).astype(np.int64)
        change = (step[:, :, None] * a[:, None, :] + dither[:, :, None]) >> fixed.UPDATE_SHIFT
        w = self.weights[i]
        np.clip(w - change, fixed.WEIGHT_MIN, fixed.WEIGHT_MAX, out=w)


def _dot(w: Words, a: Words, shift: int) -> Words:
    """Rows of ``w`` times ``a`` in groups; each group's sum is shifted before it is added."""
    spare = -w.shape[2] % fixed.GROUP
    products = np.pad(w * a[:, None, :], ((0, 0), (0, 0), (0, spare)))
    groups = products.reshape(*w.shape[:2], -1, fixed.GROUP).sum(axis=3)
    total: Words = (groups >> shift).sum(axis=2)
    return total


def _carry_back(w: Words, error: Words, outputs: int) -> Words:
    """The error of the layer below, before its activation."""
    shift = fixed.error_shift(outputs)
    total = ((error[:, :, None] * w[:, :, :-1]) >> shift).sum(axis=1)
    down = fixed.WEIGHT_BITS - shift
    carried: Words = np.clip(
        (total + ((1 << down) >> 1)) >> down, -fixed.ERROR_MAX, fixed.ERROR_MAX
    )
    return carried


def _lcg_powers(count: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Multipliers and increments that give the generator's next ``count`` states at once."""
    multiplier, increment = 1, 0
    multipliers, increments = [], []
    for _ in range(count):
        multiplier = multiplier * fixed.LCG_MULTIPLIER & 0xFFFFFFFF
        increment = (increment * fixed.LCG_MULTIPLIER + fixed.LCG_INCREMENT) & 0xFFFFFFFF
        multipliers.append(multiplier)
        increments.append(increment)
    return np.array(multipliers, np.uint64), np.array(increments, np.uint64)
