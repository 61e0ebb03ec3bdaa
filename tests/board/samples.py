"""Runs on MicroPython: what a network makes of samples, odd ones too; prints a JSON line each.

Usage: micropython samples.py odd|forms; or samples.py counts FILE, a line of JSON a conversion
"""

import json
import struct
import sys
from array import array

from tinymetafed.errors import ModelError
from tinymetafed.messages import Plan
from tinymetafed.network import Network
from tinymetafed.samples import Activations, Counts

NAN, INF = float("nan"), float("inf")


def network(inputs, outputs, loss):
    layers = [[0, 1, 1, inputs, 3, 1, 1, 2, 2000], [0, 1, 1, 3, outputs, 1, 1, 1, 2000]]
    made = Network(Plan(1, 1, loss, layers, 655, 328, 9, 9, 32767, 20, 8, 0))
    made.begin(1)
    return made


def others(words):
    """An object with words of its own; the third is 512, which is one."""
    made = Activations(words)
    made.words[words - 1] = 512
    return made


ONE, THREE, CLASSES = network(1, 1, 0), network(3, 2, 0), network(3, 4, 1)
SAMPLES = (
    # Sound ones, as the words that they are to the network.
    ("a number each", ONE, 0.5, -1),
    ("a list each", ONE, [0.5], (-1.0,)),
    ("a number and a list", ONE, 0.5, [-1]),
    ("lists", THREE, [1, 2.5, -3], [0, 0.25]),
    ("a tuple and an array", THREE, (1, 2.5, -3), array("f", (0, 0.25))),
    ("an array of doubles", THREE, array("d", (1, 2.5, -3)), [0, 0.25]),
    ("an array of integers", THREE, array("h", (1, 2, -3)), array("b", (0, 1))),
    ("beyond the range", THREE, [99.0, -99.0, 15.999], [1e30, -1e30]),
    ("the network's own format", THREE, others(3), others(2)),
    ("a class", CLASSES, [1, 2, 3], 3),
    ("the first class", CLASSES, [1, 2, 3], 0),
    # Odd ones.
    ("not a number", ONE, NAN, 0.0),
    ("no number for a label", ONE, 0.0, NAN),
    ("infinite", ONE, -INF, 0.0),
    ("an integer too large for a float", ONE, 10**400, 0.0),
    ("not a number within", THREE, [1, NAN, 3], [0, 0]),
    ("infinite within an array", THREE, array("f", (1, 2, INF)), [0, 0]),
    ("an infinite label", THREE, [1, 2, 3], [0, -INF]),
    ("too short", THREE, [1, 2], [0, 0]),
    ("too long", THREE, [1, 2, 3, 4], [0, 0]),
    ("empty", THREE, [], [0, 0]),
    ("a label too short", THREE, [1, 2, 3], [0]),
    ("a number for several", THREE, 1.0, [0, 0]),
    ("several for a number", ONE, [1, 2], 0),
    ("nothing", THREE, None, [0, 0]),
    ("nothing for a label", THREE, [1, 2, 3], None),
    ("nothing for a number", ONE, None, 0),
    ("a text", THREE, "abc", [0, 0]),
    ("a text for a number", ONE, "a", 0),
    ("lists in a list", THREE, [[1], [2], [3]], [0, 0]),
    ("another model's format", THREE, others(4), [0, 0]),
    ("a class too high", CLASSES, [1, 2, 3], 4),
    ("a class below zero", CLASSES, [1, 2, 3], -1),
    ("half a class", CLASSES, [1, 2, 3], 1.5),
    ("no class", CLASSES, [1, 2, 3], None),
    ("a class in a list", CLASSES, [1, 2, 3], [1]),
)


def odd():
    for name, net, x, y in SAMPLES * 2:  # What was odd once must not spoil what follows.
        try:
            net.read(x, y)
        except (ModelError, TypeError, ValueError) as error:
            print(json.dumps([name, type(error).__name__, str(error)]))
        else:
            print(json.dumps([name, list(net._x.words), list(net._y.words)]))


def counts(path):
    with open(path) as file:
        for line in file:
            bits, offset, is_signed, counts = json.loads(line)
            (scale,) = struct.unpack("<f", struct.pack("<I", bits))  # text would not be exact
            try:
                converter = Counts(len(counts), scale, offset, is_signed)
            except ModelError as error:
                print(json.dumps(str(error)))
                continue
            buffer = array("h" if is_signed else "H", counts)
            words = list(converter.read(buffer).words)
            if list(converter.read(bytearray(buffer)).words) != words:
                raise ValueError("bytes at any address are other counts")
            print(json.dumps([list(converter._table), words]))
    refusals()


def refusals():
    """A buffer of another length, also one that changed its length, or no buffer at all."""
    converter = Counts(2, 1.0)
    grows = array("h", (1, 2))
    converter.read(grows)
    grows.append(3)
    for counts in (array("h", (1,)), grows, b"\0\0\0", [1, 2, 3, 4], 4, None):
        try:
            converter.read(counts)
        except (ModelError, TypeError) as error:
            print(json.dumps(type(error).__name__))
        else:
            print(json.dumps("taken"))


def in_every_form(i, x, pair):
    """Sample i as numbers, as an array, or as one of two activations; the others are misleading."""
    form = (x, array("f", x), pair[0], x, pair[1])[i // 3 % 5]
    for made in pair:
        for k in range(len(x)):
            made.words[k] = int(512 * x[k]) if made is form else 99
    return form


def forms():
    """What a network knows after samples that were numbers; and that were also activations."""
    for inputs, outputs, loss in ((3, 4, 1), (3, 2, 0), (1, 1, 0)):
        nets = network(inputs, outputs, loss), network(inputs, outputs, loss)
        for net in nets:  # Weights of zero would not learn.
            net.base[:] = bytes([i % 5 for i in range(len(net.base))])
            net.begin(1)
        pair = Activations(inputs), Activations(inputs)
        for i in range(48):
            x = [(i + k) % 9 / 4 - 1 for k in range(inputs)]
            y = i % 3 if loss else [i % 5 / 8] * outputs
            form = in_every_form(i, x, pair)
            if inputs == 1:
                x, y = x[0], y[0]
                form = x if isinstance(form, list) else form
            # A program may ask for a prediction between two samples.
            nets[1].predict(pair[i >> 1 & 1])
            for net, sample in ((nets[0], x), (nets[1], form)):
                net.read(sample, y)
                net.step(i & 1)
        print(json.dumps([[list(net.theta), list(net.phi), net.predict(x)] for net in nets]))


{"odd": odd, "counts": counts, "forms": forms}[sys.argv[1]](*sys.argv[2:])
