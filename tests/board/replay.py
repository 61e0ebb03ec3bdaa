"""Runs on MicroPython: trains the networks of a file of cases; prints a JSON line a case.

The host's counterpart is tools/replay.py. Usage: micropython replay.py CASES.json
"""

import json
import struct
import sys
from binascii import hexlify

from tinymetafed import sparse
from tinymetafed.messages import Plan
from tinymetafed.network import Network


def replay(case):
    plan = Plan(**case["plan"])
    network = Network(plan)
    network.base[:] = struct.pack("<%dh" % len(case["base"]), *case["base"])
    network.begin(case["seed"])
    losses, correct = [], []
    for local, phase in ((1, "support"), (0, "query")):
        network.begin_phase()
        for x, y in case[phase]:
            network.read(x, y)
            network.step(local)
        losses.append(network.loss)
        correct.append(network.correct)
    codec = sparse.Codec(network.tensors, plan.value_bits)
    parameters, tensors = len(network.theta), len(network.tensors)
    size = sparse.block_size(plan.top, parameters, tensors, plan.value_bits)
    out = bytearray(size + 5)
    theta = list(network.theta)
    end = codec.encode(network.theta, network.base, plan.top, out, 5)
    if list(network.theta) != theta:
        raise ValueError("encoding changed the parameters")
    block = bytes(out[5:end])
    codec.apply(block, network.base)
    return {
        "phi": list(network.phi),
        "theta": theta,
        "losses": losses,
        "correct": correct,
        "block": hexlify(block).decode(),
        "applied": list(struct.unpack("<%dh" % len(case["base"]), network.base)),
        "prediction": network.predict(case["query"][0][0]),
    }


with open(sys.argv[1]) as file:
    cases = json.load(file)
for case in cases:
    print(json.dumps(replay(case)))
