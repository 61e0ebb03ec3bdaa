"""What monitors ask: by GET or, as container health checks and uptime checkers do, by HEAD."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge

from runtime.settings import Address
from runtime.status import HANGS_SECONDS, serving
from tests.support.ports import free_port

PAGES = ["/health", "/ready", "/metrics"]


@dataclass
class Vitals:
    """A service whose loop turns and that has its broker."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    turned_at: float = field(default_factory=time.monotonic)
    connected: bool = True
    refused: frozenset[str] = frozenset()


@dataclass
class Monitor:
    """Asks a service."""

    vitals: Vitals
    address: Address

    def ask(self, path: str, method: str = "GET") -> tuple[HTTPResponse, bytes]:
        connection = HTTPConnection(self.address.host, self.address.port, timeout=5)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[Monitor]:
    vitals, address = Vitals(), Address("127.0.0.1", free_port())
    Gauge("tmf_round", "Rounds that are over.", registry=vitals.registry).set(7)
    state = tmp_path / "journal.db"
    state.touch()
    with serving(address, vitals, state):
        yield Monitor(vitals, address)


@pytest.mark.parametrize("path", PAGES)
def test_head_is_get_without_the_body(monitor: Monitor, path: str) -> None:
    got, body = monitor.ask(path)
    head, nothing = monitor.ask(path, "HEAD")
    assert (got.status, head.status) == (200, 200)
    assert body
    assert nothing == b""
    assert head.getheader("Content-Type") == got.getheader("Content-Type")
    if path != "/metrics":
        assert head.getheader("Content-Length") == str(len(body))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_either_says_that_the_loop_hangs(monitor: Monitor, method: str) -> None:
    monitor.vitals.turned_at -= HANGS_SECONDS + 1
    assert monitor.ask("/health", method)[0].status == 503
    assert monitor.ask("/ready", method)[0].status == 503


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_either_says_that_there_is_no_such_page(monitor: Monitor, method: str) -> None:
    assert monitor.ask("/nowhere", method)[0].status == 404
    assert monitor.ask("/health", method)[0].status == 200


def test_ready_names_what_the_broker_does_not_let_us_read(monitor: Monitor) -> None:
    monitor.vitals.refused = frozenset({"tmf/v1/demo/up/+/+", "tmf/v1/demo/command"})
    response, body = monitor.ask("/ready")
    assert response.status == 503
    assert body.decode().splitlines() == [
        "the broker does not let us read tmf/v1/demo/command",
        "the broker does not let us read tmf/v1/demo/up/+/+",
    ]
    assert monitor.ask("/health")[0].status == 200
