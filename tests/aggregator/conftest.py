"""An aggregator at work on a broker, and its boards."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from localfleet import processes
from tests.conftest import Broker
from tests.support.service import Aggregator, Boards


@pytest.fixture
def aggregator(tmp_path: Path, broker: Broker) -> Iterator[Aggregator]:
    made = Aggregator(tmp_path / "aggregator", broker.port)
    made.program.start()
    with processes.stopping([made.program]):
        yield made


@pytest.fixture
def boards(broker: Broker) -> Iterator[Boards]:
    with Boards(broker.port) as made:
        yield made
