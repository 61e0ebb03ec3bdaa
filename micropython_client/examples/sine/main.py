"""The paper's first task: in each round this board sees another sine; the fleet learns to learn.

Beside this file lies config.json, such as
{"broker": "mqtt://192.168.1.10", "fleet": "demo", "board": "board-00"}. A sensor's main.py looks
the same, with readings in place of the formula.
"""

import math
import random
from binascii import crc32

from tinymetafed import Client


def samples(_round):
    """The samples of one round: inputs in [-5, 5], amplitude 0.1 to 5, phase 0 to 2 pi."""
    amplitude = random.uniform(0.1, 5)
    phase = random.uniform(0, 2 * math.pi)
    while True:
        x = random.uniform(-5, 5)
        yield x, amplitude * math.sin(x + phase)


client = Client("config.json")
random.seed(crc32(client.board.encode()))  # so that a run can be repeated
client.run(samples)
