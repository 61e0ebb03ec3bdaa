"""Runs on a board: a whole round with what a client holds; prints a JSON line with bytes of heap.

Usage: micropython heap.py CASE.json
"""

import gc
import json
import struct
import sys
from array import array


def in_use():
    gc.collect()
    return gc.mem_alloc()


with open(sys.argv[1]) as file:
    case = json.load(file)
phases = [
    (local, [(array("f", x), y) for x, y in case[phase]])
    for local, phase in ((1, "support"), (0, "query"))
]
base = struct.pack("<%dh" % len(case["base"]), *case["base"])
fields = case["plan"]
seed = case["seed"]
del case
empty = in_use()  # what the benchmark itself holds is not a board's

from tinymetafed import messages, sparse  # noqa: E402
from tinymetafed.messages import Plan  # noqa: E402
from tinymetafed.network import Network  # noqa: E402

code = in_use() - empty
plan = Plan(**fields)
network = Network(plan)
tensors = network.tensors
block = sparse.block_size(plan.top, len(network.theta), len(tensors))
writer = messages.UpdateWriter("board-00", block)
codec = sparse.Codec(tensors)
network.base[:] = base
built = in_use() - empty
network.begin(seed)
network.read(*phases[0][1][0])  # the first array("f") is looked at, at some cost
gc.collect()
before = gc.mem_alloc()
samples = 0
for local, phase in phases:
    network.begin_phase()
    for x, y in phase:
        network.step(local)
        samples += 1
per_sample = (gc.mem_alloc() - before) / samples
start = writer.begin(plan.lineage, 0, 1, (0,) * 9)
end = codec.encode(network.theta, network.base, plan.top, writer.out, start)
update = writer.end(end)
print(
    json.dumps(
        {
            "code": code,
            "peak": in_use() - empty,
            "per_sample": per_sample,
            "update": len(update),
            "heap": gc.mem_alloc() + gc.mem_free(),
        }
    )
)
