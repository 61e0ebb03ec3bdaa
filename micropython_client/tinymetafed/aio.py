"""Take part in a fleet as one task among others of asyncio. Loaded only where it is imported."""

import asyncio

from micropython import const

_PAUSE = const(20)  # milliseconds, where there is nothing to do


class _Next:
    """The iterator of a sample that has been waited for, or of what came in its place."""

    def __init__(self):
        self.sample = self.error = None

    async def wait(self, source):
        try:
            self.sample = await source.__anext__()
            self.error = None
        except StopAsyncIteration:
            self.error = StopIteration()
        except Exception as error:
            self.error = error

    def __next__(self):
        if self.error:
            raise self.error
        return self.sample


async def run(client, source, battery=None):
    """Take part until the source of samples ends.

    Others have their turn after each step. A step is a message or a sample; one that sends or
    connects waits for the broker, and so do all other tasks.

    Args:
        client: a tinymetafed.Client.
        source: as Client.run takes it; or an asynchronous iterator, an object with __anext__, which
            lets others run while it waits for its sensor.
        battery: as Client.run takes it.
    """
    waiting = _Next() if hasattr(source, "__anext__") else None
    client.begin(waiting or source, battery)
    while client.state != "stopped":
        if waiting and client.state == "training":
            await waiting.wait(source)
        is_busy = client.step()
        await asyncio.sleep_ms(0 if is_busy else _PAUSE)
