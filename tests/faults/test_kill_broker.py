"""The broker goes away: killed, stopped in order, or not there yet.

Everybody finds it again by themselves. What it forgot is published anew, and boards send an update
again until its receipt; so every version of the model is the oracle's all the same.
"""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Broker
from tests.faults.fleet import Fleet
from tests.faults.ledger import Account

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(0)]

KILLS = 12


@pytest.mark.parametrize(
    ("sign", "repeats"),
    [
        # It forgets what it has confirmed since it last wrote its file, up to a minute before.
        pytest.param(signal.SIGKILL, True, id="kill -9"),
        # It writes its file: what it has confirmed is safe, also of boards that send only once.
        pytest.param(signal.SIGTERM, False, id="SIGTERM"),
    ],
)
def test_the_broker_dies_in_the_midst_of_rounds(
    tmp_path: Path,
    broker: Broker,
    book: Callable[[Account], None],
    again: Callable[[int], Iterator[int]],
    sign: signal.Signals,
    *,
    repeats: bool,
) -> None:
    for seed in again(1):
        rng = np.random.default_rng(seed)
        fleet = Fleet(tmp_path / str(seed), broker.port, f"broker-{seed}", repeats=repeats)
        fleet.aggregator.start()
        with fleet.running():
            for _ in range(KILLS):
                fleet.wait_for_rounds(1)
                fleet.idle(rng.exponential(0.1))
                broker.program.kill(sign)
                broker.start()
            fleet.settle(KILLS, book)


def test_broker_and_aggregator_die_together(
    tmp_path: Path, broker: Broker, book: Callable[[Account], None]
) -> None:
    """As in a power cut, at any moment: neither can help the other over it."""
    rng = np.random.default_rng(5)
    fleet = Fleet(tmp_path, broker.port)
    fleet.aggregator.start()
    with fleet.running():
        for _ in range(KILLS):
            fleet.wait_for_rounds(1)
            fleet.idle(rng.exponential(0.1))
            broker.program.kill(signal.SIGKILL)
            fleet.aggregator.kill()
            fleet.aggregator.start()
            broker.start()
        fleet.settle(2 * KILLS, book)


def test_a_broker_that_is_gone_is_said_once_and_found_again(
    tmp_path: Path, absent_broker: Broker, book: Callable[[Account], None]
) -> None:
    """It is not there at the start, and again in mid-round, each time for several attempts."""
    fleet = Fleet(tmp_path, absent_broker.port)
    fleet.aggregator.start()
    with fleet.running():
        fleet.aggregator.wait_for_line("no broker at")
        fleet.idle(2)  # It tries again after 0.5 s and 1 s more. What is awaited is silence.
        absent_broker.start()
        fleet.wait_for_rounds(2)
        assert fleet.aggregator.said.count("no broker at") == 1
        absent_broker.program.kill()
        fleet.aggregator.wait_for_line("lost the broker")
        fleet.aggregator.wait_for_line("no broker at", times=2)
        fleet.idle(2)
        absent_broker.start()
        fleet.wait_for_rounds(2)
        assert fleet.aggregator.said.count("no broker at") == 2
        assert fleet.aggregator.said.count("lost the broker") == 1
        fleet.settle(2, book)
