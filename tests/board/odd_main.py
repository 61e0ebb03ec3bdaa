"""A board of the sample tests: one stream for all rounds, with odd samples between the sound ones.

Between rounds, and at its end, it says how many samples it has skipped.
"""

import json
import time

from tinymetafed import Client

ODD = (
    None,
    (float("nan"), 1.0),
    (0.5, float("-inf")),
    ([1.0, 2.0], 1.0),
    (1.0, "text"),
    (1.0, 2.0, 3.0),
    OSError(5),
)


class Stream:
    """The samples of all rounds; before the second of each round come the odd ones."""

    def __init__(self):
        self.round = 0
        self.is_last = False  # its last round's samples are too few
        self.waiting = []

    def __iter__(self):
        return self

    def __next__(self):
        while not self.waiting:
            self.open()
        sample = self.waiting.pop()
        if isinstance(sample, OSError):
            raise sample
        return sample

    def open(self):
        if self.is_last:
            raise StopIteration
        with open("samples-%d" % self.round) as file:
            sound = [json.loads(line) for line in file]
        self.is_last = len(sound) < 11
        self.round += 1
        self.waiting = (sound[:1] + list(ODD) + sound[1:])[::-1]


def idle():
    print("skipped", client.skipped)
    time.sleep_ms(50)


client = Client("config.json")
client.run(Stream(), idle)
print("skipped", client.skipped)
