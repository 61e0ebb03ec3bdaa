"""Features of one second of speech, as a board computes them: log-mel in fixed point.

Each frame of :data:`WINDOW` samples becomes one row of :data:`BANDS` words:

1. its mean is taken off (a sensor's DC offset), and a Hann window laid over it;
2. a real FFT, as a complex one of half the length (Press et al., *Numerical Recipes*, 2nd ed.,
   12.3). Block floating point: before each stage the frame is shifted right until each of its
   words is at most 2**15, and the exponent of the frame remembers it;
3. the power of each bin, summed under triangles that are evenly spaced in mel (Davis, Mermelstein,
   "Comparison of parametric representations for monosyllabic word recognition", 1980);
4. the binary logarithm of the sum and a floor, so that a silent room is silent.

At the end the mean of all words is taken off, so that it does not matter how loud somebody speaks.

Nothing leaves 32 bits, whatever the samples:

- window: a sample is at most 65408 away from a mean that it is a 512th of, and
  ``65408 * 2**15 + 2**15 < 2**31``;
- a stage: a value's modulus is at most ``sqrt(2) * 2**15``, so its product with a twiddle (modulus
  2**15) is below 2**31 in both parts, and a sum of two values is below 2**17;
- power: with parts of at most 2**14 out of the complex FFT, a bin's modulus is at most 2**15, for
  two bins of the real FFT share the energy of two values;
- band: power is summed in two words, of its high 18 bits and of its low 12; with the triangles'
  weights in 256ths and areas below 31, ``31 * 256 * 2**18 + 2**23 < 2**31``.

``micropython_client/tinymetafed/speech.py`` is the same arithmetic on the board; golden vectors
hold the two together.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from protocol.fixed import Words

RATE: Final = 16000
"""Samples of a clip, and in a second."""
WINDOW: Final = 512
"""Samples of a frame: 32 ms. Frames lie side by side, so that a board keeps one of them."""
FRAMES: Final = RATE // WINDOW
# fmt: off
EDGES: Final = (
    3, 6, 9, 13, 17, 22, 27, 33, 40, 47, 55,
    64, 75, 86, 99, 113, 129, 147, 167, 190, 215, 243,
)
# fmt: on
"""Bins (of 31.25 Hz) where triangles begin, peak and end: mel-spaced, rounded."""
BANDS: Final = len(EDGES) - 2
FLOOR_BITS: Final = 15
"""Logarithm of the floor: that of white noise of 8 units (rms) in the narrowest triangle."""

_HALF: Final = WINDOW // 2
_STAGES: Final = 8
_LEAST_SHIFT: Final = -6
_FRACTION: Final = 40


def sines() -> list[int]:
    """``2**15 * sin(2 pi k / 512)`` for k from 0 to 384; cosines begin at 128.

    By the recurrence ``s[k+1] = 2 cos(2 pi / 512) s[k] - s[k-1]`` in integers of 40 fraction bits:
    the same everywhere, for no machine's floats are asked.
    """
    before, now = 0, 13492699036  # 2**40 * sin(2 pi / 512)
    twice_cosine = 2198857673145  # 2**40 * 2 cos(2 pi / 512)
    half = 1 << _FRACTION - 16
    found = []
    for _ in range(385):
        found.append((before + half) >> _FRACTION - 15)
        before, now = now, (twice_cosine * now >> _FRACTION) - before
    return found


def _tables() -> tuple[Words, Words, Words]:
    """Sines, the Hann window and the order in which the FFT takes its values."""
    sine = np.array(sines())
    cosine = sine[128:]
    window = (32768 - np.concatenate([cosine, cosine[-2:0:-1]])) >> 1
    order = np.zeros(1, np.int64)
    while len(order) < _HALF:
        order = np.concatenate([2 * order, 2 * order + 1])
    return sine, window, order


_SINE, _HANN, _ORDER = _tables()


def features(samples: NDArray[np.int16]) -> Words:
    """Log-mel features of clips, in activation format.

    Args:
        samples: at 16 kHz; shape (clips, RATE).

    Returns:
        Logarithms by 2, divided by 8 so that they vary by about 1, less their mean over the clip;
        shape (clips, FRAMES, BANDS).
    """
    frames = samples[:, : FRAMES * WINDOW].reshape(-1, FRAMES, WINDOW)
    words = _logarithms(*_bands(*_power(*_transform(*_windowed(frames.astype(np.int64))))))
    mean = words.sum(axis=(1, 2), keepdims=True) // (FRAMES * BANDS)
    centred: Words = words - mean
    return centred


def _windowed(frames: Words) -> tuple[Words, Words, Words]:
    """Frames under the window as complex values, real and imaginary; and their exponents."""
    frames = frames - ((frames.sum(axis=-1, keepdims=True) + WINDOW // 2) >> 9)
    shift: Words = np.maximum(_bit_length(_peak(frames)) - 15, _LEAST_SHIFT)
    down = 15 + shift
    frames = (frames * _HANN + (1 << down >> 1)) >> down
    return frames[..., 0::2], frames[..., 1::2], shift


def _peak(*parts: Words) -> Words:
    """A word with all bits that any value of a frame has; shape (..., 1)."""
    bits = [np.bitwise_or.reduce(part ^ (part >> 31), axis=-1, keepdims=True) for part in parts]
    found: Words = np.bitwise_or.reduce(bits)
    return found


def _bit_length(words: Words) -> Words:
    """Bits of words from 0 up."""
    length: Words = np.frexp(words.astype(np.float64))[1].astype(np.int64)
    return length


def _shifted(real: Words, imag: Words, bits: int) -> tuple[Words, Words, Words]:
    """Shift frames right, rounded, until no value has more bits; and by how many they were."""
    shift: Words = np.maximum(_bit_length(_peak(real, imag)) - bits, 0)
    half = np.left_shift(1, shift) >> 1
    return (real + half) >> shift, (imag + half) >> shift, shift


def _transform(real: Words, imag: Words, exponent: Words) -> tuple[Words, Words, Words]:
    """The complex FFT, decimated in time; every stage starts with words of at most 2**15."""
    real, imag = real[..., _ORDER], imag[..., _ORDER]
    for stage in range(_STAGES):
        half = 1 << stage
        real, imag, shift = _shifted(real, imag, 15)
        exponent = exponent + shift
        groups = (*real.shape[:-1], _HALF // (2 * half), 2, half)
        re, im = real.reshape(groups), imag.reshape(groups)
        angle = np.arange(half) * (_HALF // half)
        re, im = _butterfly(re, im, _SINE[angle + 128], _SINE[angle])
        real, imag = re.reshape(real.shape), im.reshape(imag.shape)
    return real, imag, exponent


def _butterfly(re: Words, im: Words, cosine: Words, sine: Words) -> tuple[Words, Words]:
    """Sums and differences of values and turned values; shapes (..., 2, values)."""
    turned_re = (re[..., 1, :] * cosine + im[..., 1, :] * sine + 16384) >> 15
    turned_im = (im[..., 1, :] * cosine - re[..., 1, :] * sine + 16384) >> 15
    re = np.stack([re[..., 0, :] + turned_re, re[..., 0, :] - turned_re], axis=-2)
    im = np.stack([im[..., 0, :] + turned_im, im[..., 0, :] - turned_im], axis=-2)
    return re, im


def _power(real: Words, imag: Words, exponent: Words) -> tuple[Words, Words]:
    """Power of each bin of the real FFT but the first, shape (..., 256); and exponents."""
    real, imag, shift = _shifted(real, imag, 14)
    k = np.arange(1, _HALF // 2 + 1)
    zr, zi, yr, yi = real[..., k], imag[..., k], real[..., _HALF - k], imag[..., _HALF - k]
    even_re, even_im, odd_re, odd_im = zr + yr, zi - yi, zi + yi, yr - zr
    cosine, sine = _SINE[k + 128], _SINE[k]
    turned_re = (odd_re * cosine + odd_im * sine + 16384) >> 15
    turned_im = (odd_im * cosine - odd_re * sine + 16384) >> 15
    power = np.zeros((*real.shape[:-1], _HALF), np.int64)
    for bins, sign in ((k, 1), (_HALF - k, -1)):
        re = (even_re + sign * turned_re + 1) >> 1
        im = (even_im + sign * turned_im + 1) >> 1
        power[..., bins] = re * re + im * im
    return power, exponent + shift


def _bands(power: Words, exponent: Words) -> tuple[Words, Words, Words]:
    """Sums of power under the triangles in two words: 2**12 times the first, and the second.

    Their unit is a 256th of the power's; shapes (..., BANDS).
    """
    sums = np.zeros((2, *power.shape[:-1], BANDS + 2), np.int64)
    for number, (start, end) in enumerate(pairwise(EDGES)):
        weights = 256 * np.arange(end - start) // (end - start)
        inside = power[..., start:end]
        for words, part in zip(sums, (inside >> 12, inside & 4095), strict=True):
            words[..., number + 1] += (part * weights).sum(axis=-1)
            words[..., number] += (part * (256 - weights)).sum(axis=-1)
    high, low = sums[..., 1:-1]
    return high, low, exponent


def _logarithms(high: Words, low: Words, exponent: Words) -> Words:
    """``log2(band / floor + 1) / 8`` in activation format, 0 for silence."""
    floor = FLOOR_BITS + 8 - 2 * exponent
    high = high + np.where(floor >= 12, 1 << np.maximum(floor - 12, 0), 0)
    low = low + np.where(floor < 12, 1 << np.clip(floor, 0, 11), 0)
    is_large = high >= 32768
    total = np.where(is_large, high + (low >> 12), (high << 12) + low)
    power = _bit_length(total) - 16
    mantissa = np.where(power > 0, total >> np.maximum(power, 0), total << np.maximum(-power, 0))
    # The cubic of protocol.fixed.log_of, with 15 fraction bits.
    fraction = mantissa - 32768
    cubic = 5217 * fraction >> 15
    cubic = (19074 - cubic) * fraction >> 15
    cubic = (46624 - cubic) * fraction >> 15
    logarithm = (
        (power + 15 + np.where(is_large, 12, 0) - FLOOR_BITS - 8 + 2 * exponent) << 15
    ) + cubic
    words: Words = (logarithm + 256) >> 9
    return words
