"""The board's engine in numpy, for many boards at once, bit for bit.

Arrays are int64 although every value fits 32 bits: numpy does not warn when an int32 sum wraps. Two
loops take nearly all of the time, and are narrower: dot products are formed in float64, which holds
every integer below 2**53, and products that are shifted one by one in int32, as on a board. A
leading axis runs over boards. The arithmetic is explained in :mod:`protocol.fixed`, the layers in
:mod:`protocol.spec.layers`.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

from protocol import fixed
from protocol.spec.layers import Kind, LayerShape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from protocol.fixed import Words
    from protocol.spec.spec import Spec

_AT_ONCE: Final = 2**16
"""Products formed at a time, of 4 bytes each: a core's cache holds them."""
_TERMS: Final = 2**13
"""Products summed in 32 bits at most: after an update's shift none is above 2**17."""


class Engine:
    """A fleet's networks: ``boards`` copies of the spec's layers, trained in step.

    ``weights[l]`` has shape (boards, outputs, row_size); the last column is the bias.
    """

    def __init__(self, spec: Spec, boards: int) -> None:
        self.layers = spec.layers
        self.loss = spec.model.loss
        self.boards = boards
        self.weights: list[Words] = [
            np.zeros((boards, layer.outputs, layer.row_size), np.int64) for layer in spec.layers
        ]
        plan = spec.plan
        self._clip = plan.clip
        self._rates = [
            plan.rate_local if layer.local else plan.rate_global for layer in spec.layers
        ]
        self._states = np.zeros((len(spec.layers), boards), np.uint64)
        self.saturated = {"activations": 0, "errors": 0, "weights": 0}
        """How many values were brought back into their range so far."""

    def seed(self, seeds: Sequence[int]) -> None:
        """Set each board's generators for stochastic rounding, one a layer."""
        for number in range(len(self.layers)):
            self._states[number] = [fixed.layer_seed(seed, number) for seed in seeds]

    def load(self, parameters: NDArray[np.integer | np.floating], *, local: bool) -> None:
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
        """Values below each layer, and those of the last; shapes (boards, values)."""
        values = [x]
        for layer, w in zip(self.layers, self.weights, strict=True):
            grid = values[-1].reshape(self.boards, layer.height, layer.width, layer.channels)
            if layer.kind is Kind.POOL:
                above = _pool(layer, grid)
            else:
                sums = _sums(layer, grid, w)
                least = 0 if layer.relu else -fixed.ACTIVATION_MAX
                above = self._saturate(np.maximum(sums, least), fixed.ACTIVATION_MAX, "activations")
            values.append(above.reshape(self.boards, -1))
        return values

    def step(self, x: Words, y: Words, *, local: bool) -> tuple[Words, Words]:
        """One online step on the local or the global layers.

        Args:
            x: inputs in activation format, shape (boards, inputs).
            y: labels: values in activation format, shape (boards, outputs), or classes, shape
                (boards, 1).
            local: which side learns; the other stays frozen.

        Returns:
            Each board's loss before the step, in loss format, and whether it predicted the class
            correctly; shapes (boards,).
        """
        values = self.forward(x)
        if self.loss == "mse":
            loss, error = _squared_error(values[-1], y)
            correct = np.zeros_like(loss)
        else:
            loss, error, correct = cross_entropy(values[-1], y)
        error = self._saturate(error, self._clip, "errors")
        first = min(
            i for i, layer in enumerate(self.layers) if layer.local == local and layer.parameters
        )
        for i in range(len(self.layers) - 1, first - 1, -1):
            layer = self.layers[i]
            grid = error.reshape(self.boards, layer.rows, layer.columns, layer.outputs)
            if i > first:
                error = self._back(i, grid, values[i])
            if layer.local == local and layer.parameters:
                self._update(i, grid, values[i])
        return loss, correct

    def _back(self, i: int, error: Words, below: Words) -> Words:
        """The error of the values below layer i: through it, then through their own ReLU."""
        layer = self.layers[i]
        carried = np.zeros((self.boards, layer.height, layer.width, layer.channels), np.int64)
        if layer.kind is Kind.POOL:
            down = 2 * (layer.kernel.bit_length() - 1)
            share = (error + (1 << down >> 1)) >> down
            for dy in range(layer.kernel):
                for dx in range(layer.kernel):
                    _window(layer, carried, dy, dx)[:] = share
        else:
            w = self.weights[i][:, :, :-1]
            shift = layer.error_shift
            if layer.kind is Kind.DEPTHWISE:
                taps = (error[..., None, :] * w.transpose(0, 2, 1)[:, None, None]) >> shift
            else:
                terms = error.reshape(self.boards, -1, layer.outputs).transpose(0, 2, 1)
                taps = _sums_of_shifted(terms, w[:, :, None], shift)
            taps = taps.reshape(self.boards, layer.rows, layer.columns, -1, layer.channels)
            for tap in range(layer.kernel**2):
                into = _window(layer, carried, *divmod(tap, layer.kernel))
                into += taps[:, :, :, tap]
            down = fixed.WEIGHT_BITS - shift
            carried = (carried + (1 << down >> 1)) >> down
        carried = self._saturate(carried.reshape(self.boards, -1), self._clip, "errors")
        if self.layers[i - 1].relu:
            carried = np.where(below != 0, carried, 0)
        return carried

    def _update(self, i: int, error: Words, below: Words) -> None:
        """A step for each pixel and output in turn, with a draw of the layer's generator each."""
        layer, w = self.layers[i], self.weights[i]
        down = fixed.ERROR_BITS[self.loss] + fixed.RATE_BITS - fixed.STEP_BITS
        step = (error * self._rates[i] + (1 << down >> 1)) >> down
        step = np.clip(step, -fixed.STEP_MAX, fixed.STEP_MAX).reshape(
            self.boards, -1, layer.outputs
        )
        draws = step.shape[1] * layer.outputs
        states = _next_states(self._states[i], draws)
        self._states[i] = states[:, -1]
        dither = (states >> np.uint64(32 - fixed.UPDATE_SHIFT)).reshape(step.shape)
        windows = _windows(layer, below.reshape(self.boards, layer.height, layer.width, -1))
        most = (np.abs(step) * np.abs(windows).max(axis=3) >> fixed.UPDATE_SHIFT) + 1
        if (np.abs(w).max(axis=2) + most.sum(axis=1)).max() <= fixed.WEIGHT_MAX:
            # No weight can reach its end on the way: the order of pixels is nothing.
            w -= _sums_of_shifted(step, windows, fixed.UPDATE_SHIFT, dither)
            return
        for pixel in range(step.shape[1]):
            at = slice(pixel, pixel + 1)
            w -= _sums_of_shifted(step[:, at], windows[:, at], fixed.UPDATE_SHIFT, dither[:, at])
            outside = (w < fixed.WEIGHT_MIN) | (w > fixed.WEIGHT_MAX)
            self.saturated["weights"] += int(np.count_nonzero(outside))
            np.clip(w, fixed.WEIGHT_MIN, fixed.WEIGHT_MAX, out=w)

    def _saturate(self, values: Words, most: int, what: str) -> Words:
        outside = np.abs(values) > most
        self.saturated[what] += int(np.count_nonzero(outside))
        return np.clip(values, -most, most)


