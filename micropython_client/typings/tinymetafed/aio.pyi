"""Take part in a fleet as one task among others of asyncio. Loaded only where it is imported."""

from collections.abc import AsyncIterator

from tinymetafed.client import Client, _Battery, _Sample, _Source

async def run(
    client: Client, source: _Source | AsyncIterator[_Sample], battery: _Battery | None = None
) -> None:
    """Take part until the source of samples ends.

    Others have their turn after each step. A step is a message or a sample; one that sends or
    connects waits for the broker, and so do all other tasks.

    Args:
        client: a tinymetafed.Client.
        source: as Client.run takes it; or an asynchronous iterator, an object with __anext__, which
            lets others run while it waits for its sensor.
        battery: as Client.run takes it.
    """
