"""An aggregator that can be asked over HTTP, and who asks."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from localfleet import processes
from tests.support.ports import free_port
from tests.support.service import Aggregator
from tests.support.waiting import PATIENCE, wait_until


class Monitor:
    """Asks an aggregator over HTTP."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(self, path: str) -> tuple[int, str]:
        """Status and body."""
        connection = HTTPConnection(self.address, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def metrics(self) -> dict[str, float]:
        """Every sample by its name and labels, as Prometheus writes them."""
        status, text = self.ask("/metrics")
        assert status == 200
        samples = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
                samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return samples

    def wait_for_status(self, path: str, status: int) -> str:
        def answers() -> bool:
            try:
                return self.ask(path)[0] == status
            except ConnectionRefusedError:
                return False  # It has not started yet.

        wait_until(f"{path} answers {status}", answers)
        return self.ask(path)[1]

    def wait_for_metric(self, name: str, value: float) -> dict[str, float]:
        wait_until(f"{name} is {value}", lambda: self.metrics()[name] == value)
        return self.metrics()


@contextmanager
def monitored(folder: Path, port: int) -> Iterator[tuple[Aggregator, Monitor]]:
    """A running aggregator that can be asked."""
    address = f"127.0.0.1:{free_port()}"
    service = Aggregator(folder / "aggregator", port, flags=["--metrics", address])
    service.program.start()
    with processes.stopping([service.program]):
        monitor = Monitor(address)
        monitor.wait_for_status("/health", 200)
        yield service, monitor