def _sums_of_shifted(
    left: Words, right: Words, shift: int, dither: NDArray[np.integer] | None = None
) -> Words:
    """Sums over terms of ``(left * right + dither) >> shift``; shape (boards, rows, columns).

    Args:
        left: shape (boards, terms, rows).
        right: shape (boards, terms, rows or 1, columns).
        shift: right, by so many bits.
        dither: shape as that of ``left``.
    """
    (boards, terms, rows), columns = left.shape, right.shape[3]
    sums = np.zeros((boards, rows, columns), np.int64)
    narrow, other = left.astype(np.int32)[..., None], right.astype(np.int32)
    added = None if dither is None else dither.astype(np.int32)[..., None]
    some_terms = min(terms, _TERMS, max(1, _AT_ONCE // (rows * columns)))
    some_boards = max(1, _AT_ONCE // (rows * columns * some_terms))
    for board in range(0, boards, some_boards):
        here = slice(board, board + some_boards)
        for term in range(0, terms, some_terms):
            at = (here, slice(term, term + some_terms))
            product = narrow[at] * other[at]
            if added is not None:
                product += added[at]
            product >>= shift
            sums[here] += product.sum(axis=1, dtype=np.int32)
    return sums


def _window(layer: LayerShape, grid: Words, dy: int, dx: int) -> Words:
    """The pixel (dy, dx) of every window, as a view; shape (boards, rows, columns, channels)."""
    bottom = dy + layer.stride * (layer.rows - 1) + 1
    right = dx + layer.stride * (layer.columns - 1) + 1
    return grid[:, dy : bottom : layer.stride, dx : right : layer.stride]


def _taps(layer: LayerShape, grid: Words) -> Words:
    """Every window; shape (boards, rows, columns, kernel, kernel, channels)."""
    k = layer.kernel
    parts = [[_window(layer, grid, dy, dx) for dx in range(k)] for dy in range(k)]
    return np.stack([np.stack(row, axis=3) for row in parts], axis=3)


def _windows(layer: LayerShape, grid: Words) -> Words:
    """What each row of weights meets, then the one that the bias meets.

    Shape (boards, pixels, 1, row_size), or for depthwise (boards, pixels, channels, row_size).
    """
    taps = _taps(layer, grid)
    pixels = layer.rows * layer.columns
    if layer.kind is Kind.DEPTHWISE:
        rows = np.moveaxis(taps, 5, 3).reshape(len(grid), pixels, layer.channels, -1)
    else:
        rows = taps.reshape(len(grid), pixels, 1, -1)
    one = np.full((*rows.shape[:3], 1), 1 << fixed.ACTIVATION_BITS, np.int64)
    return np.concatenate([rows, one], axis=3)


def _sums(layer: LayerShape, grid: Words, w: Words) -> Words:
    """Dot products of windows and rows of weights, in groups; each group's sum is shifted."""
    windows = _windows(layer, grid)
    # Doubles hold the sums exactly, scaled by a power of two as well; floor is the shift.
    values = windows.astype(np.float64) * 2.0**-layer.dot_shift
    rows = w.astype(np.float64)
    total = np.floor(values[..., -1] * rows[:, None, :, -1])
    for segment in range(layer.kernel):
        for start in range(0, layer.segment, fixed.GROUP):
            first = segment * layer.segment + start
            group = slice(first, min(first + fixed.GROUP, (segment + 1) * layer.segment))
            if layer.kind is Kind.DEPTHWISE:
                dots = np.einsum("bpci,bci->bpc", values[..., group], rows[..., group])
            else:
                dots = values[:, :, 0, group] @ rows[..., group].transpose(0, 2, 1)
            total += np.floor(dots, out=dots)
    down = fixed.WEIGHT_BITS - layer.dot_shift
    return (total.astype(np.int64) + (1 << down >> 1)) >> down


def _pool(layer: LayerShape, grid: Words) -> Words:
    """Means of windows, rounded."""
    down = 2 * (layer.kernel.bit_length() - 1)
    mean: Words = (_taps(layer, grid).sum(axis=(3, 4)) + (1 << down >> 1)) >> down
    return mean


def _squared_error(z: Words, y: Words) -> tuple[Words, Words]:
    """Squared error in loss format, and the derivative of half of it."""
    bits = fixed.ERROR_BITS["mse"]
    error = (z - y) << (bits - fixed.ACTIVATION_BITS)
    error = np.clip(error, -fixed.ERROR_MAX, fixed.ERROR_MAX)
    loss = ((error * error) >> (2 * bits - fixed.LOSS_BITS)).sum(axis=1)
    return loss, error


def cross_entropy(z: Words, classes: Words) -> tuple[Words, Words, Words]:
    """Cross-entropy of softmax in loss format, its derivative, and whether the class leads."""
    bits = fixed.ERROR_BITS["cross_entropy"]
    distance = z.max(axis=1, keepdims=True) - z
    weight = fixed.exp_of_minus(distance)
    total = weight.sum(axis=1, keepdims=True)
    error = ((weight << bits) + (total >> 1)) // total
    own = np.take_along_axis(error, classes, axis=1) - (1 << bits)
    np.put_along_axis(error, classes, own, axis=1)
    far = np.take_along_axis(distance, classes, axis=1)
    loss = fixed.log_of(total) + (far << (fixed.LOSS_BITS - fixed.ACTIVATION_BITS))
    correct = z.argmax(axis=1) == classes[:, 0]
    return loss[:, 0], error, correct.astype(np.int64)


def _next_states(states: NDArray[np.uint64], count: int) -> NDArray[np.uint64]:
    """Each generator's next ``count`` states; shape (boards, count)."""
    multipliers, increments = _powers(count)
    return (states[:, None] * multipliers + increments) & np.uint64(0xFFFFFFFF)


@cache
def _powers(count: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Multipliers and increments that lead to the generator's next ``count`` states at once."""
    multiplier, increment = 1, 0
    pairs = []
    for _ in range(count):
        multiplier = multiplier * fixed.LCG_MULTIPLIER & 0xFFFFFFFF
        increment = (increment * fixed.LCG_MULTIPLIER + fixed.LCG_INCREMENT) & 0xFFFFFFFF
        pairs.append((multiplier, increment))
    multipliers, increments = np.array(pairs, np.uint64).T
    return multipliers, increments
