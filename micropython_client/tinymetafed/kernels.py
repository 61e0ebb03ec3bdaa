"""The loops that touch every weight or every sample, in viper.

Three of them do nearly all of training: dot (forward), axpy into the error (carry_back), axpy into
the weights (update).

A layer is a grid of pixels; each of its outputs is a dot product of a row of weights with a window
of the input. Channels lie last, so a window is a few contiguous segments: k of k * channels words
for a k x k convolution, one of all inputs for a dense layer. One call does a whole layer.

The arithmetic is that of the host's ``protocol/fixed.py``, to the last bit. All functions here
rely on this:

- ptr32 is signed on 32-bit machines, but unsigned on x86-64, where a word also has 64 bits: there,
  sums are right modulo 2**32 and are sign-extended before they are shifted right or compared.
  ``build.py`` sets _WIDE for that target.
- Loops walk pointers and unroll with constant indexes: half the instructions of an indexed loop.
- 0 - x instead of -x, and no literal above 0x3fffffff: MicroPython 1.23 to 1.28 miscompile or box
  them.
"""

import micropython
from micropython import const

_WIDE = const(0)

# A layer's table, in words; thumb.py knows the same slots.
_ROWS = const(0)  # of pixels
_COLUMNS = const(1)
_OUTPUTS = const(2)  # of a pixel
_SEGMENTS = const(3)  # of a window
_LENGTH = const(4)  # of a segment
_LINE = const(5)  # bytes from a segment of a window to the next
_STEP = const(6)  # bytes from a window to the next in its row
_JUMP = const(7)  # bytes from a row of windows to the next
_DOT_SHIFT = const(8)
_DOWN = const(9)  # from a dot product to an activation
_LEAST = const(10)  # activation: 0 with a ReLU
_ERROR_SHIFT = const(11)
_MASKED = const(12)  # 1 where what lies below comes out of a ReLU, else 0
_CLIP = const(13)  # largest error
_RATE = const(14)
_RATE_DOWN = const(15)  # from an error times the rate to a step
_STATE = const(16)  # of the generator
_INPUTS = const(17)  # words below the layer
_ROW_BYTES = const(18)  # of the weights of an output

_ACTIVATION_MAX = const(8191)
_STEP_MAX = const(131071)


@micropython.viper
def forward(w: ptr32, a: ptr32, z: ptr32, t: ptr32):
    """One layer's activations z from those below it, a."""
    first = int(w)
    line = int(a)
    shift = t[_DOT_SHIFT]
    down = t[_DOWN]
    half = 1 << down >> 1
    least = t[_LEAST]
    if _WIDE:
        least = (least << 32) >> 32
    rows = t[_ROWS]
    while rows:
        pixel = line
        columns = t[_COLUMNS]
        while columns:
            w = ptr32(first)
            outputs = t[_OUTPUTS]
            while outputs:
                segment = pixel
                segments = t[_SEGMENTS]
                total = 0
                while segments:
                    a = ptr32(segment)
                    n = t[_LENGTH] >> 3
                    while n:
                        s = (
                            w[0] * a[0]
                            + w[1] * a[1]
                            + w[2] * a[2]
                            + w[3] * a[3]
                            + w[4] * a[4]
                            + w[5] * a[5]
                            + w[6] * a[6]
                            + w[7] * a[7]
                        )
                        if _WIDE:
                            s = (s << 32) >> 32
                        total += s >> shift
                        w = ptr32(uint(w) + 32)
                        a = ptr32(uint(a) + 32)
                        n -= 1
                    n = t[_LENGTH] & 7
                    if n:
                        s = 0
                        while n:
                            s += w[0] * a[0]
                            w = ptr32(uint(w) + 4)
                            a = ptr32(uint(a) + 4)
                            n -= 1
                        if _WIDE:
                            s = (s << 32) >> 32
                        total += s >> shift
                    segment += t[_LINE]
                    segments -= 1
                s = w[0] << 9
                if _WIDE:
                    s = (s << 32) >> 32
                w = ptr32(uint(w) + 4)
                total = (total + (s >> shift) + half) >> down
                if total > _ACTIVATION_MAX:
                    total = _ACTIVATION_MAX
                elif total < least:
                    total = least
                z[0] = total
                z = ptr32(uint(z) + 4)
                outputs -= 1
            pixel += t[_STEP]
            columns -= 1
        line += t[_JUMP]
        rows -= 1


