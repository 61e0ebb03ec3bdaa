"""What boards are asked to learn: tasks of support samples, then query samples, drawn at random.

A board's samples are a pair ``x, y``: activations of shape (samples, inputs), and labels likewise
or classes of shape (samples, 1). For many boards a second axis runs over them, as
:meth:`simulation.engine.fixed.Engine.step` takes samples one after the other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from protocol.fixed import Words


class Tasks(ABC):
    """Where boards have their samples from."""

    @abstractmethod
    def samples(self, board: int, round_: int, rng: np.random.Generator) -> tuple[Words, Words]:
        """What a board sees in a round.

        Args:
            board: its number. Tasks may be anybody's, or each board's own.
            round_: the round's number, for what changes with time.
            rng: all that is random comes from it.
        """

    def draw(self, rng: np.random.Generator, boards: int, round_: int = 0) -> tuple[Words, Words]:
        """The samples of boards 0, 1, ..., one drawn after the other."""
        return stacked([self.samples(board, round_, rng) for board in range(boards)])


class Pooled(Protocol):
    """Tasks whose samples can be pooled: there is a label that means the same for all boards."""

    @property
    def pooled_outputs(self) -> int:
        """Outputs of a network that learns this label."""

    def pooled(self, rng: np.random.Generator, samples: int) -> tuple[Words, Words]:
        """So many samples of anybody's; shapes (samples, inputs), (samples, values or 1)."""


def stacked(samples: Sequence[tuple[Words, Words]]) -> tuple[Words, Words]:
    """Several boards' samples, which are equally many, as their engine takes them."""
    x, y = (np.stack(parts, axis=1) for parts in zip(*samples, strict=True))
    return x, y


@dataclass(frozen=True)
class Skew:
    """How unlike the boards' shares of classes are, Dirichlet distributed.

    Hsu, Qi, Brown, "Measuring the effects of non-identical data distribution for federated visual
    classification", 2019, arXiv 1909.06335.
    """

    alpha: float
    """Above 0: large, and all boards see each class alike; small, and each sees hardly but one."""
    seed: int = 0

    def shares(self, board: int, classes: int) -> NDArray[np.float64]:
        """What share of a board's samples is of each class, in all rounds; shape (classes,)."""
        rng = np.random.default_rng((self.seed, board))
        return rng.dirichlet(np.full(classes, self.alpha))


def classes_of(
    rng: np.random.Generator, classes: int, samples: int, board: int, skew: Skew | None
) -> NDArray[np.int64]:
    """Classes for so many samples, shuffled.

    Without a skew there are of each as many as of the others, or one more.
    """
    if skew is not None:
        return rng.choice(classes, samples, p=skew.shares(board, classes))
    return rng.permutation(np.resize(rng.permutation(classes), samples))


def halves(
    orders: Sequence[NDArray[np.int64]], support: NDArray[np.int64], query: NDArray[np.int64]
) -> list[np.int64]:
    """An item for each of these classes; none is in both halves.

    Args:
        orders: the items of each class, at least two, shuffled. Where they are too few, they come
            again within a half.
        support: classes of the first half.
        query: classes of the second half.
    """
    items = []
    firsts = np.bincount(support, minlength=len(orders))
    seconds = np.bincount(query, minlength=len(orders))
    ends = [
        first
        if first + second <= len(order)
        else max(min(1, first), len(order) * first // (first + second))
        for order, first, second in zip(orders, firsts, seconds, strict=True)
    ]
    for classes, is_query in ((support, False), (query, True)):
        seen = [0] * len(orders)
        for class_ in classes:
            order, end = orders[class_], ends[class_]
            part = order[end:] if is_query else order[:end]
            items.append(part[seen[class_] % len(part)])
            seen[class_] += 1
    return items
