"""Runs on MicroPython: what becomes of bytes that nobody vouches for; prints a JSON line each.

Usage: micropython fuzz.py blocks|messages|plans FILE
Each line of FILE is, in hexadecimal, a message; or a block, after the sizes of its tensors.
"""

import gc
import json
import sys
from array import array
from binascii import crc32, hexlify, unhexlify

from tinymetafed import messages, sparse
from tinymetafed.errors import MessageError, ModelError
from tinymetafed.network import Network

UNPACK = {
    "Plan": messages.unpack_plan,
    "Round": messages.unpack_round,
    "Chunk": messages.unpack_chunk,
    "Delta": messages.unpack_delta,
    "Receipt": messages.unpack_receipt,
}


def try_block(line):
    """The checksum of a model of threes with the block applied, or null where it is refused."""
    sizes, _, block = line.partition(":")
    tensors = array("i", [int(size) for size in sizes.split(",")])
    base = array("h", [3] * sum(tensors))
    try:
        sparse.Codec(tensors).apply(unhexlify(block), base)
    except MessageError:
        if any(weight != 3 for weight in base):
            return "refused, but the model changed"
        return None
    return crc32(base)


def try_message(line):
    """What each reader makes of it: the fields, or null where it is refused."""
    data = unhexlify(line)
    outcome = {}
    for kind, unpack in UNPACK.items():
        try:
            outcome[kind] = [_shown(value) for value in unpack(data)]
        except MessageError:
            outcome[kind] = None
        except Exception as error:
            outcome[kind] = repr(error)
    return outcome


def _shown(value):
    if isinstance(value, memoryview):
        return hexlify(bytes(value)).decode()
    return [_shown(inner) for inner in value] if isinstance(value, list) else value


def try_plan(line):
    """What becomes of it: refused, too large for this board, or trained with."""
    try:
        plan = messages.unpack_plan(unhexlify(line))
    except MessageError:
        return "refused"
    canaries = [array("I", [0xCA11AB1E] * 30)]
    try:
        network = Network(plan)
        sparse.Codec(network.tensors, plan.value_bits)
        tensors = len(network.tensors)
        block = sparse.block_size(plan.top, len(network.theta), tensors, plan.value_bits)
        messages.UpdateWriter("board", block)
        x = array("f", [1.5] * network._layers[0].inputs)
    except (ModelError, MemoryError):  # Those for which a client sits out.
        return "too large"
    canaries.append(array("I", [0xCA11AB1E] * 30))
    network.begin(7)
    network.read(x, 0 if plan.loss or network.outputs == 1 else [0.25] * network.outputs)
    for local in (1, 0):
        network.begin_phase()
        network.step(local)
    network.predict(x)
    gc.collect()
    for canary in canaries:
        if any(word != 0xCA11AB1E for word in canary):
            return "something else was written to"
    if any(not -32768 <= weight <= 32767 for weight in network.theta):
        return "a weight has left its range"
    return "trained"


attempt = {"blocks": try_block, "messages": try_message, "plans": try_plan}[sys.argv[1]]
with open(sys.argv[2]) as file:
    for line in file:
        print(json.dumps(attempt(line.strip())))
