"""The loops that touch every weight or every sample, in viper.

The arithmetic is that of the host's ``protocol/fixed.py``, to the last bit. What every function
here relies on:

- ptr32 is signed on 32-bit machines, but unsigned on x86-64, where a word also has 64 bits: there,
  sums are right modulo 2**32 and are sign-extended before they are shifted right or compared.
  ``build.py`` sets _WIDE for that target.
- A layer's table holds: inputs, outputs, dot shift, error shift, relu, rate.
- Loops walk pointers and unroll with constant indexes: half the instructions of an indexed loop.
- 0 - x instead of -x, and no literal above 0x3fffffff: MicroPython 1.23 to 1.28 miscompile or box
  them.
"""

import micropython
from micropython import const

_WIDE = const(0)

_ACTIVATION_MAX = const(8191)
_ERROR_MAX = const(32767)
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
def forward(w: ptr32, a: ptr32, z: ptr32, layer: ptr32):
    """One layer's activations z from those below it, a (with the constant one after them)."""
    inputs = layer[0] + 1
    outputs = layer[1]
    shift = layer[2]
    relu = layer[4]
    down = 12 - shift
    half = 1 << down >> 1
    while outputs:
        p = a
        total = 0
        n = inputs >> 3
        while n:
            s = (
                w[0] * p[0]
                + w[1] * p[1]
                + w[2] * p[2]
                + w[3] * p[3]
                + w[4] * p[4]
                + w[5] * p[5]
                + w[6] * p[6]
                + w[7] * p[7]
            )
            if _WIDE:
                s = (s << 32) >> 32
            total += s >> shift
            w = ptr32(uint(w) + 32)
            p = ptr32(uint(p) + 32)
            n -= 1
        s = 0
        n = inputs & 7
        while n:
            s += w[0] * p[0]
            w = ptr32(uint(w) + 4)
            p = ptr32(uint(p) + 4)
            n -= 1
        if _WIDE:
            s = (s << 32) >> 32
        total = (total + (s >> shift) + half) >> down
        if total > _ACTIVATION_MAX:
            total = _ACTIVATION_MAX
        elif total < 0:
            if relu:
                total = 0
            elif total < 0 - _ACTIVATION_MAX:
                total = 0 - _ACTIVATION_MAX
        z[0] = total
        z = ptr32(uint(z) + 4)
        outputs -= 1


@micropython.viper
def output_error(z: ptr32, y: ptr32, error: ptr32, count: int, loss: ptr32):
    """The derivative of half the squared error; the squared error is added to loss[0]."""
    while count:
        d = (z[0] - y[0]) << 2
        if _WIDE:
            d = (d << 32) >> 32
        if d > _ERROR_MAX:
            d = _ERROR_MAX
        elif d < 0 - _ERROR_MAX:
            d = 0 - _ERROR_MAX
        error[0] = d
        loss[0] += d * d >> 10
        z = ptr32(uint(z) + 4)
        y = ptr32(uint(y) + 4)
        error = ptr32(uint(error) + 4)
        count -= 1


@micropython.viper
def carry_back(w: ptr32, error: ptr32, below: ptr32, layer: ptr32):
    """The errors below a layer, before the activation there, from those above it."""
    inputs = layer[0]
    outputs = layer[1]
    shift = layer[3]
    p = below
    n = inputs
    while n:
        p[0] = 0
        p = ptr32(uint(p) + 4)
        n -= 1
    while outputs:
        e = error[0]
        if _WIDE:
            e = (e << 32) >> 32
        if e:
            p = below
            n = inputs >> 2
            while n:
                if _WIDE:
                    p[0] += ((e * w[0]) << 32) >> 32 >> shift
                    p[1] += ((e * w[1]) << 32) >> 32 >> shift
                    p[2] += ((e * w[2]) << 32) >> 32 >> shift
                    p[3] += ((e * w[3]) << 32) >> 32 >> shift
                else:
                    p[0] += (e * w[0]) >> shift
                    p[1] += (e * w[1]) >> shift
                    p[2] += (e * w[2]) >> shift
                    p[3] += (e * w[3]) >> shift
                w = ptr32(uint(w) + 16)
                p = ptr32(uint(p) + 16)
                n -= 1
            n = inputs & 3
            while n:
                t = e * w[0]
                if _WIDE:
                    t = (t << 32) >> 32
                p[0] += t >> shift
                w = ptr32(uint(w) + 4)
                p = ptr32(uint(p) + 4)
                n -= 1
            w = ptr32(uint(w) + 4)
        else:
            w = ptr32(uint(w) + (inputs + 1 << 2))
        error = ptr32(uint(error) + 4)
        outputs -= 1


@micropython.viper
def settle(below: ptr32, a: ptr32, layer: ptr32, relu: int):
    """Bring errors that carry_back summed to error format; a neuron whose ReLU was off gets 0."""
    n = layer[0]
    down = 12 - layer[3]
    half = 1 << down >> 1
    while n:
        e = 0
        if relu == 0 or a[0] != 0:
            e = below[0]
            if _WIDE:
                e = (e << 32) >> 32
            e = (e + half) >> down
            if e > _ERROR_MAX:
                e = _ERROR_MAX
            elif e < 0 - _ERROR_MAX:
                e = 0 - _ERROR_MAX
        below[0] = e
        below = ptr32(uint(below) + 4)
        a = ptr32(uint(a) + 4)
        n -= 1


@micropython.viper
def update(w: ptr32, a: ptr32, error: ptr32, layer: ptr32, state: ptr32):
    """One step on a layer's weights, with stochastic rounding: one draw from state a row."""
    inputs = layer[0] + 1
    outputs = layer[1]
    rate = layer[5]
    s = state[0]
    while outputs:
        s = s * 1664525 + 1013904223
        dither = (s >> 19) & 0x1FFF
        g = error[0] * rate
        if _WIDE:
            g = (g << 32) >> 32
        g = (g + 512) >> 10
        if g > _STEP_MAX:
            g = _STEP_MAX
        elif g < 0 - _STEP_MAX:
            g = 0 - _STEP_MAX
        if g:
            p = a
            n = inputs
            while n:
                t = g * p[0] + dither
                if _WIDE:
                    t = (t << 32) >> 32
                t = w[0] - (t >> 13)
                if _WIDE:
                    t = (t << 32) >> 32
                if (t + 32768) >> 16:
                    if t > 0:
                        t = 32767
                    else:
                        t = 0 - 32768
                w[0] = t
                w = ptr32(uint(w) + 4)
                p = ptr32(uint(p) + 4)
                n -= 1
        else:
            w = ptr32(uint(w) + (inputs << 2))
        error = ptr32(uint(error) + 4)
        outputs -= 1
    state[0] = s
