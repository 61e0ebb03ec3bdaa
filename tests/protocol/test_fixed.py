"""Nothing in any kernel can leave 32 bits, whatever the data; and rounding has no bias.

The largest layers that a spec allows are also trained at these extremes on boards whose words have
32 bits: see test_bit_exact.py.
"""

import numpy as np
import pytest

from protocol import fixed
from protocol.spec.layers import Kind, LayerShape
from simulation.engine.fixed import _next_states

WEIGHT = -fixed.WEIGHT_MIN
FITS = 2**31
INPUTS = [1, 7, 8, 63, 64, 127, 1000, 4095, 16383, fixed.MAX_INPUTS]
OUTPUTS = [1, 2, 3, 64, 65, 1000, 1025, fixed.MAX_OUTPUTS]


def dense(inputs: int, outputs: int) -> LayerShape:
    return LayerShape(Kind.SUMS, 1, 1, inputs, outputs, 1, 1, relu=False, local=False)


def conv(channels: int, outputs: int, kernel: int = 3, stride: int = 1) -> LayerShape:
    return LayerShape(Kind.SUMS, 9, 9, channels, outputs, kernel, stride, relu=False, local=False)


def depthwise(stride: int) -> LayerShape:
    return LayerShape(Kind.DEPTHWISE, 9, 9, 5, 5, 3, stride, relu=False, local=False)


def spec_allows(shape: LayerShape) -> bool:
    return shape.dot_shift <= fixed.WEIGHT_BITS and shape.error_shift < fixed.WEIGHT_BITS


# The largest of each kind that a spec allows, and some that are in no way round.
WIDE_CONV = 3640  # Channels: 3 segments of 1,365 groups each, and the bias, are 4,096.
LAYERS = [
    *(dense(inputs, 1) for inputs in INPUTS),
    *(dense(1, outputs) for outputs in OUTPUTS),
    *(conv(1, 2048, 1), conv(fixed.MAX_INPUTS, 1, 1), conv(7, 9, 1, 2)),
    *(conv(1, 1), conv(3, 8), conv(WIDE_CONV, 1), conv(1, 227), conv(5, 512, 3, 2)),
    *(conv(2, 2048, 3, 3), conv(2, 2048, 3, 8)),
    *(depthwise(stride) for stride in (1, 2, 3, 8)),
]


def name(shape: LayerShape) -> str:
    return (
        f"{shape.kind.name} {shape.channels} to {shape.outputs}, "
        f"{shape.kernel}x{shape.kernel}/{shape.stride}"
    )


layers = pytest.mark.parametrize("layer", LAYERS, ids=name)


@layers
def test_no_dot_product_leaves_32_bits(layer: LayerShape) -> None:
    assert spec_allows(layer)
    # Each segment's products, in groups of eight, at their most; then the bias, which meets a one.
    sums = [
        min(fixed.GROUP, layer.segment - start) * WEIGHT * fixed.ACTIVATION_MAX
        for _ in range(layer.kernel)
        for start in range(0, layer.segment, fixed.GROUP)
    ]
    sums.append(WEIGHT << fixed.ACTIVATION_BITS)
    assert max(sums) < FITS
    down = fixed.WEIGHT_BITS - layer.dot_shift
    half = 1 << down >> 1
    assert sum(one >> layer.dot_shift for one in sums) + half < FITS
    assert sum(-one >> layer.dot_shift for one in sums) >= -FITS


@layers
def test_no_error_carried_back_leaves_32_bits(layer: LayerShape) -> None:
    product = WEIGHT * fixed.ERROR_MAX
    assert product < FITS
    # How many windows really meet in a value of a 9 x 9 grid, at the most.
    starts = range(0, layer.height - layer.kernel + 1, layer.stride)
    overlap = max(
        sum(start <= at < start + layer.kernel for start in starts) for at in range(layer.height)
    )
    meet = overlap**2 * (1 if layer.kind is Kind.DEPTHWISE else layer.outputs)
    down = fixed.WEIGHT_BITS - layer.error_shift
    assert down >= 1
    assert meet * (product >> layer.error_shift) + (1 << down >> 1) < FITS
    assert meet * (-product >> layer.error_shift) >= -FITS


def test_no_pool_leaves_32_bits() -> None:
    assert 16 * fixed.ACTIVATION_MAX + 8 < FITS  # Above, a sum of 4 x 4;
    assert fixed.ERROR_MAX + 8 < FITS  # back, shares of windows that do not overlap.


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_no_step_leaves_32_bits(loss: str) -> None:
    rate = fixed.to_rate(1)
    half = 1 << fixed.ERROR_BITS[loss] + fixed.RATE_BITS - fixed.STEP_BITS - 1
    assert fixed.ERROR_MAX * rate + half < FITS
    dither = 2**fixed.UPDATE_SHIFT - 1
    assert fixed.STEP_MAX * fixed.ACTIVATION_MAX + dither < FITS
    change = (fixed.STEP_MAX * fixed.ACTIVATION_MAX + dither) >> fixed.UPDATE_SHIFT
    assert WEIGHT + change < FITS


