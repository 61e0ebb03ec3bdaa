"""Ports for brokers that are started later, or go away and come back.

A port that the kernel hands out may be some client's by the time that it is needed: thousands of
connections come and go here. These lie below what it hands out, and each worker has its own.
"""

import os
import random
import socket
from collections.abc import Iterator
from typing import Final

FIRST: Final = 20_000
SPAN: Final = 1500
"""Ports of a worker; eight of them end below 32,768, where those of the kernel begin."""


def _in_turn() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
    place = random.randrange(SPAN)  # Another run on this machine is likely elsewhere.
    while True:
        place = (place + 1) % SPAN
        yield FIRST + worker * SPAN + place


_ports: Final = _in_turn()


def free_port() -> int:
    """A TCP port on loopback that nobody uses, and that is given to no other test soon."""
    for port in _ports:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError
