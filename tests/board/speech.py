"""Runs on MicroPython: features of clips, a JSON line each; the last line is about bad buffers.

Usage: micropython speech.py GOLDEN.json, or micropython speech.py CLIPS.raw, which holds int16
samples, 16000 a clip.
"""

import gc
import json
import sys
from array import array

from tinymetafed.errors import ModelError
from tinymetafed.speech import RATE, Features

WRONG = (array("i", [1]), array("f", [1]), b"odd", "text", 1, [1], None)


def samples_of(recipe):
    """A golden vector's clip: see tools/golden.py."""
    samples = array("h", bytes(2 * RATE))
    for start, end, step, value in recipe["pulses"]:
        for i in range(start, end, step):
            samples[i] = value
    state = recipe["seed"]
    last = 0
    for i in range(RATE):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        smooth = recipe["smooth"]
        last = (smooth * last + (16 - smooth) * ((state >> 16) - 32768)) >> 4
        value = samples[i] + recipe["offset"] + (last * recipe["gain"] >> 8)
        samples[i] = max(-32768, min(32767, value))
    return samples


def feed_at_once(features, samples):
    return features.feed(samples)


def feed_in_pieces(features, samples):
    """As bytes, in pieces of any size, at an odd address."""
    data = memoryview(b"\0" + bytes(samples))[1:]
    taken = 0
    size = 0
    while not features.is_complete:
        size = (size + 346) % 2000
        taken += features.feed(data[2 * taken : 2 * taken + size])
    return taken + features.feed(data)


def clips_of(path):
    if path.endswith(".json"):
        with open(path) as file:
            for vector in json.load(file):
                yield samples_of(vector["clip"])
    else:
        with open(path, "rb") as file:
            while data := file.read(2 * RATE):
                yield array("h", data)


gc.collect()
free = gc.mem_free()
features = Features()
gc.collect()
needed = free - gc.mem_free()
for number, clip in enumerate(clips_of(sys.argv[1])):
    features.begin()
    feed = feed_in_pieces if number % 2 else feed_at_once
    taken = feed(features, clip)
    print(json.dumps({"taken": taken, "words": list(features.words)}))

features.begin()
refused = []
for wrong in WRONG:
    try:
        features.feed(wrong)
    except ModelError as error:
        refused.append("array('h')" in str(error))
empty = [features.feed(b""), features.feed(array("h"))]
print(json.dumps({"refused": refused, "empty": empty, "needed": needed}))
