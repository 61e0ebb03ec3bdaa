"""What a microphone hears in a second, as a network's input: log-mel features in fixed point.

::

    features = Features()
    while not features.is_complete:
        microphone.readinto(buffer)  # int16 samples at 16 kHz
        features.feed(buffer)
    network.read(features, keyword)
    features.begin()  # for the next second

Samples are taken in as they come; only one frame of them is kept. The arithmetic is that of the
host's ``simulation/tasks/speech.py``, to the last bit; it says why nothing leaves 32 bits. The
tables are made of integers at the start, so that they are the same on every board. For _WIDE see
kernels.py.
"""

from array import array

import micropython
from micropython import const

from tinymetafed.errors import ModelError
from tinymetafed.inputs import Activations
from tinymetafed.words import words

_WIDE = const(0)

RATE = const(16000)
"""Samples in a second."""
WINDOW = const(512)
"""Samples of a frame: 32 ms."""
FRAMES = const(31)
"""Of a second, side by side: rows of the features."""
EDGES = b"\x03\x06\x09\x0d\x11\x16\x1b\x21\x28\x2f\x37\x40\x4b\x56\x63\x71\x81\x93\xa7\xbe\xd7\xf3"
"""Bins (of 31.25 Hz) where triangles begin, peak and end: mel-spaced, rounded."""
BANDS = const(20)
"""Columns of the features."""

_HALF = const(256)
_STAGES = const(8)
_FLOOR_BITS = const(23)  # 15, and 8 for the weights of the triangles

# The kernels' table.
_PEAK = const(0)  # all bits that a value of the frame has
_EXPONENT = const(1)  # by how many bits the frame is shifted right
_AT = const(2)  # where samples are taken from, in bytes
_FILLED = const(3)  # samples in the frame
_COUNT = const(4)  # samples to take
_PLACE = const(5)  # of the next sample in the frame, in bytes
_SLOTS = const(6)


def sines():
    """2**15 * sin(2 pi k / 512) for k from 0 to 384; cosines begin at 128.

    A recurrence in integers of 40 fraction bits: the same everywhere, as no board's floats are
    asked.
    """
    before, now = 0, 13492699036
    found = words(385)
    for k in range(385):
        found[k] = (before + (1 << 24)) >> 25
        before, now = now, (2198857673145 * now >> 40) - before
    return found


