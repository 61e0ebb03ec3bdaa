"""A board that takes part as a task of asyncio, beside one that counts its turns.

Its samples lie in files, one a round; after the last one they have ended. Before each sample it
waits until the other task has had a turn.
"""

import asyncio
import json
import os

from tinymetafed import Client, aio


class Samples:
    """Those of all rounds."""

    def __init__(self):
        rounds = sorted(int(name[8:]) for name in os.listdir() if name.startswith("samples-"))
        self.lines = []
        for round_ in rounds:
            with open("samples-%d" % round_) as file:
                self.lines.extend(file)

    def __aiter__(self):
        return self

    async def __anext__(self):
        turn = other.turns
        while other.turns == turn:
            await asyncio.sleep_ms(1)
        if not self.lines:
            raise StopAsyncIteration
        x, y = json.loads(self.lines.pop(0))
        return x, y


class Other:
    turns = 0

    async def run(self):
        while True:
            self.turns += 1
            await asyncio.sleep_ms(0)


async def main():
    running = asyncio.create_task(other.run())
    client = Client("config.json")
    await aio.run(client, Samples())
    running.cancel()
    print("ended as", client.state)


other = Other()
asyncio.run(main())
