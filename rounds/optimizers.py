"""How the model follows a round's change.

All but the plain step are of Reddi et al., "Adaptive federated optimization", 2021, arXiv
2003.00295 (FedAdagrad, FedAdam, FedYogi, algorithm 2), and Hsu et al., "Measuring the effects of
non-identical data distribution for federated visual classification", 2019, arXiv 1909.06335
(FedAvgM). Their server learning rate is the round's step, which follows the cosine.

What an optimizer remembers are *moments*, an array of a row or two that belongs to the model and is
saved with it. Changes, movements and moments are in weight values, so that tau has a meaning.
"""

from math import cos, pi
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from protocol.spec.rounds import Rounds
from protocol.spec.strategy import Optimizer as Settings

Floats = NDArray[np.float64]


def cosine_step(rounds: Rounds, round_: int) -> float:
    """The paper's rule: from ``step_max`` in round 0 along half a cosine towards ``step_min``."""
    swing = (rounds.step_max - rounds.step_min) / 2
    return rounds.step_min + swing * (1 + cos(pi * round_ / rounds.count))


class Optimizer(Protocol):
    """A way to follow changes."""

    def start(self, parameters: int) -> Floats:
        """The moments before the first round, shape (rows, parameters)."""

    def move(self, change: Floats, moments: Floats, step: float) -> Floats:
        """How far the model goes, shape (parameters,); the moments take in the change.

        Args:
            change: what the round came to, shape (parameters,).
            moments: changed in place.
            step: the server's learning rate, from 0 up.
        """


class Step:
    """``step`` times the change."""

    def start(self, parameters: int) -> Floats:
        """Nothing to remember."""
        return np.zeros((0, parameters))

    def move(self, change: Floats, moments: Floats, step: float) -> Floats:
        """As :meth:`Optimizer.move`."""
        del moments
        return step * change


class Momentum:
    """FedAvgM: ``v = momentum v + change``, and ``step`` times v."""

    def __init__(self, settings: Settings) -> None:
        self._momentum = settings.momentum

    def start(self, parameters: int) -> Floats:
        """The velocity."""
        return np.zeros((1, parameters))

    def move(self, change: Floats, moments: Floats, step: float) -> Floats:
        """As :meth:`Optimizer.move`."""
        (velocity,) = moments
        velocity *= self._momentum
        velocity += change
        movement: Floats = step * velocity
        return movement


class Adaptive:
    """FedAdagrad, FedAdam and FedYogi: the mean of changes, by the root of their squares and tau.

    They differ in how they hold the squares v: Adagrad sums them up, Adam takes a decaying mean,
    Yogi moves towards the newest square by a share of that square, so v falls slowly.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def start(self, parameters: int) -> Floats:
        """The mean of changes, 0; and of squares, tau squared."""
        moments = np.zeros((2, parameters))
        moments[1] = self._settings.tau**2
        return moments

    def move(self, change: Floats, moments: Floats, step: float) -> Floats:
        """As :meth:`Optimizer.move`."""
        rule, beta1, beta2 = self._settings.rule, self._settings.beta1, self._settings.beta2
        mean, squares = moments
        mean *= beta1
        mean += (1 - beta1) * change
        new = change**2
        if rule == "adagrad":
            squares += new
        elif rule == "adam":
            squares *= beta2
            squares += (1 - beta2) * new
        else:
            squares -= (1 - beta2) * new * np.sign(squares - new)
        movement: Floats = step * mean / (np.sqrt(squares) + self._settings.tau)
        return movement


_RULES: Final[dict[str, type[Momentum | Adaptive]]] = {
    "avgm": Momentum,
    "adagrad": Adaptive,
    "adam": Adaptive,
    "yogi": Adaptive,
}


def optimizer_of(rounds: Rounds) -> Optimizer:
    """The optimizer that a spec asks for."""
    settings = rounds.optimizer
    return Step() if settings.rule == "step" else _RULES[settings.rule](settings)
