"""Depthwise convolutions, which keep channels apart, in viper.

A table's slots and _WIDE are those of kernels.py; here _SEGMENTS is a window's side and _LENGTH the
channels.
"""

import micropython
from micropython import const

_WIDE = const(0)

_ROWS = const(0)
_COLUMNS = const(1)
_SEGMENTS = const(3)
_LENGTH = const(4)
_LINE = const(5)
_STEP = const(6)
_JUMP = const(7)
_DOT_SHIFT = const(8)
_DOWN = const(9)
_LEAST = const(10)
_ERROR_SHIFT = const(11)
_RATE = const(14)
_RATE_DOWN = const(15)
_STATE = const(16)
_INPUTS = const(17)

_ACTIVATION_MAX = const(8191)
_STEP_MAX = const(131071)


@micropython.viper
def forward(w: ptr32, a: ptr32, z: ptr32, t: ptr32):
    """One layer's activations z from those below it, a; a row of weights a channel."""
    side = t[_SEGMENTS]
    channels = t[_LENGTH]
    shift = t[_DOT_SHIFT]
    down = t[_DOWN]
    half = 1 << down >> 1
    least = t[_LEAST]
    if _WIDE:
        least = (least << 32) >> 32
    line = int(a)
    rows = t[_ROWS]
    while rows:
        pixel = line
        columns = t[_COLUMNS]
        while columns:
            v = w
            c = 0
            while c < channels:
                total = 0
                segment = pixel + (c << 2)
                dy = side
                while dy:
                    p = ptr32(segment)
                    s = 0
                    dx = side
                    while dx:
                        s += v[0] * p[0]
                        v = ptr32(uint(v) + 4)
                        p = ptr32(uint(p) + (channels << 2))
                        dx -= 1
                    if _WIDE:
                        s = (s << 32) >> 32
                    total += s >> shift
                    segment += t[_LINE]
                    dy -= 1
                s = v[0] << 9
                if _WIDE:
                    s = (s << 32) >> 32
                v = ptr32(uint(v) + 4)
                total = (total + (s >> shift) + half) >> down
                if total > _ACTIVATION_MAX:
                    total = _ACTIVATION_MAX
                elif total < least:
                    total = least
                z[0] = total
                z = ptr32(uint(z) + 4)
                c += 1
            pixel += t[_STEP]
            columns -= 1
        line += t[_JUMP]
        rows -= 1


@micropython.viper
def carry_back(w: ptr32, error: ptr32, below: ptr32, t: ptr32):
    """Sum into below what each error above means for its channel."""
    p = below
    n = t[_INPUTS]
    while n:
        p[0] = 0
        p = ptr32(uint(p) + 4)
        n -= 1
    side = t[_SEGMENTS]
    channels = t[_LENGTH]
    shift = t[_ERROR_SHIFT]
    line = int(below)
    rows = t[_ROWS]
    while rows:
        pixel = line
        columns = t[_COLUMNS]
        while columns:
            v = w
            c = 0
            while c < channels:
                e = error[0]
                if _WIDE:
                    e = (e << 32) >> 32
                segment = pixel + (c << 2)
                dy = side
                while dy:
                    p = ptr32(segment)
                    dx = side
                    while dx:
                        s = e * v[0]
                        if _WIDE:
                            s = (s << 32) >> 32
                        p[0] += s >> shift
                        v = ptr32(uint(v) + 4)
                        p = ptr32(uint(p) + (channels << 2))
                        dx -= 1
                    segment += t[_LINE]
                    dy -= 1
                v = ptr32(uint(v) + 4)
                error = ptr32(uint(error) + 4)
                c += 1
            pixel += t[_STEP]
            columns -= 1
        line += t[_JUMP]
        rows -= 1


@micropython.viper
def update(w: ptr32, a: ptr32, error: ptr32, t: ptr32):
    """One step on a layer's weights, with stochastic rounding: a draw for each channel's row."""
    side = t[_SEGMENTS]
    channels = t[_LENGTH]
    rate = t[_RATE]
    down = t[_RATE_DOWN]
    state = t[_STATE]
    line = int(a)
    rows = t[_ROWS]
    while rows:
        pixel = line
        columns = t[_COLUMNS]
        while columns:
            v = w
            c = 0
            while c < channels:
                state = state * 1664525 + 1013904223
                dither = (state >> 19) & 0x1FFF
                g = error[0] * rate
                if _WIDE:
                    g = (g << 32) >> 32
                g = (g + (1 << down >> 1)) >> down
                if g > _STEP_MAX:
                    g = _STEP_MAX
                elif g < 0 - _STEP_MAX:
                    g = 0 - _STEP_MAX
                segment = pixel + (c << 2)
                n = side * side + 1
                dx = side
                p = ptr32(segment)
                while n:
                    s = g << 9  # the bias comes last and meets a one
                    if n > 1:
                        s = g * p[0]
                    s += dither
                    if _WIDE:
                        s = (s << 32) >> 32
                    s = v[0] - (s >> 13)
                    if _WIDE:
                        s = (s << 32) >> 32
                    if s > 32767:
                        s = 32767
                    elif s < 0 - 32768:
                        s = 0 - 32768
                    v[0] = s
                    v = ptr32(uint(v) + 4)
                    p = ptr32(uint(p) + (channels << 2))
                    n -= 1
                    dx -= 1
                    if dx == 0:
                        dx = side
                        segment += t[_LINE]
                        p = ptr32(segment)
                error = ptr32(uint(error) + 4)
                c += 1
            pixel += t[_STEP]
            columns -= 1
        line += t[_JUMP]
        rows -= 1
    t[_STATE] = state
