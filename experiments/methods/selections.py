"""What a board may send of its changes instead of the largest P %: the baselines of Top-P."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from protocol.fixed import Words
    from simulation.boards import Order, Selection

Baseline = Literal["random", "threshold", "periodic"]
_GAIN: Final = 0.5
"""How fast the threshold follows: it halves a wrong share's logarithm in a round, about."""


class Random:
    """P % of the parameters, drawn anew by each board in each round."""

    def __init__(self, percent: float, seed: int) -> None:
        self._percent, self._seed = percent, seed

    def __call__(self, wanted: Words, order: Order) -> NDArray[np.bool_]:
        """Which."""
        chosen = np.zeros(wanted.shape, np.bool_)
        count = -(-wanted.shape[1] * self._percent // 100)
        for row, board in zip(chosen, order.boards, strict=True):
            rng = np.random.default_rng((self._seed, order.round, board))
            row[rng.choice(len(row), int(count), replace=False)] = True
        return chosen


class Threshold:
    """Changes of at least a threshold that all boards share: on average P % of all are sent.

    Who has learned much sends more. The threshold starts where the first round's boards together
    send P %; then it follows from how many entries came, which an aggregator knows.
    """

    def __init__(self, percent: float) -> None:
        self._share = percent / 100
        self._least: float | None = None

    def __call__(self, wanted: Words, order: Order) -> NDArray[np.bool_]:
        """Which."""
        del order
        sizes = np.abs(wanted)
        if self._least is None:
            self._least = max(1.0, float(np.quantile(sizes, 1 - self._share)))
        chosen: NDArray[np.bool_] = sizes >= self._least
        # Where nothing came, as if one entry had; below a weight unit there is nothing to send.
        came = max(1, int(np.count_nonzero(chosen))) / chosen.size
        self._least = max(1.0, self._least * (came / self._share) ** _GAIN)
        return chosen


class Periodic:
    """Everything in each k-th round, k = 100 / P, and nothing in those between."""

    def __init__(self, percent: float) -> None:
        self._every = round(100 / percent)

    def __call__(self, wanted: Words, order: Order) -> NDArray[np.bool_]:
        """All or nothing."""
        return np.full(wanted.shape, order.round % self._every == self._every - 1)


def baseline(name: Baseline, percent: float, seed: int) -> Selection:
    """A selection for one run; ``threshold`` remembers what was sent before.

    Args:
        name: which.
        percent: P, above 0 and up to 100.
        seed: of what is drawn.
    """
    match name:
        case "random":
            return Random(percent, seed)
        case "threshold":
            return Threshold(percent)
        case "periodic":
            return Periodic(percent)
