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
def draw(w: ptr32, count: int, limit: int, state: ptr32):
    """Fill w with count weights, evenly from [-limit, limit); state is the generator's."""
    s = state[0]
    while count:
        s = s * 1664525 + 1013904223
        w[0] = ((((s >> 16) & 0xFFFF) - 32768) * limit) >> 15
        w = ptr32(uint(w) + 4)
        count -= 1
    state[0] = s


@micropython.viper
def load(theta: ptr32, base: ptr16, count: int):
    """Copy int16 weights into words."""
    while count:
        theta[0] = (base[0] ^ 0x8000) - 0x8000
        theta = ptr32(uint(theta) + 4)
        base = ptr16(uint(base) + 2)
        count -= 1


@micropython.viper
def read_floats(bits: ptr32, words: ptr32, count: int) -> int:
    """Convert float32 values, given by their bits, to activations.

    Returns:
        The index of a value that is not finite, or -1 where there is none.
    """
    i = 0
    while i < count:
        b = bits[i]
        shift = 141 - ((b >> 23) & 0xFF)
        if shift < 0 - 113:
            return i
        v = 0
        if shift < 1:
            v = _ACTIVATION_MAX
        elif shift < 26:
            v = ((b & 0x7FFFFF) | 0x800000) + (1 << (shift - 1)) >> shift
            if v > _ACTIVATION_MAX:
                v = _ACTIVATION_MAX
        if (b >> 31) & 1:
            v = 0 - v
        words[i] = v
        i += 1
    return -1


@micropython.viper
def forward(w: ptr32, a: ptr32, z: ptr32, t: ptr32):
    """One layer's activations z from those below it, a."""
    shift = t[_DOT_SHIFT]
    down = t[_DOWN]
    half = 1 << down >> 1
    line = int(a)
    rows = t[_ROWS]
    while rows:
        pixel = line
        columns = t[_COLUMNS]
        while columns:
            v = w
            outputs = t[_OUTPUTS]
            while outputs:
                segment = pixel
                segments = t[_SEGMENTS]
                total = 0
                while segments:
                    p = ptr32(segment)
                    n = t[_LENGTH] >> 3
                    while n:
                        s = (
                            v[0] * p[0]
                            + v[1] * p[1]
                            + v[2] * p[2]
                            + v[3] * p[3]
                            + v[4] * p[4]
                            + v[5] * p[5]
                            + v[6] * p[6]
                            + v[7] * p[7]
                        )
                        if _WIDE:
                            s = (s << 32) >> 32
                        total += s >> shift
                        v = ptr32(uint(v) + 32)
                        p = ptr32(uint(p) + 32)
                        n -= 1
                    n = t[_LENGTH] & 7
                    if n:
                        s = 0
                        while n:
                            s += v[0] * p[0]
                            v = ptr32(uint(v) + 4)
                            p = ptr32(uint(p) + 4)
                            n -= 1
                        if _WIDE:
                            s = (s << 32) >> 32
                        total += s >> shift
                    segment += t[_LINE]
                    segments -= 1
                s = v[0] << 9
                if _WIDE:
                    s = (s << 32) >> 32
                v = ptr32(uint(v) + 4)
                total = (total + (s >> shift) + half) >> down
                least = t[_LEAST]
                if _WIDE:
                    least = (least << 32) >> 32
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
def carry_back(w: ptr32, error: ptr32, below: ptr32, t: ptr32):
    """Sum into below what each error above a layer means for what lies below it."""
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
            v = w
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
                                p[0] += ((e * v[0]) << 32) >> 32 >> shift
                                p[1] += ((e * v[1]) << 32) >> 32 >> shift
                                p[2] += ((e * v[2]) << 32) >> 32 >> shift
                                p[3] += ((e * v[3]) << 32) >> 32 >> shift
                            else:
                                p[0] += (e * v[0]) >> shift
                                p[1] += (e * v[1]) >> shift
                                p[2] += (e * v[2]) >> shift
                                p[3] += (e * v[3]) >> shift
                            v = ptr32(uint(v) + 16)
                            p = ptr32(uint(p) + 16)
                            n -= 1
                        n = t[_LENGTH] & 3
                        while n:
                            s = e * v[0]
                            if _WIDE:
                                s = (s << 32) >> 32
                            p[0] += s >> shift
                            v = ptr32(uint(v) + 4)
                            p = ptr32(uint(p) + 4)
                            n -= 1
                        segment += t[_LINE]
                        segments -= 1
                    v = ptr32(uint(v) + 4)
                else:
                    v = ptr32(uint(v) + t[_ROW_BYTES])
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
                    n = t[_LENGTH]
                    while segments:
                        p = ptr32(segment)
                        while n:
                            s = g * p[0] + dither
                            if _WIDE:
                                s = (s << 32) >> 32
                            s = v[0] - (s >> 13)
                            if (s + 32768) & 0x3FFF0000:
                                if _WIDE:
                                    s = (s << 32) >> 32
                                if s > 32767:
                                    s = 32767
                                elif s < 0 - 32768:
                                    s = 0 - 32768
                            v[0] = s
                            v = ptr32(uint(v) + 4)
                            p = ptr32(uint(p) + 4)
                            n -= 1
                        segment += t[_LINE]
                        n = t[_LENGTH]
                        segments -= 1
                    s = (g << 9) + dither
                    s = v[0] - (s >> 13)
                    if _WIDE:
                        s = (s << 32) >> 32
                    if s > 32767:
                        s = 32767
                    elif s < 0 - 32768:
                        s = 0 - 32768
                    v[0] = s
                    v = ptr32(uint(v) + 4)
                else:
                    v = ptr32(uint(v) + t[_ROW_BYTES])
                error = ptr32(uint(error) + 4)
                outputs -= 1
            pixel += t[_STEP]
            columns -= 1
        line += t[_JUMP]
        rows -= 1
    t[_STATE] = state
