"""A board that takes part by steps, from a loop of its own. Says each state that it comes to.

Its samples lie in files, one a round. More than one sample in a step is an error.
"""

import json

from tinymetafed import Client

taken = [0]


def samples(round_):
    with open("samples-%d" % round_) as file:
        for line in file:
            taken[0] += 1
            x, y = json.loads(line)
            yield x, y


client = Client("config.json")
client.begin(samples)
state = None
while True:
    if client.state != state:
        state = client.state
        print("state", state)
    before = taken[0]
    client.step(5)
    count = taken[0] - before
    if count > 1 or (count and state != "training"):
        raise RuntimeError("a step took %d samples in %s" % (count, state))
