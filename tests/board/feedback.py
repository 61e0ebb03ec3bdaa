"""Runs on MicroPython: error feedback through the rounds of a case; prints a JSON line a case.

Usage: micropython feedback.py CASES.json
The host's counterpart is in tests/protocol/test_feedback.py.
"""

import gc
import json
import sys
from array import array
from binascii import hexlify

from tinymetafed import sparse


def play(case):
    tensors = array("i", case["tensors"])
    parameters = sum(tensors)
    residual = array("h", bytes(2 * parameters))
    codec = sparse.Codec(tensors, case["value_bits"], residual)
    size = sparse.block_size(case["top"], parameters, len(tensors), case["value_bits"])
    out = bytearray(b"\xa5" * size)
    base = array("h", case["base"])
    rounds = []
    for before, is_sent in case["rounds"]:
        theta = array("i", before)
        gc.collect()
        used = gc.mem_alloc()
        end = codec.encode(theta, base, case["top"], out, 0)
        if gc.mem_alloc() != used:
            raise ValueError("encoding took heap")
        if list(theta) != before:
            raise ValueError("encoding changed the parameters")
        block = memoryview(out)[:end]
        if not is_sent:
            used = gc.mem_alloc()
            codec.take_back(block)
            if gc.mem_alloc() != used:
                raise ValueError("applying a block took heap")
        rounds.append([hexlify(bytes(block)).decode(), list(residual)])
    return rounds


with open(sys.argv[1]) as file:
    cases = json.load(file)
for case in cases:
    print(json.dumps(play(case)))
