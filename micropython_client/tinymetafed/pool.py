"""Average pools, in viper.

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
_INPUTS = const(17)


@micropython.viper
def forward(_: ptr32, a: ptr32, z: ptr32, t: ptr32):
    """Means of windows; _SEGMENTS is their side, _LENGTH the channels."""
    side = t[_SEGMENTS]
    channels = t[_LENGTH]
    down = t[_DOT_SHIFT]
    half = 1 << down >> 1
    line = int(a)
    rows = t[_ROWS]
    while rows:
        pixel = line
        columns = t[_COLUMNS]
        while columns:
            c = 0
            while c < channels:
                s = 0
                segment = pixel
                dy = side
                while dy:
                    p = ptr32(segment + (c << 2))
                    dx = side
                    while dx:
                        s += p[0]
                        p = ptr32(uint(p) + (channels << 2))
                        dx -= 1
                    segment += t[_LINE]
                    dy -= 1
                if _WIDE:
                    s = (s << 32) >> 32
                z[0] = (s + half) >> down
                z = ptr32(uint(z) + 4)
                c += 1
            pixel += t[_STEP]
            columns -= 1
        line += t[_JUMP]
        rows -= 1


@micropython.viper
def carry_back(_: ptr32, error: ptr32, below: ptr32, t: ptr32):
    """Each value of a window bears an even share of the error of its mean."""
    p = below
    n = t[_INPUTS]
    while n:
        p[0] = 0
        p = ptr32(uint(p) + 4)
        n -= 1
    side = t[_SEGMENTS]
    channels = t[_LENGTH]
    down = t[_DOT_SHIFT]
    half = 1 << down >> 1
    line = int(below)
    rows = t[_ROWS]
    while rows:
        pixel = line
        columns = t[_COLUMNS]
        while columns:
            c = 0
            while c < channels:
                e = error[0]
                if _WIDE:
                    e = (e << 32) >> 32
                e = (e + half) >> down
                segment = pixel
                dy = side
                while dy:
                    p = ptr32(segment + (c << 2))
                    dx = side
                    while dx:
                        p[0] = e
                        p = ptr32(uint(p) + (channels << 2))
                        dx -= 1
                    segment += t[_LINE]
                    dy -= 1
                error = ptr32(uint(error) + 4)
                c += 1
            pixel += t[_STEP]
            columns -= 1
        line += t[_JUMP]
        rows -= 1
