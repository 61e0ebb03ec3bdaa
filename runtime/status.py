"""What a monitor asks a service over HTTP, answered by a thread of its own.

::

    /metrics   for Prometheus
    /health    200 while the service's loop turns, else 503: it should be restarted
    /ready     200 while it can do its work, else 503 with what is missing, one line each

HEAD is answered as GET is, without the body. It answers while the loop hangs, and says so. There is
no password: it tells nothing of boards or weights, but the address should not be reachable from
outside.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Final, Protocol
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, MetricsHandler

from runtime.errors import SettingsError
from runtime.settings import Address

log = logging.getLogger(__name__)

HANGS_SECONDS: Final = 10.0
"""Without a turn of the loop: a turn takes 0.2 s, a locked journal is given up after 5 s."""
STOP_SECONDS: Final = 0.1
"""How late the thread may notice that it is to end."""
REQUEST_SECONDS: Final = 5.0
"""That a client may take to say what it wants."""


class Vitals(Protocol):
    """How a service is doing, as its loop last saw it."""

    registry: CollectorRegistry
    """Its metrics."""
    turned_at: float
    """When its loop last turned, on time.monotonic()'s clock."""
    connected: bool
    """Whether the broker was within reach at that time."""
    refused: frozenset[str]
    """Topics that it did not let us read."""


class _Server(ThreadingMixIn, TCPServer):
    """Not http.server's, which looks up its own name and may wait long for that."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: Address, handler: type[MetricsHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        super().__init__(address, handler)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        """A client that went away in mid-answer is its own affair."""
        log.debug("an HTTP request failed", exc_info=True)  # noqa: LOG014 - called in a handler


def _handler(vitals: Vitals, state: Path) -> type[MetricsHandler]:
    """Answers with what there is to tell."""

    class Handler(MetricsHandler):
        registry = vitals.registry
        timeout = REQUEST_SECONDS

        def do_GET(self) -> None:  # noqa: N802 - the library's name
            match urlsplit(self.path).path:
                case "/metrics":
                    super().do_GET()
                case "/health":
                    self._answer(_hangs(vitals))
                case "/ready":
                    self._answer(_hangs(vitals) + _lacks(vitals, state))
                case _:
                    self.send_error(HTTPStatus.NOT_FOUND, "ask for /metrics, /health or /ready")

        def do_HEAD(self) -> None:  # noqa: N802 - the library's name
            self.do_GET()

        def end_headers(self) -> None:
            super().end_headers()
            if self.command == "HEAD":  # As GET, without the body (RFC 9110, 9.3.2).
                self.wfile = BytesIO()

        def _answer(self, problems: list[str]) -> None:
            body = ("\n".join(problems or ["ok"]) + "\n").encode()
            self.send_response(HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


@contextmanager
def serving(address: Address | None, vitals: Vitals, state: Path) -> Iterator[None]:
    """Answer on this address for a while; nowhere if there is none.

    Args:
        address: where to listen.
        vitals: what to tell.
        state: the service's file, which must be writable for it to be ready.

    Raises:
        SettingsError: nobody can listen there.
    """
    if address is None:
        yield
        return

    try:
        server = _Server(address, _handler(vitals, state))
    except (OSError, UnicodeError) as error:
        raise SettingsError(
            f"metrics: nobody can listen on {address} ({error}); is the port taken, and the "
            f"address one of this machine?"
        ) from error
    with server:
        threading.Thread(
            target=server.serve_forever, args=(STOP_SECONDS,), name="status", daemon=True
        ).start()
        log.info("metrics at http://%s/metrics", address)
        try:
            yield
        finally:
            server.shutdown()


def _hangs(vitals: Vitals) -> list[str]:
    still = time.monotonic() - vitals.turned_at
    return [f"the loop has not turned for {still:.0f} s"] if still > HANGS_SECONDS else []


def _lacks(vitals: Vitals, state: Path) -> list[str]:
    problems = []
    if not vitals.connected:
        problems.append("no connection to the broker")
    problems += [f"the broker does not let us read {topic}" for topic in sorted(vitals.refused)]
    if not os.access(state, os.W_OK):
        problems.append(f"{state}: absent or not writable")
    return problems
