"""Runs on a board: what learning from a stored batch takes beside the network that ships.

Samples are stored with 16 bits a value, which loses nothing. The kernels that ship gather a batch's
gradient in words where else they change weights; then the weights follow its mean. Prints bytes of
heap as JSON. Usage: micropython batch.mpy CASE.json SAMPLES

x.bin and y.bin hold so many samples: 16-bit activations, and likewise or a byte a class.
"""

import gc
import json
import sys
from struct import unpack_from

from tinymetafed.messages import Plan
from tinymetafed.network import Network
from tinymetafed.samples import Activations
from tinymetafed.words import words

CROSS_ENTROPY = 1

with open(sys.argv[1]) as file:
    case = json.load(file)
network = Network(Plan(**case["plan"]))
with open("base.bin", "rb") as file:
    file.readinto(network.base)
network.begin(case["seed"])
classes = case["plan"]["loss"] == CROSS_ENTROPY
del case
x = Activations(network._layers[0].inputs)
y = Activations(network.outputs)
count = int(sys.argv[2])


def fill(words, stored, n):
    """The n-th sample's values."""
    size = len(words)
    for i in range(size):
        words[i] = unpack_from("<h", stored, 2 * (n * size + i))[0]


def store(name, size):
    """So many bytes of a file."""
    stored = bytearray(size)
    with open(name, "rb") as file:
        file.readinto(stored)
    return stored


def redirect(gradient, local):
    """Have the kernels change the gradient, which lies as the weights do."""
    whole = memoryview(gradient)
    start = 0
    for layer in network._layers:
        if layer.size and layer.local == local:
            view = whole[start : start + layer.size]
            start += layer.size
            for call in network._programs[local]:
                if call[0] is layer._kernels.update and call[4] is layer.table:
                    call[1] = view


def learn(weights, gradient, local):
    """One step, which follows the mean of the batch."""
    for i in range(len(weights)):
        gradient[i] = 0
    for n in range(count):
        fill(x.words, stored, n)
        if classes:
            network.read(x, labels[n])
        else:
            fill(y.words, labels, n)
            network.read(x, y)
        network.step(local)
    for i in range(len(weights)):
        weights[i] += gradient[i] // count


gc.collect()
start = gc.mem_alloc()
stored = store("x.bin", count * 2 * len(x.words))
labels = store("y.bin", count * (1 if classes else 2 * len(y.words)))
gc.collect()
with_samples = gc.mem_alloc()
gradient = words(max(len(network.phi), len(network.theta)))
gc.collect()
taken = gc.mem_alloc() - start
facts = {"samples": with_samples - start, "taken": taken, "proof": []}
for local, weights in ((1, network.phi), (0, network.theta)):
    redirect(gradient, local)
    learn(weights, gradient, local)
    facts["proof"].append(sum(weights))
print(json.dumps(facts))
