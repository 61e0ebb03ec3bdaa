"""Differential privacy of the model: Gaussian noise on a sum of clipped updates.

McMahan et al., "Learning differentially private recurrent language models", 2018, arXiv 1710.06963.
Each update is clipped to an L2 norm of ``clip`` before it is summed; the sum gets noise of standard
deviation ``noise_multiplier * clip`` in each parameter. So one board's update in one round is
hidden by a Gaussian mechanism of that multiplier, and rounds compose.

What the epsilon says, and what it does not:

* It compares the models with those that would have come had one board's updates all been zero
  (zero-out: Kairouz et al., 2021, arXiv 2103.00039). That a board took part is not hidden: cohorts
  are public, and so is how many answered.
* There is no amplification by sampling. Who is invited follows from names and round numbers that
  anyone knows, so chance hides nobody. A board is taken to have been in every round.
* It is about published models. Updates are plain to the broker, the aggregator and its journal, and
  the losses in the progress are exact.
* Noise is drawn as 64-bit floats (Mironov, 2012, on what that may leak); published are whole weight
  units.
"""

import random
from collections import Counter
from collections.abc import Iterable
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from protocol.errors import SpecError
from protocol.fixed import WEIGHT_BITS
from protocol.spec.strategy import Privacy


def check_accountant(privacy: Privacy | None) -> None:
    """Make sure that what a spec's privacy will cost can be told: before its first round.

    Raises:
        SpecError: the accountant is not installed.
    """
    if privacy is not None and find_spec("dp_accounting") is None:
        raise SpecError(
            "rounds.privacy: needs the accountant, which is not installed here: "
            "pip install 'tinymetafed[privacy]'"
        )


class Noise:
    """Draws the noise on sums.

    Args:
        privacy: the spec's.
        rng: the operating system's generator, whose state nobody can compute back from the models,
            unless a test wants its own.
    """

    def __init__(self, privacy: Privacy, rng: random.Random | None = None) -> None:
        self._deviation = privacy.noise_multiplier * privacy.clip * 2**WEIGHT_BITS
        self._rng = rng or random.SystemRandom()

    def draw(self, parameters: int) -> NDArray[np.float64]:
        """Noise for each parameter, in weight units; shape (parameters,)."""
        return np.array([self._rng.gauss(0.0, self._deviation) for _ in range(parameters)])


class Ledger:
    """What privacy the rounds so far have cost.

    Args:
        noises: the multiplier of each round; None for a round without noise.
    """

    def __init__(self, noises: Iterable[float | None] = ()) -> None:
        self._rounds = Counter(noises)

    def add(self, noise: float | None) -> None:
        """One more round."""
        self._rounds[noise] += 1

    def epsilon(self, delta: float) -> float | None:
        """So that all rounds together are (epsilon, delta)-private; None if one had no noise.

        From Renyi divergences (Mironov, "Renyi differential privacy of the Gaussian mechanism",
        2017): some 7 % above the exact value at epsilon 20, but in a millisecond after any number
        of rounds.
        """
        if None in self._rounds:
            return None
        # The accountant takes over a second to load, and few fleets want it.
        from dp_accounting import GaussianDpEvent  # noqa: PLC0415
        from dp_accounting.rdp import RdpAccountant  # noqa: PLC0415

        accountant = RdpAccountant()
        for noise, rounds in self._rounds.items():
            accountant.compose(GaussianDpEvent(noise), rounds)
        return float(accountant.get_epsilon(delta))
