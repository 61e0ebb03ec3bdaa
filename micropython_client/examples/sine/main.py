"""The paper's first task: in every round this board sees another sine, and the fleet learns how to learn sines.

Beside this file lies config.json, such as {"broker": "mqtt://192.168.1.10", "fleet": "demo", "board": "board-00"}.
A sensor's main.py looks the same, with readings in place of the formula.
"""

import math
import random

from tinymetafed import Client


def samples(round_):
    random.seed(round_ * 8191 + sum(client.board.encode()))
    amplitude = random.uniform(0.1, 5)
    phase = random.uniform(0, 2 * math.pi)
    while True:
        x = random.uniform(-5, 5)
        yield x, amplitude * math.sin(x + phase)


client = Client("config.json")
client.run(samples)
