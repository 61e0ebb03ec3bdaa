"""A broker drops messages: the aggregator tells it, and marks the round."""

import re
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator import drops
from aggregator.drops import DropCounter
from aggregator.store.store import read_history
from tests.conftest import Broker
from tests.support.client import Client
from tests.support.monitor import monitored
from tests.support.service import BOARDS, Boards

LIMIT = 20
"""Messages that the dropping broker queues for one client."""
MAIL = "sleeper/mail"


def fall_asleep(port: int) -> None:
    """Leave a session at the broker, for which messages queue until they are dropped."""
    with Client(port, MAIL, name="sleeper", keeps_session=True):
        pass


def mail(boards: Boards, messages: int) -> None:
    for number in range(messages):
        boards.send(MAIL, str(number).encode())


def first_count(port: int) -> bytes:
    """How many messages the broker says it has dropped; it says so a second after its start."""
    with Client(port, drops.TOPIC) as client:
        client.wait("how many messages were dropped", lambda: bool(client.received))
        return client.received[0][1]


@pytest.mark.real
def test_a_round_in_which_the_broker_drops_messages_is_degraded(
    tmp_path: Path, absent_broker: Broker
) -> None:
    """A client's queue overflows in round 1, twice: one warning, one mark. Neither the aggregator's
    restart nor the broker's, whose counter starts again, is taken for a drop."""
    broker = absent_broker
    config = broker.folder / "mosquitto.conf"
    text = config.read_text()
    assert "max_queued_messages 0\n" in text
    config.write_text(text.replace("max_queued_messages 0\n", f"max_queued_messages {LIMIT}\n"))
    broker.start()
    fall_asleep(broker.port)
    with monitored(tmp_path, broker.port) as (service, monitor):
        dropped = "tmf_broker_dropped_messages_total"
        monitor.wait_for_status("/ready", 200)
        assert first_count(broker.port) == b"0"
        with Boards(broker.port) as boards:
            mail(boards, LIMIT + 1)  # Before there is any round.
            monitor.wait_for_metric(dropped, 1)
            boards.are("ready", *BOARDS)
            boards.wait_for_round(0)
            boards.answer(0, *BOARDS)
            boards.wait_for_round(1)
            mail(boards, 5)
            monitor.wait_for_metric(dropped, 6)
            boards.wait_for_progress(round=1, degraded_rounds=1)
            mail(boards, 3)
            monitor.wait_for_metric(dropped, 9)
            boards.answer(1, *BOARDS)
            boards.wait_for_round(2)
            assert monitor.metrics()["tmf_rounds_degraded_total"] == 1

        service.program.kill(signal.SIGKILL)
        service.program.start()
        monitor.wait_for_status("/ready", 200)
        broker.program.kill(signal.SIGKILL)
        monitor.wait_for_status("/ready", 503)
        broker.start()
        with Boards(broker.port) as boards:
            monitor.wait_for_status("/ready", 200)
            assert first_count(broker.port) == b"0"
            boards.play_to_the_end(first=2)
            assert monitor.metrics()[dropped] == 0
            assert boards.wait_for_progress(state="done")["degraded_rounds"] == 1
    assert [facts.degraded for facts in read_history(service.state)] == [False, True, False, False]
    warnings = re.findall(r"WARNING round (\d+): the broker dropped (\d+) messages", service.log)
    assert [int(round_) for round_, _ in warnings] == [2]  # The log counts from 1.


def test_only_what_is_new_is_dropped() -> None:
    counter = DropCounter()
    received = [b"7", b"7", b"9", b"", b"-1", b"nan", b"10", b"0", b"2", b"1", b"9" * 21, b"3"]
    assert [counter.moved(payload) for payload in received] == [0, 0, 2, 0, 0, 0, 1, 0, 2, 1, 0, 2]


@given(st.lists(st.binary(max_size=30) | st.integers(0, 2**64).map(lambda n: b"%d" % n)))
def test_no_count_is_negative_and_no_bytes_raise(received: list[bytes]) -> None:
    counter = DropCounter()
    assert all(counter.moved(payload) >= 0 for payload in received)
