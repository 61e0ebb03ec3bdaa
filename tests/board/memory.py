"""Runs on MicroPython: heap taken by a thousand samples; prints [what, bytes], a JSON line each.

Usage: micropython memory.py PORT, of a broker on this machine
"""

import gc
import json
import sys
from array import array

from tinymetafed import Client, session
from tinymetafed.messages import Plan
from tinymetafed.network import Network
from tinymetafed.samples import Activations, Counts

SAMPLES = 1000
REST = (655, 328, 9, 9, 32767, 20, 8, 0)
SENSOR = Plan(
    1,
    1,
    0,
    [[0, 1, 1, 6, 9, 1, 1, 2, 1000], [0, 1, 1, 9, 5, 1, 1, 3, 900], [0, 1, 1, 5, 2, 1, 1, 0, 900]],
    *REST,
)
SINE = Plan(1, 1, 0, [[0, 1, 1, 1, 32, 1, 1, 2, 4096], [0, 1, 1, 32, 1, 1, 1, 1, 724]], *REST)
# Every kind of layer, local and not.
DRAWINGS = Plan(
    1,
    1,
    1,
    [
        [0, 8, 8, 1, 4, 3, 1, 2, 1365],
        [1, 6, 6, 4, 4, 3, 1, 0, 1365],
        [0, 4, 4, 4, 6, 1, 1, 3, 2048],
        [2, 4, 4, 6, 6, 2, 2, 0, 4096],
        [0, 1, 1, 24, 5, 1, 1, 1, 800],
    ],
    *REST,
)
X = (0.5, -1.25, 3.0, 0.1, 20.0, -7.5)
Y = (1.5, -0.5)
POINTS = array("f", [i % 5 / 4 for i in range(64)])
COUNTS = array("h", [i * 500 for i in range(64)])


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


def convert(network, counts, buffer):
    count = SAMPLES
    while count:
        network.read(counts.read(buffer), 3)
        count -= 1


def networks():
    activations = Activations(64)
    activations.words[5] = 512
    for name, plan, x, y in (
        ("drawings", DRAWINGS, POINTS, 3),
        ("drawings, as activations", DRAWINGS, activations, 4),
        ("drawings, as a list", DRAWINGS, list(POINTS), 0),
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


def counts():
    network = Network(DRAWINGS)
    for name, buffer in (("an array", COUNTS), ("a bytearray", bytearray(COUNTS))):
        converter = Counts(64, 1 / 32768)
        converter.read(buffer)  # It is looked at, at some cost, when it is first met.
        show("counts in %s" % name, taken(convert, network, converter, buffer))


def step_to(board, state):
    while board.state != state:
        board.step()


def learn_by_steps(board):
    count = SAMPLES
    while count:
        board.step()
        count -= 1


def clients(port):
    for name, plan, sample in (
        ("values", SENSOR, (array("f", X), Y)),
        ("classes", DRAWINGS, (POINTS, 4)),
        ("counts", DRAWINGS, (Counts(64, 1 / 32768).read(COUNTS), 4)),
    ):
        board = Client({"broker": "127.0.0.1:%d" % port, "fleet": "memory", "board": "one"})
        board._link.open()
        board._new_plan = Plan(*plan[:6], 2 * SAMPLES + 1, 2 * SAMPLES, *plan[8:])
        board.begin(source(sample))
        step_to(board, "adopting")
        step_to(board, "idle")
        board._model.version = 0
        board._round = session.Task(plan.lineage, 1, 0, 0, b"", is_invited=True)
        step_to(board, "training")
        board.step()
        for side in ("local", "global"):
            board._link.open()
            for state in ("up", "down"):
                if board._link.is_up != (state == "up"):
                    raise ValueError("the link is not %s" % state)
                size = taken(learn_by_steps, board)
                show("client, %s, link %s, %s" % (name, state, side), size)
                board._link.close()
        if board.state != "encoding":
            raise ValueError("it learned from other samples than were meant")
        if board.skipped:
            raise ValueError("%d samples were skipped" % board.skipped)


session.say = lambda _: None  # Stdout is for JSON.
networks()
counts()
clients(int(sys.argv[1]))
# That the measure measures: six new floats and their list.
show("six floats", taken(lambda: [x * 1.5 for x in X] and None))
