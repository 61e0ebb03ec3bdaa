"""Runs on MicroPython: answers golden vectors; prints a JSON line a vector.

Usage: micropython golden.py sparse|messages|hashes FOLDER
"""

import json
import sys
from array import array
from binascii import hexlify, unhexlify

from tinymetafed import kernels, messages, sparse
from tinymetafed.cohort import fnv1a, ticket

UNPACK = {
    "Plan": messages.unpack_plan,
    "Round": messages.unpack_round,
    "Chunk": messages.unpack_chunk,
    "Delta": messages.unpack_delta,
    "Receipt": messages.unpack_receipt,
}


def answer_sparse(vector):
    """The block that this board writes, and what the golden block does to a model of zeros."""
    tensors = array("i", vector["tensors"])
    parameters = sum(tensors)
    codec = sparse.Codec(tensors, vector["value_bits"])
    theta = array("i", bytes(4 * parameters))
    for index, change in vector["changes"]:
        theta[index] = change
    zeros = bytearray(2 * parameters)
    # A buffer that is not clean: a board writes into the same one in each round.
    size = sparse.block_size(vector["top"], parameters, len(tensors), vector["value_bits"])
    out = bytearray(b"\xa5" * (size + 3))
    end = codec.encode(theta, zeros, vector["top"], out, 3)
    applied = array("h", zeros)
    codec.apply(unhexlify(vector["block"]), applied)
    return {
        "block": hexlify(out[3:end]).decode(),
        "applied": [[i, change] for i, change in enumerate(applied) if change],
    }


def answer_message(vector):
    """The bytes of an update as this board writes it; the fields of any other message."""
    if vector["message"] == "Update":
        fields = vector["fields"]
        changes = unhexlify(fields["changes"])
        writer = messages.UpdateWriter(fields["board"], len(changes))
        facts = [
            fields[name]
            for name in (
                "support",
                "query",
                "support_loss",
                "query_loss",
                "bytes_up",
                "bytes_down",
                "milliseconds",
                "heap_free",
            )
        ]
        start = writer.begin(fields["lineage"], fields["round"], fields["nonce"], facts)
        writer.out[start : start + len(changes)] = changes
        return hexlify(bytes(writer.end(start + len(changes)))).decode()
    message = UNPACK[vector["message"]](unhexlify(vector["bytes"]))
    return [
        hexlify(bytes(value)).decode() if isinstance(value, memoryview) else value
        for value in message
    ]


def uniform_weights(seed, count, limit):
    weights = array("i", bytes(4 * count))
    state = array("I", [seed])
    kernels.draw(weights, count, limit, state)
    return list(weights)


def to_activation(number):
    word = array("i", [0])
    if kernels.read_floats(array("f", [number]), word, 1) >= 0:
        raise ValueError("%r is taken for infinite" % number)
    return word[0]


FUNCTIONS = {
    "fnv1a": fnv1a,
    "ticket": ticket,
    "shard": lambda name: fnv1a(name) % 64,
    "uniform_weights": uniform_weights,
    "to_activation": to_activation,
}


def answer_function(vector):
    function = FUNCTIONS[vector["name"]]
    return [function(*arguments) for arguments, _ in vector["cases"]]


ANSWER = {"sparse": answer_sparse, "messages": answer_message, "hashes": answer_function}
what, folder = sys.argv[1:]
with open("%s/%s.json" % (folder, what)) as file:
    vectors = json.load(file)
for each in vectors:
    print(json.dumps(ANSWER[what](each)))
