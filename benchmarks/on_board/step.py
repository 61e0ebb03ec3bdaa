"""Runs on a board: instructions of kernels and of whole training steps; JSON lines on stdout.

Which kernels run is decided by the file that lies at tinymetafed/thumb.mpy: ours in assembler, the
benchmark's in C, or none, for viper. Usage: micropython step.py CASE.json
"""

import gc
import json
import sys
from array import array
from binascii import unhexlify

import icount
from tinymetafed import layers
from tinymetafed.messages import Plan
from tinymetafed.network import Network

ELEMENTS = 256
OUTPUTS = 8


def kernels():
    """Instructions per multiply-accumulate, forward, back and update.

    The slope between rows of 128 and 256 weights, so that what a call and a row take is left out.
    """
    fast = layers.fast
    entry = [0, 1, 1, ELEMENTS, OUTPUTS, 1, 1, 0, 1]
    half = [0, 1, 1, ELEMENTS // 2, OUTPUTS, 1, 1, 0, 1]
    plan = Plan(1, 1, 0, [entry], 9000, 9000, 1, 1, 32767, 1, 8, 0)
    counts = {}
    for name in ("forward", "carry_back", "update"):
        took = []
        for shape in (entry, half):
            layer = layers.Layer(shape, plan, None)
            above, error = array("i", [0] * OUTPUTS), array("i", [3000] * OUTPUTS)
            layer.weights = array("i", [i * 37 % 4001 - 2000 for i in range(layer.size)])
            a = array("i", [i * 53 % 1999 - 999 for i in range(layer.inputs)])
            below = array("i", bytes(4 * layer.inputs))
            arguments = {
                "forward": (layer.weights, a, above, layer.table),
                "carry_back": (layer.weights, error, below, layer.table),
                "update": (layer.weights, a, error, layer.table),
            }[name]
            gc.collect()
            took.append(icount.measure(getattr(fast, name), *arguments))
        counts[name] = (took[0] - took[1]) / (ELEMENTS // 2 * OUTPUTS)
    return counts


def steps(case):
    """Instructions of the mean sample of a round, from the sensor's numbers to the next sample."""
    network = Network(Plan(**case["plan"]))
    with open("base.bin", "rb") as file:
        file.readinto(network.base)
    network.begin(case["seed"])
    total = samples = 0
    for local, phase in ((1, "support"), (0, "query")):
        network.begin_phase()
        for sample in case[phase]:
            x, y = [plain(values) for values in sample]
            gc.collect()
            total += icount.measure(one, network, x, y, local)
            samples += 1
    return total / samples, [network.loss, sum(network.theta), sum(network.phi)]


def plain(values):
    """As a sensor's main.py gives them: one value as a number, several in an array, or a class."""
    if isinstance(values, int):
        return values
    values = array("f", unhexlify(values)) if isinstance(values, str) else array("f", values)
    return values[0] if len(values) == 1 else values


def one(network, x, y, local):
    network.read(x, y)
    network.step(local)


with open(sys.argv[1]) as file:
    case = json.load(file)
print(json.dumps({"kernels": kernels()}))
instructions, proof = steps(case)
print(json.dumps({"step": instructions, "proof": proof}))
