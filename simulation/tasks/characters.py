"""Telling Omniglot's characters apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from protocol import fixed
from simulation.errors import DataError
from simulation.tasks.base import Skew, Tasks, classes_of, halves

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from protocol.fixed import Words
    from protocol.spec.spec import Spec
    from simulation.tasks.omniglot import Omniglot


@dataclass(frozen=True)
class CharacterTasks(Tasks):
    """A board learns to tell a few characters apart, other ones in each round.

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
    alphabets: tuple[NDArray[np.int64], ...] = ()
    """Where boards write one alphabet each, the characters of each; board b has alphabet b modulo
    their number."""
    skew: Skew | None = None

    @classmethod
    def of(
        cls,
        spec: Spec,
        data: Omniglot,
        *,
        turned: bool,
        by_alphabet: bool = False,
        skew: Skew | None = None,
    ) -> CharacterTasks:
        """Tasks for a spec whose inputs are a square of pixels.

        Raises:
            DataError: the data do not say what is of which alphabet, or no alphabet has as many
                characters as a task.
        """
        small = data.reduced(spec.layers[0].height)
        drawings = fixed.to_activation(small)
        training = spec.training
        ways = spec.layers[-1].outputs
        if ways > len(drawings):
            raise DataError(f"{len(drawings)} characters, but a task has {ways} (the outputs)")
        alphabets = data.alphabets() if by_alphabet else ()
        large = tuple(alphabet for alphabet in alphabets if len(alphabet) >= ways)
        if by_alphabet and not large:
            raise DataError(f"no alphabet has {ways} characters, as many as a task has")
        return cls(drawings, ways, training.support, training.query, turned, large, skew)

    def samples(self, board: int, round_: int, rng: np.random.Generator) -> tuple[Words, Words]:
        """Other characters in each round."""
        del round_
        known = np.arange(len(self.drawings))
        if self.alphabets:
            known = self.alphabets[board % len(self.alphabets)]
        characters = rng.choice(known, self.ways, replace=False)
        turns = rng.integers(4 if self.turned else 1, size=self.ways)
        orders = [rng.permutation(self.drawings.shape[1]) for _ in characters]
        support, query = (
            classes_of(rng, self.ways, samples, board, self.skew)
            for samples in (self.support, self.query)
        )
        y = np.concatenate([support, query])
        x = [
            np.rot90(self.drawings[characters[way], drawing], turns[way]).ravel()
            for way, drawing in zip(y, halves(orders, support, query), strict=True)
        ]
        return np.array(x), y[:, None]

    @property
    def pooled_outputs(self) -> int:
        """The characters."""
        return len(self.drawings)

    def pooled(self, rng: np.random.Generator, samples: int) -> tuple[Words, Words]:
        """Drawings, and which character it is; none is turned."""
        characters = rng.integers(len(self.drawings), size=samples)
        drawings = self.drawings[characters, rng.integers(self.drawings.shape[1], size=samples)]
        return drawings.reshape(samples, -1), characters[:, None]
