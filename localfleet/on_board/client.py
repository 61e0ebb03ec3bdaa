"""Runs on a board: a whole client in a whole round; prints bytes of heap as JSON and ends.

The broker is a file, see loopback.py; so are the sensor's readings. Usage: micropython client.mpy
HEAP WHAT INPUTS

    HEAP: bytes that the board is to have for the client; 0 for all there are
    WHAT: sound (seconds at 16 kHz, each with a class), drawings (floats, and a class) or numbers
    INPUTS: values of a sample
"""

import gc
import json
import sys
from array import array

import loopback  # noqa: F401 - before the client asks for its modules

gc.collect()
heap = int(sys.argv[1])
ballast = bytearray(max(0, gc.mem_free() - heap)) if heap else None
gc.collect()
before = gc.mem_alloc()

from tinymetafed import Client  # noqa: E402


def sound(file, _inputs):
    from tinymetafed.speech import Features  # noqa: PLC0415 - heap that not every spec takes

    features = Features()
    buffer = bytearray(1024)

    def listen():
        while True:
            features.begin()
            while not features.is_complete:
                file.readinto(buffer)
                features.feed(buffer)
            yield features, file.read(1)[0]

    return listen()


def drawings(file, inputs):
    x = array("f", bytes(4 * inputs))
    while True:
        file.readinto(x)
        yield x, file.read(1)[0]


def numbers(file, _inputs):
    pair = array("f", bytes(8))
    while True:
        file.readinto(pair)
        yield pair[0], pair[1]


class Watched:
    """Samples, and the heap that the client takes between them, but for the first."""

    def __init__(self, samples):
        self._samples = samples
        self._count = 0
        self._used = 0
        self.taken = 0

    def __iter__(self):
        return self

    def __next__(self):
        if self._count > 1:
            self.taken += gc.mem_alloc() - self._used
        sample = next(self._samples)
        self._count += 1
        gc.collect()
        self._used = gc.mem_alloc()
        return sample


def end():
    """The update is sent, and the receipt has come."""
    gc.collect()
    peak = gc.mem_alloc() - before
    print(json.dumps({"peak": peak, "taken": watched.taken, "skipped": client.skipped}))
    sys.exit()


read = {"sound": sound, "drawings": drawings, "numbers": numbers}[sys.argv[2]]
file = open("samples", "rb")  # noqa: SIM115 - until the board ends
watched = Watched(read(file, int(sys.argv[3])))
# No ping: a second of sound takes this board longer than a second.
client = Client({"broker": "127.0.0.1", "fleet": "bench", "board": "board-00", "keepalive": 65535})
client.run(watched, end)
