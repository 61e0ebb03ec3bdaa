"""The noise has the size that the epsilon speaks of, and the epsilon is no smaller than it is."""

import random
from math import erfc, exp, sqrt

import numpy as np
import pytest

from protocol.fixed import WEIGHT_BITS
from protocol.sparse import LARGEST, Sparse
from protocol.spec.strategy import Privacy
from rounds.combine import Mean
from rounds.privacy import Ledger, Noise
from rounds.sums import PartialSum

PRIVACY = Privacy(clip=0.5, noise_multiplier=2.0, delta=1e-5)
SIZE = 20_000


def total(*updates: Sparse) -> PartialSum:
    result = PartialSum(SIZE, clip=PRIVACY.clip)
    for update in updates:
        result.add_changes(update)
    return result


def test_the_noise_is_on_the_sum_and_as_long_as_the_clip_says() -> None:
    """So on the mean of four it is a fourth of it."""
    update = Sparse(np.arange(100), np.full(100, 7))
    noisy = Mean(Noise(PRIVACY, random.Random(1))).combine([(1.0, total(*[update] * 4))], [])
    assert noisy.change is not None
    noise = noisy.change.copy()
    noise[:100] -= 7
    expected = 2.0 * 0.5 * 2**WEIGHT_BITS / 4
    assert noise.std() == pytest.approx(expected, rel=0.02)
    assert abs(noise.mean()) < 4 * expected / sqrt(SIZE)
    # Of a normal distribution, 4.55 % lies beyond two deviations.
    assert np.mean(np.abs(noise) > 2 * expected) == pytest.approx(0.0455, abs=0.006)


def test_each_draw_is_another_one() -> None:
    """Nothing seeds it: two aggregators, or one that is started again, never repeat a draw."""
    draws = [Noise(PRIVACY).draw(50) for _ in range(2)]
    assert (draws[0] != draws[1]).all()


def test_one_update_moves_the_sum_by_no_more_than_the_clip() -> None:
    """Whatever it sends: this is what the noise is measured by."""
    others = [Sparse(np.arange(9), np.arange(9)), Sparse(np.array([3]), np.array([-LARGEST]))]
    loud = Sparse(np.arange(SIZE), np.full(SIZE, LARGEST))
    with_it, without = total(*others, loud), total(*others)
    moved = np.linalg.norm(with_it.changes - without.changes) * 2.0**-WEIGHT_BITS
    assert 0 < moved <= PRIVACY.clip


def exact_epsilon(noise: float, rounds: int, delta: float) -> float:
    """Of a Gaussian mechanism: Balle and Wang, "Improving the Gaussian mechanism", 2018, theorem 8.

    Rounds compose to one mechanism with a noise smaller by their root.
    """
    mu = sqrt(rounds) / noise

    def cdf(x: float) -> float:
        return erfc(-x / sqrt(2)) / 2

    low, high = 0.0, 1e3
    for _ in range(100):
        middle = (low + high) / 2
        if cdf(mu / 2 - middle / mu) - exp(middle) * cdf(-mu / 2 - middle / mu) > delta:
            low = middle
        else:
            high = middle
    return high


@pytest.mark.parametrize("noise", [1.0, 5.0, 20.0])
@pytest.mark.parametrize("rounds", [1, 30, 300])
def test_epsilon_is_an_upper_bound_and_a_close_one(noise: float, rounds: int) -> None:
    exact = exact_epsilon(noise, rounds, 1e-5)
    told = Ledger([noise] * rounds).epsilon(1e-5)
    assert told is not None
    assert exact <= told <= 1.15 * exact + 0.01


def test_rounds_with_other_noise_add_up() -> None:
    """Gaussians compose: four rounds at twice the noise cost what one costs."""
    ledger = Ledger([4.0] * 4)
    ledger.add(2.0)
    assert ledger.epsilon(1e-5) == pytest.approx(Ledger([2.0, 2.0]).epsilon(1e-5), rel=1e-6)


def test_after_a_round_without_noise_there_is_no_epsilon() -> None:
    ledger = Ledger([5.0])
    ledger.add(None)
    ledger.add(5.0)
    assert ledger.epsilon(1e-5) is None
