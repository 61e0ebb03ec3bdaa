"""Runs on MicroPython: what becomes of an update whose round is over; prints a JSON line a case.

Usage: micropython giving_up.py PORT FLEET PLAN ROUND NEXT_ROUND RECEIPT, of a broker on this
machine; the messages in hexadecimal.
"""

import json
import struct
import sys
from binascii import hexlify, unhexlify

from tinymetafed import Client, session

session.say = lambda _: None  # What it says would stand among the lines of JSON.


def samples():
    x = 0
    while True:
        x = (x + 3) % 7
        yield x - 3, x * x / 10


def step_until(board, state):
    board.step()
    while board.state != state:
        board.step()


def play(case, messages):
    plan, now, after, receipt = messages
    board = Client({"broker": "127.0.0.1:%s" % port, "fleet": fleet, "board": "one"})
    board._link.open()
    board.begin(samples())
    board._on_plan(plan)
    step_until(board, "idle")
    network = board._network
    base = [i * 97 % 2001 - 1000 for i in range(len(network.theta))]
    network.base[:] = struct.pack("<%dh" % len(base), *base)
    board._model.version = 0
    board._on_round(now)
    step_until(board, "encoding")
    step_until(board, "idle")
    changes = [theta - base[i] for i, theta in enumerate(network.theta)]
    block = hexlify(bytes(board._changes)).decode()
    if case != "never sent":
        step_until(board, "waiting")
    if case == "journaled":
        board._on_receipt(receipt)
    board._on_round(after)
    if board._update is not None:
        raise ValueError("the round is over, but not the update")
    board._link.close()
    residual = list(board._codec._residual)
    return {"case": case, "changes": changes, "block": block, "residual": residual}


port, fleet = sys.argv[1:3]
messages = [unhexlify(message) for message in sys.argv[3:]]
for case in ("never sent", "sent", "journaled"):
    print(json.dumps(play(case, messages)))
