"""Runs on a board: a whole round with what a client holds; prints a JSON line with bytes of heap.

All that is in use counts, the few hundred bytes of this script too. Usage: micropython heap.py
PLAN.json, a plan's fields
"""

import gc
import json
import sys
from array import array

from tinymetafed import messages, sparse
from tinymetafed.messages import Plan
from tinymetafed.network import Network


def in_use():
    gc.collect()
    return gc.mem_alloc()


def train(network, x, y, local, count):
    """Heap that the samples of a phase take, none of it given back."""
    network.begin_phase()
    network.read(x, y)  # an array("f") is looked at, at some cost, when it is first met
    gc.collect()
    before = gc.mem_alloc()
    while count:
        network.read(x, y)
        network.step(local)
        count -= 1
    return gc.mem_alloc() - before


code = in_use()
with open(sys.argv[1]) as file:
    plan = Plan(**json.load(file))
network = Network(plan)
tensors = network.tensors
block = sparse.block_size(plan.top, len(network.theta), len(tensors), plan.value_bits)
writer = messages.UpdateWriter("board-00", block)
codec = sparse.Codec(tensors, plan.value_bits, None)
x = array("f", bytes(4 * len(network._x.words)))
for i in range(len(x)):
    x[i] = i % 7 / 4
y = 0 if plan.loss else array("f", bytes(4 * network.outputs))
network.begin(1)
taken = train(network, x, y, 1, 3) + train(network, x, y, 0, 3)
start = writer.begin(plan.lineage, 0, 1, (0,) * 9)
end = codec.encode(network.theta, network.base, plan.top, writer.out, start)
update = writer.end(end)
print(
    json.dumps(
        {
            "code": code,
            "peak": in_use(),
            "taken": taken,
            "update": len(update),
            "heap": gc.mem_alloc() + gc.mem_free(),
        }
    )
)
