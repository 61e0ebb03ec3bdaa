"""Nothing in the three kernels can leave 32 bits, whatever the data; and rounding has no bias.

The largest layers that a spec allows are also trained at these extremes on boards whose words have
32 bits: see test_bit_exact.py.
"""

import numpy as np
import pytest

from protocol import fixed
from simulation.engine import _lcg_powers

WEIGHT = -fixed.WEIGHT_MIN
FITS = 2**31
INPUTS = [1, 7, 8, 63, 64, 127, 1000, 4095, 16383, fixed.MAX_INPUTS]
OUTPUTS = [1, 2, 3, 64, 65, 1000, 1025, fixed.MAX_OUTPUTS]


@pytest.mark.parametrize("inputs", INPUTS)
def test_no_dot_product_leaves_32_bits(inputs: int) -> None:
    group = fixed.GROUP * WEIGHT * fixed.ACTIVATION_MAX
    assert group < FITS
    shift = fixed.dot_shift(inputs)
    groups = -(-(inputs + 1) // fixed.GROUP)  # The bias is one more input.
    down = fixed.WEIGHT_BITS - shift
    assert down >= 0
    most = groups * (group >> shift)
    least = groups * (-group >> shift)
    assert most + (1 << down >> 1) < FITS
    assert least >= -FITS


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_no_error_carried_back_leaves_32_bits(outputs: int) -> None:
    product = WEIGHT * fixed.ERROR_MAX
    assert product < FITS
    shift = fixed.error_shift(outputs)
    down = fixed.WEIGHT_BITS - shift
    assert down >= 1
    assert outputs * (product >> shift) + (1 << down >> 1) < FITS
    assert outputs * (-product >> shift) >= -FITS


def test_no_step_leaves_32_bits() -> None:
    rate = fixed.to_rate(1)
    half = 1 << fixed.ERROR_BITS + fixed.RATE_BITS - fixed.STEP_BITS - 1
    assert fixed.ERROR_MAX * rate + half < FITS
    dither = 2**fixed.UPDATE_SHIFT - 1
    assert fixed.STEP_MAX * fixed.ACTIVATION_MAX + dither < FITS
    change = (fixed.STEP_MAX * fixed.ACTIVATION_MAX + dither) >> fixed.UPDATE_SHIFT
    assert WEIGHT + change < FITS


def test_no_sum_of_losses_leaves_32_bits() -> None:
    # A spec keeps samples times outputs below 2048: see test_spec.py.
    assert 2047 * (fixed.ERROR_MAX**2 >> 2 * fixed.ERROR_BITS - fixed.LOSS_BITS) < FITS


def test_a_wider_layer_would_not_do() -> None:
    assert fixed.dot_shift(fixed.MAX_INPUTS) == fixed.WEIGHT_BITS
    assert fixed.dot_shift(fixed.MAX_INPUTS + 1) > fixed.WEIGHT_BITS
    assert fixed.error_shift(fixed.MAX_OUTPUTS) == fixed.WEIGHT_BITS - 1
    assert fixed.error_shift(fixed.MAX_OUTPUTS + 1) > fixed.WEIGHT_BITS - 1


@pytest.mark.parametrize("product", [0, 1, -1, 4095, 4096, -4097, 8191, 8192, -8193, 10**6 + 1])
def test_stochastic_rounding_has_no_bias(product: int) -> None:
    # Over all that a draw can be, the mean of the changes is the exact change.
    dither = np.arange(2**fixed.UPDATE_SHIFT)
    assert ((product + dither) >> fixed.UPDATE_SHIFT).sum() == product


def test_the_draws_are_even() -> None:
    draws = fixed.lcg(12345, 2**16) >> np.uint32(32 - fixed.UPDATE_SHIFT)
    counts = np.bincount(draws // 512, minlength=16)  # 4096 expected in each; deviation 62.
    assert np.abs(counts - 4096).max() < 5 * 62
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.02


def test_many_draws_at_once_are_those_of_one_after_the_other() -> None:
    multipliers, increments = _lcg_powers(50)
    at_once = (np.uint64(99) * multipliers + increments) & np.uint64(2**32 - 1)
    assert at_once.tolist() == fixed.lcg(99, 50).tolist()


def test_starting_weights_fill_their_range() -> None:
    limit = 1000
    weights = fixed.uniform_weights(7, [limit] * 5000).astype(int)
    assert weights.min() == -limit
    assert weights.max() == limit - 1
    assert abs(weights.mean()) < 5 * limit / np.sqrt(3 * 5000)


def test_activations_saturate_and_round_halves_away_from_zero() -> None:
    unit = 2.0**-fixed.ACTIVATION_BITS
    values = np.array([0.5, 1.49, 1.5, -0.5, -1.5, 0.49, 2**20, -(2**20)]) * unit
    expected = [1, 1, 2, -1, -2, 0, fixed.ACTIVATION_MAX, -fixed.ACTIVATION_MAX]
    assert fixed.to_activation(values).tolist() == expected


def test_a_small_rate_is_still_one() -> None:
    assert fixed.to_rate(1e-9) == 1
    assert fixed.to_rate(0.5) == 2**14
