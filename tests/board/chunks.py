"""Runs on MicroPython: what comes of chunks during a fetch; prints [version, model] as JSON.

Usage: micropython chunks.py FLEET FILE, with a line [topic, chunk in hex] a message; the first
one's chunk is the plan.
"""

import json
import sys
from binascii import hexlify, unhexlify

from tinymetafed import Client, session

session.say = lambda _: None  # What it says would stand among the lines of JSON.

board = Client({"broker": "127.0.0.1", "fleet": sys.argv[1], "board": "one"})
with open(sys.argv[2]) as file:
    messages = [json.loads(line) for line in file]
board._on_plan(unhexlify(messages[0][1]))
while board._plan is None:
    board.step()
board._model.begin_fetch()
for topic, payload in messages[1:]:
    board._on_message(topic.encode(), unhexlify(payload))
print(json.dumps([board._model.version, hexlify(bytes(board._network.base)).decode()]))