def triangles():
    """For each edge but the last: bins to the next one, then 256ths by which these rise."""
    found = bytearray()
    for i in range(BANDS + 1):
        length = EDGES[i + 1] - EDGES[i]
        found.append(length)
        for k in range(length):
            found.append(256 * k // length)
    return found


@micropython.viper
def take(samples: ptr8, z: ptr32, t: ptr32):
    """Append t[_COUNT] samples, little endian from byte t[_AT] on, to the frame in z.

    Pairs of samples are complex values, and lie in the order in which the FFT takes them: with the
    bits of their number reversed.
    """
    samples = ptr8(uint(samples) + t[_AT])
    place = t[_PLACE]
    n = t[_COUNT]
    while n:
        p = ptr32(uint(z) + place)
        p[0] = ((samples[0] | samples[1] << 8) ^ 0x8000) - 0x8000
        samples = ptr8(uint(samples) + 2)
        place ^= 4
        if not place & 4:
            bit = 1024
            while place & bit:
                place ^= bit
                bit >>= 1
            place |= bit
        n -= 1
    t[_PLACE] = place


@micropython.viper
def window(p: ptr32, cosine: ptr32, t: ptr32):
    """Lay the window over a frame without its mean, in place.

    p: the frame; cosine: the sines. As arguments they live in registers, so they walk.
    """
    z = p
    mean = 0
    n = WINDOW
    while n:
        mean += p[0]
        p = ptr32(uint(p) + 4)
        n -= 1
    if _WIDE:
        mean = (mean << 32) >> 32
    mean = (mean + 256) >> 9
    p = z
    peak = 0
    n = WINDOW
    while n:
        v = p[0] - mean
        if _WIDE:
            v = (v << 32) >> 32
        peak |= v ^ (v >> 31)
        p = ptr32(uint(p) + 4)
        n -= 1
    down = 9
    while peak >> down:
        down += 1
    half = 1 << down >> 1
    peak = 0
    cosine = ptr32(uint(cosine) + 512)
    step = 4
    place = 0
    n = _HALF
    while n:
        if n == 128:
            step = 0 - 4  # the window's second half mirrors the first
        p = ptr32(uint(z) + (place << 3))
        w = cosine[0]
        v = p[0] - mean
        if _WIDE:
            w = (w << 32) >> 32
            v = (v << 32) >> 32
        v = (v * ((32768 - w) >> 1) + half) >> down
        peak |= v ^ (v >> 31)
        p[0] = v
        cosine = ptr32(int(cosine) + step)
        w = cosine[0]
        v = p[1] - mean
        if _WIDE:
            w = (w << 32) >> 32
            v = (v << 32) >> 32
        v = (v * ((32768 - w) >> 1) + half) >> down
        peak |= v ^ (v >> 31)
        p[1] = v
        cosine = ptr32(int(cosine) + step)
        bit = 128
        while place & bit:
            place ^= bit
            bit >>= 1
        place |= bit
        n -= 1
    t[_PEAK] = peak
    t[_EXPONENT] = down - 15


@micropython.viper
def stage(p: ptr32, q: ptr32, t: ptr32, number: int):
    """One stage of the FFT, in place: from transforms of 2**number values to those of twice.

    p: the spectrum; q: the sines. As arguments they live in registers, so they walk.
    """
    peak = t[_PEAK]
    s = 0
    while peak >> s > 32767:
        s += 1
    t[_EXPONENT] += s
    half = 1 << s >> 1
    peak = 0
    far = 8 << number
    turn = 1024 >> number
    sine = q
    start = p
    n = 1 << number
    while n:
        wr = sine[128]
        if _WIDE:
            wr = (wr << 32) >> 32
        wi = sine[0]
        p = start
        q = ptr32(uint(p) + far)
        groups = 128 >> number
        while groups:
            br = q[0]
            bi = q[1]
            if _WIDE:
                br = (br << 32) >> 32
                bi = (bi << 32) >> 32
            br = (br + half) >> s
            bi = (bi + half) >> s
            tr = (br * wr + bi * wi + 16384) >> 15
            ti = (bi * wr - br * wi + 16384) >> 15
            v = p[0]
            if _WIDE:
                v = (v << 32) >> 32
            v = (v + half) >> s
            br = v - tr
            q[0] = br
            peak |= br ^ (br >> 31)
            v += tr
            p[0] = v
            peak |= v ^ (v >> 31)
            v = p[1]
            if _WIDE:
                v = (v << 32) >> 32
            v = (v + half) >> s
            bi = v - ti
            q[1] = bi
            peak |= bi ^ (bi >> 31)
            v += ti
            p[1] = v
            peak |= v ^ (v >> 31)
            p = ptr32(uint(q) + far)
            q = ptr32(uint(p) + far)
            groups -= 1
        start = ptr32(uint(start) + 8)
        sine = ptr32(uint(sine) + turn)
        n -= 1
    t[_PEAK] = peak


@micropython.viper
def power(z: ptr32, sine: ptr32, t: ptr32):
    """The power of bin k of the real FFT into z[2 * k], for k from 1 to 255."""
    peak = t[_PEAK]
    s = 0
    while peak >> s > 16383:
        s += 1
    t[_EXPONENT] += s
    half = 1 << s >> 1
    p = ptr32(uint(z) + 8)
    q = ptr32(uint(z) + 2040)
    n = 128
    while n:
        sine = ptr32(uint(sine) + 4)
        wr = sine[128]
        if _WIDE:
            wr = (wr << 32) >> 32
        wi = sine[0]
        zr = p[0]
        zi = p[1]
        yr = q[0]
        yi = q[1]
        if _WIDE:
            zr = (zr << 32) >> 32
            zi = (zi << 32) >> 32
            yr = (yr << 32) >> 32
            yi = (yi << 32) >> 32
        zr = (zr + half) >> s
        zi = (zi + half) >> s
        yr = (yr + half) >> s
        yi = (yi + half) >> s
        # The spectra of the even and of the odd samples.
        br = zi + yi
        bi = yr - zr
        zr += yr
        zi -= yi
        tr = (br * wr + bi * wi + 16384) >> 15
        ti = (bi * wr - br * wi + 16384) >> 15
        br = (zr + tr + 1) >> 1
        bi = (zi + ti + 1) >> 1
        p[0] = br * br + bi * bi
        br = (zr - tr + 1) >> 1
        bi = (zi - ti + 1) >> 1
        q[0] = br * br + bi * bi
        p = ptr32(uint(p) + 8)
        q = ptr32(uint(q) - 8)
        n -= 1


@micropython.viper
def sum_bands(z: ptr32, mel: ptr8, sums: ptr32):
    """Sum power under the triangles: for each edge two words, 2**12 times the first, the second.

    Their unit is a 256th of the power's.
    """
    z = ptr32(uint(z) + 24)  # the first edge
    rising_high = 0
    rising_low = 0
    m = BANDS + 1
    while m:
        high = rising_high
        low = rising_low
        rising_high = 0
        rising_low = 0
        n = mel[0]
        mel = ptr8(uint(mel) + 1)
        while n:
            w = mel[0]
            v = z[0] >> 12
            rising_high += v * w
            high += v * (256 - w)
            v = z[0] & 4095
            rising_low += v * w
            low += v * (256 - w)
            mel = ptr8(uint(mel) + 1)
            z = ptr32(uint(z) + 8)
            n -= 1
        sums[0] = high
        sums[1] = low
        sums = ptr32(uint(sums) + 8)
        m -= 1


@micropython.viper
def logarithms(sums: ptr32, words: ptr32, t: ptr32, row: int):
    """A row of words from the sums of a frame's bands and the floor; 0 is silence."""
    sums = ptr32(uint(sums) + 8)  # below the first triangle there is none
    words = ptr32(uint(words) + row * 80)
    exponent = t[_EXPONENT]
    if _WIDE:
        exponent = (exponent << 32) >> 32
    exponent = exponent << 1
    floor = _FLOOR_BITS - exponent
    n = BANDS
    while n:
        high = sums[0]
        low = sums[1]
        if floor >= 12:
            high += 1 << (floor - 12)
        elif floor >= 0:
            low += 1 << floor
        else:
            low += 1
        k = exponent - _FLOOR_BITS + 15
        if high > 32767:
            high += low >> 12
            k += 12
        else:
            high = (high << 12) + low
        while high > 65535:
            high >>= 1
            k += 1
        while high < 32768:
            high <<= 1
            k -= 1
        f = high - 32768
        c = 5217 * f >> 15
        c = (19074 - c) * f >> 15
        c = (46624 - c) * f >> 15
        words[0] = ((k << 15) + c + 256) >> 9
        sums = ptr32(uint(sums) + 8)
        words = ptr32(uint(words) + 4)
        n -= 1


@micropython.viper
def centre(words: ptr32, count: int):
    """Take their mean off the words, none of which is negative."""
    p = words
    mean = 0
    n = count
    while n:
        mean += p[0]
        p = ptr32(uint(p) + 4)
        n -= 1
    mean = mean // count
    p = words
    n = count
    while n:
        p[0] -= mean
        p = ptr32(uint(p) + 4)
        n -= 1


_byte = memoryview(bytearray(1))
_short = memoryview(array("h", [0]))


def _count(samples):
    """How many int16 samples a buffer holds.

    A view of an array does not tell its type; what may be assigned to a slice of ours does.

    Raises:
        ModelError: it is none, or its bytes are no whole samples.
    """
    try:
        if isinstance(samples, str):  # it has a buffer, too
            raise TypeError
        view = memoryview(samples)
        length = len(view)
        if not length:
            return 0
        view = view[:1]
        try:
            _short[:] = view
            return length
        except ValueError:
            _byte[:] = view
        if not length & 1:
            return length >> 1
    except (TypeError, ValueError):
        pass
    raise ModelError(
        "samples must be int16: an array('h'), or bytes, two a sample, the low one first"
    )


class Features(Activations):
    """Log-mel features of a second, a sample of FRAMES rows of BANDS activations.

    All memory is taken here: words (2.4 KB), a frame (2 KB), in which its spectrum is computed, and
    tables (2 KB).
    """

    def __init__(self):
        super().__init__(FRAMES * BANDS)
        self._frame = words(WINDOW)
        self._sums = words(2 * (BANDS + 1))
        self._table = words(_SLOTS)
        self._sine = sines()
        self._triangles = triangles()
        self._row = 0

    @property
    def is_complete(self):
        """Whether the words are a whole second's features."""
        return self._row == FRAMES

    def begin(self):
        """Start the next second: forget what was heard."""
        self._row = 0
        self._table[_FILLED] = self._table[_PLACE] = 0

    def feed(self, samples):
        """Take in int16 samples at 16 kHz, as many or few as there are.

        Args:
            samples: an array("h"), or bytes as a microphone's readinto() fills them.

        Returns:
            How many were taken: fewer than given when the second is complete.

        Raises:
            ModelError: samples of another type.
        """
        t = self._table
        count = _count(samples)
        taken = 0
        while taken < count and self._row < FRAMES:
            n = min(count - taken, WINDOW - t[_FILLED])
            t[_AT] = 2 * taken
            t[_COUNT] = n
            take(samples, self._frame, t)
            taken += n
            t[_FILLED] += n
            if t[_FILLED] == WINDOW:
                t[_FILLED] = t[_PLACE] = 0
                self._analyse()
        return taken

    def _analyse(self):
        t = self._table
        window(self._frame, self._sine, t)
        for number in range(_STAGES):
            stage(self._frame, self._sine, t, number)
        power(self._frame, self._sine, t)
        sum_bands(self._frame, self._triangles, self._sums)
        logarithms(self._sums, self.words, t, self._row)
        self._row += 1
        if self._row == FRAMES:
            centre(self.words, FRAMES * BANDS)
