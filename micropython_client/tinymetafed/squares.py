"""The mean squared error: its derivative by the network's outputs, in viper."""

import micropython
from micropython import const

_WIDE = const(0)  # see kernels.py

# The table of a loss.
_COUNT = const(0)  # outputs
_LOSS = const(1)  # sum
_LOSS_CLIP = const(3)  # largest error

_ERROR_MAX = const(32767)


@micropython.viper
def derive(z: ptr32, y: ptr32, error: ptr32, t: ptr32):
    """The derivative of half the squared error; the squared error is added to t[_LOSS]."""
    clip = t[_LOSS_CLIP]
    n = t[_COUNT]
    while n:
        d = (z[0] - y[0]) << 2
        if _WIDE:
            d = (d << 32) >> 32
        if d > _ERROR_MAX:
            d = _ERROR_MAX
        elif d < 0 - _ERROR_MAX:
            d = 0 - _ERROR_MAX
        t[_LOSS] += d * d >> 10
        if d > clip:
            d = clip
        elif d < 0 - clip:
            d = 0 - clip
        error[0] = d
        z = ptr32(uint(z) + 4)
        y = ptr32(uint(y) + 4)
        error = ptr32(uint(error) + 4)
        n -= 1
