"""Runs on an emulated Cortex-M: each kernel in assembler and in viper on the same random tables.

Prints a JSON line a kernel: how often it ran, how often some word was not the same, and how many
weights came to an end of their range. Usage: micropython kernels.py ROUNDS SEED
"""

import json
import random
import sys
from array import array

from tinymetafed import kernels, thumb
from tinymetafed.layers import Layer
from tinymetafed.messages import Plan
from tinymetafed.words import words

NAMES = ("forward", "carry_back", "settle", "update")


def draw(count, most, gaps=0):
    """Numbers up to most on both sides; with gaps, every so many is 0."""
    return array(
        "i",
        [0 if gaps and i % gaps == 0 else random.randint(-most, most - 1) for i in range(count)],
    )


def random_layer():
    """Dense in two of five cases, else a convolution."""
    kernel = random.choice((1, 3))
    height, width = random.randint(kernel, 6), random.randint(kernel, 6)
    channels, stride = random.randint(1, 9), random.randint(1, 4)
    if random.random() < 0.4:
        kernel = height = width = stride = 1
        channels = random.randint(1, 40)
    outputs, relu = random.randint(1, 9), random.choice((0, 2))
    entry = [0, height, width, channels, outputs, kernel, stride, relu, 500]
    rates = random.choice((1, 700, 16384)), random.choice((1, 700, 16384))
    clip = random.choice((32767, 5000, 1))
    plan = Plan(1, 1, random.randint(0, 1), [entry], rates[0], rates[1], 1, 1, clip, 1, 8, 0)
    layer = Layer(entry, plan, None)
    layer.table[12] = random.choice((0, 1))  # whether what lies below comes out of a ReLU
    layer.table[16] = random.randint(-(1 << 30), (1 << 30) - 1)  # the generator's state
    return layer


def run(module, name, layer, data):
    """All words that the kernel may write: the table's first, too, where its generator is."""
    weights, a, error, sums = data
    weights, below = array("i", weights), array("i", sums)
    above, table = words(layer.outputs), array("i", layer.table)
    arguments = {
        "forward": (weights, a, above, table),
        "carry_back": (weights, error, below, table),
        "settle": (a, a, below, table),
        "update": (weights, a, error, table),
    }[name]
    getattr(module, name)(*arguments)
    return weights, above, below, table[:19]


rounds, seed = [int(word) for word in sys.argv[1:]]
random.seed(seed)
differ = dict.fromkeys(NAMES, 0)
ends = 0
for _ in range(rounds):
    layer = random_layer()
    data = (
        draw(layer.size, random.choice((32768, 3000))),
        draw(layer.inputs, random.choice((8191, 600)), 3),
        draw(layer.outputs, random.choice((32767, 900)), 4),
        draw(layer.inputs, 1 << random.choice((14, 29))),
    )
    for name in NAMES:
        ours = run(thumb, name, layer, data)
        differ[name] += ours != run(kernels, name, layer, data)
    ends += sum(w in (-32768, 32767) for w in ours[0])
print(json.dumps({"rounds": rounds, "differ": differ, "ends": ends}))
