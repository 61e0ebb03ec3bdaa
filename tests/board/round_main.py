"""A board of test_rounds.py, in which the test is the aggregator.

It says in which rounds it trains and what it fetches. Where a file `hold` names a round and a
version, it stays in the middle of its training until it has heard of that. While there is a file
`rest`, it sleeps between rounds. A file `battery` holds its battery's level.
"""

import json
import time

from tinymetafed import Client


class Talking(Client):
    """Says what it does about its model."""

    def _go(self, event):
        is_moved = super()._go(event)
        if is_moved and self.state == "fetching":
            print("fetches", self._round.version)
        return is_moved

    def _on_message(self, topic, payload):
        super()._on_message(topic, payload)
        if payload and bytes(topic).startswith(self._chunks):
            print("chunk")


def read(name):
    """The number in a file, or two of them; None where there is no file."""
    try:
        with open(name) as file:
            return json.loads(file.read())
    except OSError:
        return None


def is_held():
    wanted = read("hold")
    heard = client._round
    return wanted is not None and heard is not None and wanted != [heard.round, heard.version]


def samples(round_):
    print("trains in", round_)
    with open("samples-%d" % round_) as file:
        for i, line in enumerate(file):
            if i == 7:
                while is_held():
                    print("held in", round_)
                    time.sleep_ms(5)
                    yield None  # a sample that is skipped: the board listens after each
            x, y = json.loads(line)
            yield x, y


def idle():
    if read("rest") is not None and client.rest():
        while read("rest") is not None:
            time.sleep_ms(5)
    time.sleep_ms(5)


def battery():
    level = read("battery")
    if level is not None:
        print("battery", level)
    return level


client = Talking("config.json")
client.run(samples, idle, battery)
