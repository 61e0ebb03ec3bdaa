"""The cross-entropy of classes: its derivative by the network's outputs, in viper."""

import micropython
from micropython import const

_WIDE = const(0)  # see kernels.py

# The table of a loss.
_COUNT = const(0)  # outputs
_LOSS = const(1)  # sum
_CORRECT = const(2)  # samples whose class was correct
_LOSS_CLIP = const(3)  # largest error

_ACTIVATION_MAX = const(8191)


@micropython.viper
def derive(z: ptr32, y: ptr32, error: ptr32, t: ptr32):
    """The derivative of softmax and cross-entropy; y[0] is the class.

    The loss is added to t[_LOSS], and t[_CORRECT] counts where the largest output is the class. The
    exponential and the logarithm are those of the host's ``protocol/fixed.py``.
    """
    count = t[_COUNT]
    label = y[0]
    most = 0 - _ACTIVATION_MAX
    best = 0
    i = 0
    while i < count:
        v = z[i]
        if _WIDE:
            v = (v << 32) >> 32
        if v > most or i == 0:
            most = v
            best = i
        i += 1
    if best == label:
        t[_CORRECT] += 1
    total = 0
    far = 0
    i = 0
    while i < count:
        v = z[i]
        if _WIDE:
            v = (v << 32) >> 32
        v = most - v
        if i == label:
            far = v
        v = v * 47274 >> 10
        f = v & 16383
        c = 1298 * f >> 14
        c = (7579 - c) * f >> 14
        c = (22665 - c) * f >> 14
        c = 32768 - c
        v >>= 14
        if v < 16:
            c >>= v
        else:
            c = 0
        error[i] = c
        total += c
        i += 1
    clip = t[_LOSS_CLIP]
    half = total >> 1
    i = 0
    while i < count:
        e = ((error[i] << 14) + half) // total
        if i == label:
            e -= 16384
        if e > clip:
            e = clip
        elif e < 0 - clip:
            e = 0 - clip
        error[i] = e
        i += 1
    power = 0
    while total > 65535:
        total >>= 1
        power += 1
    f = total - 32768
    c = 5217 * f >> 15
    c = (19074 - c) * f >> 15
    c = (46624 - c) * f >> 15
    t[_LOSS] += ((((power << 15) + c) >> 3) * 22713 >> 15) + (far << 3)
