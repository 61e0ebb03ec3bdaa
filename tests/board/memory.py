"""Runs on MicroPython: heap taken by a thousand samples; prints [what, bytes], a JSON line each.

Usage: micropython memory.py PORT, of a broker on this machine
"""

import gc
import json
import sys
from array import array

from tinymetafed import Client
from tinymetafed.messages import Plan
from tinymetafed.network import Network

SAMPLES = 1000
SENSOR = Plan(1, 1, [[6, 9, 2, 1000], [9, 5, 3, 1000], [5, 2, 0, 1000]], 655, 328, 9, 9, 20)
SINE = Plan(1, 1, [[1, 32, 2, 4096], [32, 32, 2, 724], [32, 1, 1, 724]], 655, 328, 9, 9, 112)
X = (0.5, -1.25, 3.0, 0.1, 20.0, -7.5)
Y = (1.5, -0.5)


def taken(function, *arguments):
    """Bytes of heap that a call leaves behind when nothing is collected."""
    gc.collect()
    gc.disable()
    before = gc.mem_alloc()
    function(*arguments)
    after = gc.mem_alloc()
    gc.enable()
    return after - before


def learn(network, x, y, local):
    count = SAMPLES
    while count:
        network.read(x, y)
        network.step(local)
        count -= 1


def source(sample):
    while True:
        yield sample


def show(what, size):
    print(json.dumps([what, size]))


def networks():
    for name, plan, x, y in (
        ("arrays of floats", SENSOR, array("f", X), array("f", Y)),
        ("arrays of integers", SENSOR, array("h", range(6)), array("h", range(2))),
        ("tuples of floats", SENSOR, X, Y),
        ("lists of floats", SENSOR, list(X), list(Y)),
        ("numbers", SINE, 0.5, -1.25),
        ("integers", SINE, 3, -1),
        ("tuples of one", SINE, (0.5,), (1.5,)),
    ):
        network = Network(plan)
        network.begin(1)
        network.read(x, y)  # The first array of floats is looked at, at some cost.
        for side, local in (("local", 1), ("global", 0)):
            show("%s, %s" % (name, side), taken(learn, network, x, y, local))


def client(port):
    board = Client({"broker": "127.0.0.1:%d" % port, "fleet": "memory", "board": "one"})
    board._link.open()  # Adopting a plan may have something to report.
    board._new_plan = SENSOR
    board._adopt()
    board._network.begin(1)
    samples = source((array("f", X), Y))
    board._learn(samples, 1, 1)
    for state in ("up", "down"):
        if board._link.is_up != (state == "up"):
            raise ValueError("the link is not %s" % state)
        for side, local in (("local", 1), ("global", 0)):
            size = taken(board._learn, samples, SAMPLES, local)
            show("client, link %s, %s" % (state, side), size)
        board._link.close()


networks()
client(int(sys.argv[1]))
# That the measure measures: six new floats and their list.
show("six floats", taken(lambda: [x * 1.5 for x in X] and None))
