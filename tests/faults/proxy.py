"""A bad network: a TCP proxy on loopback that knows where an MQTT packet begins and ends.

What it does to a packet is drawn from a seeded generator. It delays packets, cuts the connection
before one or in the middle of one, and sends PUBLISH packets twice or after the one that follows.
"""

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Final, Self

import numpy as np

PUBLISH: Final = 3
DELAY_SECONDS: Final = 0.05
HOLD_SECONDS: Final = 0.05
"""How long a packet waits for one that may overtake it."""


class Mischief(Enum):
    """What can happen to a packet."""

    DELAY = "delayed"
    CUT = "cut"
    """The connection ends before the packet."""
    HALVE = "halved"
    """Half of the packet arrives, then the connection ends."""
    REPEAT = "repeated"
    REORDER = "reordered"


ONLY_PUBLISH: Final = frozenset({Mischief.REPEAT, Mischief.REORDER})
"""Of other packets MQTT promises the order, and TCP that none comes twice."""


@dataclass(frozen=True)
class Packet:
    """An MQTT packet (3.1.1, section 2): its bytes, and its type from 1 to 14."""

    data: bytes

    @property
    def kind(self) -> int:
        return self.data[0] >> 4


async def read_packet(reader: asyncio.StreamReader) -> Packet:
    """The next packet.

    Raises:
        asyncio.IncompleteReadError: the connection has ended.
    """
    head = await reader.readexactly(1)
    length = shift = 0
    while True:
        byte = await reader.readexactly(1)
        head += byte
        length |= (byte[0] & 127) << shift
        shift += 7
        if byte[0] < 128:
            return Packet(head + await reader.readexactly(length))


class Proxy:
    """Passes connections on to a broker on this machine, in a thread of its own.

    Args:
        broker: the broker's port.
        rates: how likely each mischief is for a packet, in each direction.
        seed: of the generator.
    """

    def __init__(self, broker: int, rates: Mapping[Mischief, float], seed: int) -> None:
        self.port = 0
        """Where it listens, once it runs."""
        self.done: Counter[Mischief] = Counter()
        self._broker = broker
        self._rates = dict(rates)
        self._rng = np.random.default_rng(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def calm(self) -> None:
        """Do no more harm."""
        self._rates = {}

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._accept, "127.0.0.1")

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection's life: whichever direction ends first ends both."""
        with contextlib.closing(writer):
            try:
                upstream, downstream = await asyncio.open_connection("127.0.0.1", self._broker)
            except OSError:
                return
            with contextlib.closing(downstream):
                directions = [
                    self._loop.create_task(self._pass_on(reader, downstream)),
                    self._loop.create_task(self._pass_on(upstream, writer)),
                ]
                try:
                    await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for direction in directions:
                        direction.cancel()
                    await asyncio.gather(*directions, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held: bytes = b""
        coming = self._loop.create_task(read_packet(reader))
        try:
            while True:
                if held:
                    await asyncio.wait([coming], timeout=HOLD_SECONDS)
                    if not coming.done():
                        writer.write(held)
                        held = b""
                packet = await coming
                coming = self._loop.create_task(read_packet(reader))
                mischief = self._draw(packet)
                match mischief:
                    case Mischief.DELAY:
                        await asyncio.sleep(self._rng.uniform(0, DELAY_SECONDS))
                    case Mischief.CUT:
                        return
                    case Mischief.HALVE:
                        writer.write(packet.data[: len(packet.data) // 2])
                        await writer.drain()
                        return
                    case Mischief.REPEAT:
                        writer.write(packet.data)
                    case Mischief.REORDER if not held:
                        held = packet.data
                        continue
                writer.write(packet.data + held)
                held = b""
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # One side has gone.
        finally:
            coming.cancel()

    def _draw(self, packet: Packet) -> Mischief | None:
        for mischief, rate in self._rates.items():
            if mischief in ONLY_PUBLISH and packet.kind != PUBLISH:
                continue
            if self._rng.random() < rate:
                self.done[mischief] += 1
                return mischief
        return None