def test_no_sum_of_squared_errors_leaves_32_bits() -> None:
    # A spec keeps samples times outputs below 2048: see test_spec.py.
    bits = fixed.ERROR_BITS["mse"]
    assert 2047 * (fixed.ERROR_MAX**2 >> 2 * bits - fixed.LOSS_BITS) < FITS


def test_no_cross_entropy_leaves_32_bits() -> None:
    classes, far = fixed.MAX_OUTPUTS, 2 * fixed.ACTIVATION_MAX
    total = classes << 15
    assert far * 47274 < FITS  # Into powers of two,
    cubic = 22665 << 14
    assert cubic < FITS
    assert (32768 << fixed.ERROR_BITS["cross_entropy"]) + (total >> 1) < FITS  # a probability,
    logarithm = ((11 << 15) + 32768 >> 3) * 22713  # of up to 2**11 classes,
    assert logarithm < FITS
    assert classes <= 2**11
    most = int(fixed.log_of(np.array([total]))[0]) + (far << 3)
    assert 2047 * most < FITS  # and the sum of a phase.


def test_a_larger_layer_would_not_do() -> None:
    for fits, does_not in (
        (dense(fixed.MAX_INPUTS, 1), dense(fixed.MAX_INPUTS + 1, 1)),
        (dense(1, fixed.MAX_OUTPUTS), dense(1, fixed.MAX_OUTPUTS + 1)),
        (conv(WIDE_CONV, 1), conv(WIDE_CONV + 1, 1)),
        (conv(1, 227), conv(1, 228)),
        (conv(1, 512, 3, 2), conv(1, 513, 3, 2)),
    ):
        assert spec_allows(fits), name(fits)
        assert not spec_allows(does_not), name(does_not)


# --- The exponential and the logarithm


def test_the_exponential_is_within_five_units() -> None:
    distances = np.arange(2 * fixed.ACTIVATION_MAX + 1)  # All that there are.
    found = fixed.exp_of_minus(distances)
    exact = 2**15 * np.exp(-distances / 2**fixed.ACTIVATION_BITS)
    assert np.abs(found - exact).max() < 5
    assert found[0] == 2**15
    assert (np.diff(found) <= 0).all()  # A larger output is never less probable.
    assert found.min() == 0


def test_the_logarithm_is_within_five_units() -> None:
    # Sums of 1 to 2,048 exponentials of which one is 1.
    rng = np.random.default_rng(1)
    ends = np.array([2**15 << power for power in range(12)])
    totals = np.concatenate(
        [ends, ends[1:] - 1, ends + 1, rng.integers(2**15, 2**26, 20_000), 2**15 + np.arange(2**16)]
    )
    exact = 2**fixed.LOSS_BITS * np.log(totals / 2**15)
    assert np.abs(fixed.log_of(totals) - exact).max() < 5
    assert int(fixed.log_of(np.array([2**15]))[0]) == 0  # A certain answer that is right.
    assert fixed.log_of(totals[:100].reshape(4, 25)).shape == (4, 25)


# --- Random numbers


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


def test_layers_draw_apart() -> None:
    # Ten layers, a thousand draws each: no generator comes to where another one has been.
    seen = [set(fixed.lcg(fixed.layer_seed(7, layer), 1000).tolist()) for layer in range(10)]
    assert len(set.union(*seen)) == 10_000
    assert fixed.layer_seed(2**32 - 1, 0) == 0x2545F490
    draws = [fixed.lcg(fixed.layer_seed(7, layer), 1000) >> np.uint32(19) for layer in (0, 1)]
    assert abs(np.corrcoef(draws[0], draws[1])[0, 1]) < 0.1


def test_many_generators_at_once_are_each_on_its_own() -> None:
    seeds = [99, 2**32 - 1]
    at_once = _next_states(np.array(seeds, np.uint64), 50)
    assert at_once.tolist() == [fixed.lcg(seed, 50).tolist() for seed in seeds]


def test_starting_weights_fill_their_range() -> None:
    limit = 1000
    weights = fixed.uniform_weights(7, [limit] * 5000).astype(int)
    assert weights.min() == -limit
    assert weights.max() == limit - 1
    assert abs(weights.mean()) < 5 * limit / np.sqrt(3 * 5000)


# --- From real numbers


def test_activations_saturate_and_round_halves_away_from_zero() -> None:
    unit = 2.0**-fixed.ACTIVATION_BITS
    values = np.array([0.5, 1.49, 1.5, -0.5, -1.5, 0.49, 2**20, -(2**20)]) * unit
    expected = [1, 1, 2, -1, -2, 0, fixed.ACTIVATION_MAX, -fixed.ACTIVATION_MAX]
    assert fixed.to_activation(values).tolist() == expected


def test_a_small_rate_is_still_one() -> None:
    assert fixed.to_rate(1e-9) == 1
    assert fixed.to_rate(0.5) == 2**14


def test_a_clip_is_in_the_units_of_its_loss() -> None:
    assert fixed.to_error(1.0, "mse") == 2**11
    assert fixed.to_error(1.0, "cross_entropy") == 2**14
    assert fixed.to_error(16.0, "mse") == fixed.to_error(16.0, "cross_entropy") == fixed.ERROR_MAX