@micropython.viper
def carry_back(w: ptr32, p: ptr32, below: ptr32, t: ptr32):
    """Sum into below what each error above a layer means for what lies below it.

    p: the errors, and then the values below that a window covers.
    """
    first = int(w)
    error = p
    p = below
    n = t[_INPUTS]
    while n:
        p[0] = 0
        p = ptr32(uint(p) + 4)
        n -= 1
    shift = t[_ERROR_SHIFT]
    line = int(below)
    rows = t[_ROWS]
    while rows:
        pixel = line
        columns = t[_COLUMNS]
        while columns:
            w = ptr32(first)
            outputs = t[_OUTPUTS]
            while outputs:
                e = error[0]
                if e:
                    if _WIDE:
                        e = (e << 32) >> 32
                    segment = pixel
                    segments = t[_SEGMENTS]
                    while segments:
                        p = ptr32(segment)
                        n = t[_LENGTH] >> 2
                        while n:
                            if _WIDE:
                                p[0] = p[0] + ((w[0] * e << 32) >> 32 >> shift)
                                p[1] = p[1] + ((w[1] * e << 32) >> 32 >> shift)
                                p[2] = p[2] + ((w[2] * e << 32) >> 32 >> shift)
                                p[3] = p[3] + ((w[3] * e << 32) >> 32 >> shift)
                            else:
                                p[0] = p[0] + (w[0] * e >> shift)
                                p[1] = p[1] + (w[1] * e >> shift)
                                p[2] = p[2] + (w[2] * e >> shift)
                                p[3] = p[3] + (w[3] * e >> shift)
                            w = ptr32(uint(w) + 16)
                            p = ptr32(uint(p) + 16)
                            n -= 1
                        n = t[_LENGTH] & 3
                        while n:
                            s = w[0] * e
                            if _WIDE:
                                s = (s << 32) >> 32
                            p[0] = p[0] + (s >> shift)
                            w = ptr32(uint(w) + 4)
                            p = ptr32(uint(p) + 4)
                            n -= 1
                        segment += t[_LINE]
                        segments -= 1
                    w = ptr32(uint(w) + 4)
                else:
                    w = ptr32(uint(w) + t[_ROW_BYTES])
                error = ptr32(uint(error) + 4)
                outputs -= 1
            pixel += t[_STEP]
            columns -= 1
        line += t[_JUMP]
        rows -= 1


@micropython.viper
def settle(_: ptr32, a: ptr32, below: ptr32, t: ptr32):
    """Round and clip the errors below a layer, and stop them where a ReLU was off.

    a: the activations to which the errors belong.
    """
    n = t[_INPUTS]
    down = 12 - t[_ERROR_SHIFT]
    half = 1 << down >> 1
    clip = t[_CLIP]
    masked = t[_MASKED]
    while n:
        e = 0
        if masked == 0 or a[0] != 0:
            e = below[0]
            if _WIDE:
                e = (e << 32) >> 32
            e = (e + half) >> down
            if e > clip:
                e = clip
            elif e < 0 - clip:
                e = 0 - clip
        below[0] = e
        below = ptr32(uint(below) + 4)
        a = ptr32(uint(a) + 4)
        n -= 1


@micropython.viper
def update(w: ptr32, a: ptr32, error: ptr32, t: ptr32):
    """One step on a layer's weights, with stochastic rounding: a draw for each output's row."""
    first = int(w)
    line = int(a)
    rate = t[_RATE]
    down = t[_RATE_DOWN]
    state = t[_STATE]
    rows = t[_ROWS]
    while rows:
        pixel = line
        columns = t[_COLUMNS]
        while columns:
            w = ptr32(first)
            outputs = t[_OUTPUTS]
            while outputs:
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
                if g:
                    segment = pixel
                    segments = t[_SEGMENTS]
                    while segments:
                        a = ptr32(segment)
                        n = t[_LENGTH] >> 2
                        while n:
                            if _WIDE:
                                w[0] = w[0] - ((a[0] * g + dither << 32) >> 45)
                                w[1] = w[1] - ((a[1] * g + dither << 32) >> 45)
                                w[2] = w[2] - ((a[2] * g + dither << 32) >> 45)
                                w[3] = w[3] - ((a[3] * g + dither << 32) >> 45)
                            else:
                                w[0] = w[0] - (a[0] * g + dither >> 13)
                                w[1] = w[1] - (a[1] * g + dither >> 13)
                                w[2] = w[2] - (a[2] * g + dither >> 13)
                                w[3] = w[3] - (a[3] * g + dither >> 13)
                            # In range, each sum is from 0 to 65535.
                            s = w[0] + 32768 | w[1] + 32768 | w[2] + 32768 | w[3] + 32768
                            if s >> 16:
                                c = 4
                                while c:
                                    c -= 1
                                    s = w[c]
                                    if _WIDE:
                                        s = (s << 32) >> 32
                                    if s > 32767:
                                        s = 32767
                                    elif s < 0 - 32768:
                                        s = 0 - 32768
                                    w[c] = s
                            w = ptr32(uint(w) + 16)
                            a = ptr32(uint(a) + 16)
                            n -= 1
                        n = t[_LENGTH] & 3
                        while n:
                            s = a[0] * g + dither
                            if _WIDE:
                                s = (s << 32) >> 32
                            s = w[0] - (s >> 13)
                            if _WIDE:
                                s = (s << 32) >> 32
                            if s > 32767:
                                s = 32767
                            elif s < 0 - 32768:
                                s = 0 - 32768
                            w[0] = s
                            w = ptr32(uint(w) + 4)
                            a = ptr32(uint(a) + 4)
                            n -= 1
                        segment += t[_LINE]
                        segments -= 1
                    s = (g << 9) + dither
                    s = w[0] - (s >> 13)
                    if _WIDE:
                        s = (s << 32) >> 32
                    if s > 32767:
                        s = 32767
                    elif s < 0 - 32768:
                        s = 0 - 32768
                    w[0] = s
                    w = ptr32(uint(w) + 4)
                else:
                    w = ptr32(uint(w) + t[_ROW_BYTES])
                error = ptr32(uint(error) + 4)
                outputs -= 1
            pixel += t[_STEP]
            columns -= 1
        line += t[_JUMP]
        rows -= 1
    t[_STATE] = state
