"""What boards are asked to learn: tasks of support samples, then query samples, drawn at random.

A draw is a pair ``x, y``: activations of shape (samples, boards, inputs), and labels likewise or
classes of shape (samples, boards, 1), as :meth:`simulation.engine.Engine.step` takes them one after
the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from protocol import fixed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from protocol.fixed import Words
    from protocol.spec import Spec
    from simulation.data.keywords import Keywords
    from simulation.data.omniglot import Omniglot


class Tasks(Protocol):
    """Where tasks come from."""

    def draw(self, rng: np.random.Generator, boards: int) -> tuple[Words, Words]:
        """A task for each board."""


@dataclass(frozen=True)
class SineTasks:
    """Sines of amplitude 0.1 to 5 and any phase, x from -5 to 5: the paper's first task."""

    samples: int
    """Of a task, support and query."""

    @classmethod
    def of(cls, spec: Spec) -> SineTasks:
        """Tasks for a spec of one input and one output."""
        return cls(spec.training.support + spec.training.query)

    def draw(self, rng: np.random.Generator, boards: int) -> tuple[Words, Words]:
        """Another sine for each board."""
        x = rng.uniform(-5, 5, (self.samples, boards, 1))
        amplitude = rng.uniform(0.1, 5, (boards, 1))
        phase = rng.uniform(0, 2 * np.pi, (boards, 1))
        return fixed.to_activation(x), fixed.to_activation(amplitude * np.sin(x + phase))


def _shuffled(rng: np.random.Generator, classes: int, samples: int) -> NDArray[np.int64]:
    """Classes for so many samples: of each as many as of the others, or one more; shuffled."""
    return rng.permutation(np.resize(rng.permutation(classes), samples))


@dataclass(frozen=True)
class CharacterTasks:
    """A board learns to tell a few characters apart that no other board has.

    No drawing is in both halves of a task. Vinyals et al., "Matching Networks for One Shot
    Learning", 2016; characters turned by right angles are other characters, as in Santoro et al.,
    "Meta-Learning with Memory-Augmented Neural Networks", 2016.
    """

    drawings: Words
    """Shape (characters, drawings, side, side)."""
    ways: int
    """Characters in a task; which class is which is up to the board."""
    support: int
    query: int
    turned: bool = False

    @classmethod
    def of(cls, spec: Spec, data: Omniglot, *, turned: bool) -> CharacterTasks:
        """Tasks for a spec whose inputs are a square of pixels."""
        small = data.reduced(spec.layers[0].height)
        drawings = fixed.to_activation(small)
        training = spec.training
        ways = spec.layers[-1].outputs
        return cls(drawings, ways, training.support, training.query, turned)

    def draw(self, rng: np.random.Generator, boards: int) -> tuple[Words, Words]:
        """A task for each board."""
        drawn = [self._task(rng) for _ in range(boards)]
        x, y = (np.stack(parts, axis=1) for parts in zip(*drawn, strict=True))
        return x, y[..., None]

    def _task(self, rng: np.random.Generator) -> tuple[Words, Words]:
        characters = rng.choice(len(self.drawings), self.ways, replace=False)
        turns = rng.integers(4 if self.turned else 1, size=self.ways)
        mine = [
            np.rot90(self.drawings[character], turn, axes=(1, 2))
            for character, turn in zip(characters, turns, strict=True)
        ]
        orders = [rng.permutation(len(drawings)) for drawings in mine]
        y = np.concatenate(
            [_shuffled(rng, self.ways, samples) for samples in (self.support, self.query)]
        )
        seen = [0] * self.ways
        x = []
        for way in y:
            x.append(mine[way][orders[way][seen[way]]].ravel())
            seen[way] += 1
        return np.array(x), y


@dataclass(frozen=True)
class SpeakerTasks:
    """A board lives in a home, and learns the keywords that it is to know there.

    Which keywords these are, and which is which class, is up to the home. No clip is in both halves
    of a task. Half of the public speakers said most keywords once, so that there would be nothing
    to ask a home of one: homes are of several, or of one who said the keywords twice.
    """

    features: Words
    """Shape (versions, clips, values): a clip may be heard in several versions."""
    keyword: NDArray[np.int64]
    """Shape (clips,)."""
    speaker: NDArray[np.int64]
    """Shape (clips,)."""
    voices: int
    """Speakers in a home."""
    ways: int
    """Keywords of a home."""
    support: int
    query: int

    @classmethod
    def of(cls, spec: Spec, data: Keywords, features: Words, *, voices: int) -> SpeakerTasks:
        """Tasks for a spec; ``features`` are those of the data's clips."""
        flat = features.reshape(*features.shape[:2], -1)
        training, ways = spec.training, spec.layers[-1].outputs
        return cls(flat, data.keyword, data.speaker, voices, ways, training.support, training.query)

    def draw(self, rng: np.random.Generator, boards: int) -> tuple[Words, Words]:
        """A task for each board."""
        drawn = [self._task(rng) for _ in range(boards)]
        x, y = (np.stack(parts, axis=1) for parts in zip(*drawn, strict=True))
        return x, y[..., None]

    def _task(self, rng: np.random.Generator) -> tuple[Words, Words]:
        said = self._home(rng)
        x, y = [], []
        for half, samples in ((0, self.support), (1, self.query)):
            for way in _shuffled(rng, self.ways, samples):
                clip = rng.choice(said[way][half::2])
                x.append(self.features[rng.integers(len(self.features)), clip])
                y.append(way)
        return np.array(x), np.array(y)

    def _home(self, rng: np.random.Generator) -> list[NDArray[np.int64]]:
        """The clips of each keyword in a home where each was said twice, in random order."""
        while True:
            home = rng.choice(self.speaker.max() + 1, self.voices, replace=False)
            keywords = rng.choice(self.keyword.max() + 1, self.ways, replace=False)
            clips = rng.permutation(np.flatnonzero(np.isin(self.speaker, home)))
            said = [clips[self.keyword[clips] == keyword] for keyword in keywords]
            if min(len(few) for few in said) >= 2:
                return said
