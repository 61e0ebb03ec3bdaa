"""Runs on a board: a round with what a client holds; prints the update and the heap, as JSON.

Each line of the first file is JSON: the plan's fields and the seed; then a sample a line, so that a
board holds one at a time. The second file has the published weights. Usage: micropython round.py
ROUND BASE
"""

import gc
import json
import sys
from array import array
from binascii import hexlify

from tinymetafed import messages, sparse
from tinymetafed.messages import Plan
from tinymetafed.network import Network

gc.collect()
code = gc.mem_alloc()
with open(sys.argv[1]) as file:
    case = json.loads(file.readline())
    plan = Plan(**case["plan"])
    network = Network(plan)
    tensors = network.tensors
    block = sparse.block_size(plan.top, len(network.theta), len(tensors), plan.value_bits)
    writer = messages.UpdateWriter("board-00", block)
    codec = sparse.Codec(tensors, plan.value_bits)
    with open(sys.argv[2], "rb") as base:
        network.base[:] = base.read()
    network.begin(case["seed"])
    del case
    losses = []
    for local, count in ((1, plan.support), (0, plan.query)):
        network.begin_phase()
        for _ in range(count):
            x, y = json.loads(file.readline())
            network.read(array("f", x), y)
            network.step(local)
        losses.append(network.loss)
facts = (plan.support, plan.query, losses[0], losses[1], network.told, 1, 2, 3, 4)
start = writer.begin(plan.lineage, 5, 6, facts)
end = codec.encode(network.theta, network.base, plan.top, writer.out, start)
update = writer.end(end)
gc.collect()
print(
    json.dumps(
        {
            "update": hexlify(bytes(update)).decode(),
            "code": code,
            "peak": gc.mem_alloc(),
            "heap": gc.mem_alloc() + gc.mem_free(),
        }
    )
)
