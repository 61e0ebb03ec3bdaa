"""Runs on MicroPython: answers golden vectors; prints a JSON line a vector.

Usage: micropython golden.py sparse|messages|hashes FOLDER
"""

import json
import sys
from array import array
from binascii import hexlify, unhexlify

from tinymetafed import entropy, messages, sparse
from tinymetafed.cohort import fnv1a, is_canary, is_invited, ticket
from tinymetafed.messages import Plan
from tinymetafed.network import Network
from tinymetafed.words import draw, read_floats

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
                "query_correct",
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
    draw(weights, count, limit, state)
    return list(weights)


def to_activation(number):
    word = array("i", [0])
    if read_floats(array("f", [number]), word, 0, 1) >= 0:
        raise ValueError("%r is taken for infinite" % number)
    return word[0]


def layer_seed(seed, layer):
    """Where the generators of a network with so many layers start a round."""
    entries = [[0, 1, 1, 1, 1, 1, 1, i & 1, 1] for i in range(layer + 2)]
    network = Network(Plan(1, 1, 0, entries, 1, 1, 1, 1, 1, 1, 8, 0))
    network.begin(seed)
    return network._layers[layer].table[16] & 0xFFFFFFFF


def cross_entropy(outputs, label):
    """Errors and loss; the exponential and the logarithm are in there."""
    error = array("i", bytes(4 * len(outputs)))
    tally = array("i", (len(outputs), 0, 0, 32767))
    entropy.derive(array("i", outputs), array("i", [label]), error, tally)
    answer = list(error)
    answer.append(tally[1])
    return answer


FUNCTIONS = {
    "fnv1a": fnv1a,
    "ticket": ticket,
    "is_invited": lambda board, number, limit, chosen: is_invited(
        board, number, limit, unhexlify(chosen)
    ),
    "is_canary": is_canary,
    "shard": lambda name: fnv1a(name) % 64,
    "uniform_weights": uniform_weights,
    "to_activation": to_activation,
    "layer_seed": layer_seed,
    "cross_entropy": cross_entropy,
}


def answer_function(vector):
    function = FUNCTIONS.get(vector["name"])  # None: a board has it only within another one.
    return function and [function(*arguments) for arguments, _ in vector["cases"]]


ANSWER = {"sparse": answer_sparse, "messages": answer_message, "hashes": answer_function}
what, folder = sys.argv[1:]
with open("%s/%s.json" % (folder, what)) as file:
    vectors = json.load(file)
for each in vectors:
    print(json.dumps(ANSWER[what](each)))
