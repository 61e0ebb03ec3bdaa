"""What boards meet one sample at a time: a task that stays, one that drifts, or tasks in turn.

A drift is incremental for sines, which turn from one into another, and gradual for characters, of
which the new ones come more and more often: see Gama et al., "A survey on concept drift
adaptation", 2014.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from experiments.errors import ExperimentError
from protocol import fixed
from simulation.tasks.characters import CharacterTasks
from simulation.tasks.sines import SineTasks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from experiments.harness.scenario import Samples
    from protocol.fixed import Words

Kind = Literal["stationary", "drifting", "switching"]

EVERY: Final = 72
"""Samples of a task before a switch: batches of 8 end there, those of 32 lie across."""
TASKS: Final = 4
"""Of a stream that switches."""
LENGTH: Final = TASKS * EVERY
TEST_SAMPLES: Final = 25
"""Held out until the stream is over, of the task at its end."""
_HELD_OUT: Final = 5
"""Drawings of a character that no stream has."""


@dataclass(frozen=True, kw_only=True)
class Streams:
    """One a board; the second axis runs over boards, as engines take samples."""

    x: Words
    """Shape (LENGTH, boards, inputs)."""
    y: Words
    """Shape (LENGTH, boards, outputs or 1)."""
    test_x: Words
    """Shape (TEST_SAMPLES, boards, inputs); none of these is in the stream."""
    test_y: Words


def draw(tasks: Samples, kind: Kind, boards: int, rng: np.random.Generator) -> Streams:
    """A stream for each board, each of other tasks.

    Args:
        tasks: sines, or the characters to draw from.
        kind: what becomes of a board's task.
        boards: how many.
        rng: all that is random comes from it.

    Raises:
        TypeError: these tasks have no streams.
        ExperimentError: there are too few characters.
    """
    if isinstance(tasks, SineTasks):
        return _sines(kind, boards, rng)
    if isinstance(tasks, CharacterTasks):
        each = [_characters(tasks, kind, rng) for _ in range(boards)]
        x, y, test_x, test_y = (np.stack(parts, axis=1) for parts in zip(*each, strict=True))
        return Streams(x=x, y=y, test_x=test_x, test_y=test_y)
    raise TypeError(f"there are no streams of {type(tasks).__name__}")


def places(kind: Kind) -> NDArray[np.float64]:
    """Where each sample stands between a board's tasks 0, 1, ...; shape (LENGTH,)."""
    match kind:
        case "stationary":
            return np.zeros(LENGTH)
        case "drifting":
            return np.linspace(0, 1, LENGTH)
        case "switching":
            return np.repeat(np.arange(TASKS, dtype=np.float64), EVERY)


def _sines(kind: Kind, boards: int, rng: np.random.Generator) -> Streams:
    """Amplitudes and phases as those of :class:`SineTasks`, and on straight ways between them."""
    amplitudes = rng.uniform(0.1, 5, (boards, TASKS))
    phases = rng.uniform(0, 2 * np.pi, (boards, TASKS))
    at = np.concatenate([places(kind), np.full(TEST_SAMPLES, places(kind)[-1])])
    amplitude, phase = (
        np.array([np.interp(at, np.arange(TASKS), ends) for ends in each]).T[..., None]
        for each in (amplitudes, phases)
    )
    x = rng.uniform(-5, 5, amplitude.shape)
    inputs, labels = (fixed.to_activation(each) for each in (x, amplitude * np.sin(x + phase)))
    return Streams(
        x=inputs[:LENGTH], y=labels[:LENGTH], test_x=inputs[LENGTH:], test_y=labels[LENGTH:]
    )


def _characters(
    tasks: CharacterTasks, kind: Kind, rng: np.random.Generator
) -> tuple[Words, Words, Words, Words]:
    """One board's. Where there are fewer drawings of a character than samples, they come again."""
    count = TASKS * tasks.ways
    if count > len(tasks.drawings):
        raise ExperimentError(
            f"{len(tasks.drawings)} characters are held out, but a stream takes {count}: give a "
            "larger data set"
        )
    # No character is in two tasks: its drawings are held out for one of them.
    characters = rng.choice(len(tasks.drawings), count, replace=False).reshape(TASKS, -1)
    drawings = tasks.drawings.shape[1]
    orders = rng.permuted(
        np.tile(np.arange(drawings), (TASKS, tasks.ways, 1)),
        axis=2,
    )
    seen = np.zeros((TASKS, tasks.ways), int)
    which = np.floor(places(kind) + rng.random(LENGTH)).astype(int)  # Of a place between, either.
    y = np.concatenate(
        [rng.permutation(np.resize(np.arange(tasks.ways), EVERY)) for _ in range(TASKS)]
    )
    x = []
    for task, way in zip(which.tolist(), y.tolist(), strict=True):
        drawing = orders[task, way, seen[task, way] % (drawings - _HELD_OUT)]
        seen[task, way] += 1
        x.append(tasks.drawings[characters[task, way], drawing].ravel())
    last = int(places(kind)[-1])
    test_y = np.resize(np.arange(tasks.ways), TEST_SAMPLES)
    test_x = [
        tasks.drawings[characters[last, way], orders[last, way, -1 - n // tasks.ways % _HELD_OUT]]
        for n, way in enumerate(test_y.tolist())
    ]
    return np.array(x), y[:, None], np.array(test_x).reshape(TEST_SAMPLES, -1), test_y[:, None]
