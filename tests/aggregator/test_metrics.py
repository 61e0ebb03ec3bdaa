"""Metrics, health and readiness of a real aggregator, as a monitor sees them over HTTP.

The boards follow a script, so every number is known. What drops messages is a real Mosquitto.
"""

import fcntl
import os
import re
import signal
import socket
import subprocess
import termios
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from math import isnan
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from aggregator import drops
from aggregator.drops import DropCounter
from aggregator.metrics import Metrics
from aggregator.presence import AvailabilityCounter
from aggregator.store.store import read_history
from localfleet import processes
from protocol.presence import Availability, read_presence
from tests.conftest import Broker
from tests.support.client import Client
from tests.support.ports import free_port
from tests.support.service import BOARDS, SPEC, TOPICS, A, Aggregator, Boards
from tests.support.waiting import PATIENCE, wait_until

real = pytest.mark.real
LIMIT = 20
"""Messages that the dropping broker queues for one client."""


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


# --- Metrics


@real
def test_a_fleets_life_is_told(tmp_path: Path, broker: Broker) -> None:
    """Four boards play four rounds. One sends garbage besides; two others are away all the time. A
    restart keeps what is known of the model, and counts anew."""
    with monitored(tmp_path, broker.port) as (service, monitor), Boards(broker.port) as boards:
        boards.are("sleeping", "sleeper")
        boards.are("lost", "gone", A)
        boards.are("ready", *BOARDS)
        boards.wait_for_round(0)
        boards.send(TOPICS.up(A), b"\xc1 garbage")
        boards.answer(0, A)
        boards.wait_for_receipt(0, A)
        monitor.wait_for_metric("tmf_round_answered_boards", 1)
        boards.answer(0, A)
        boards.play_to_the_end()
        told = monitor.wait_for_metric('tmf_state{state="done"}', 1)
        expected = {
            f'tmf_fleet_info{{fleet="test",lineage="{SPEC.lineage:08x}"}}': 1,
            'tmf_updates_total{result="accepted"}': 16,
            'tmf_updates_total{result="garbled"}': 1,
            'tmf_updates_total{result="stale"}': 0,
            'tmf_board_bytes_total{direction="up"}': 4 * 4000,
            'tmf_board_bytes_total{direction="down"}': 4 * 7,
            'tmf_state{state="collecting"}': 0,
            "tmf_round": 4,
            "tmf_model_version": 4,
            'tmf_boards{state="awake"}': 4,
            'tmf_boards{state="sleeping"}': 1,
            'tmf_boards{state="lost"}': 1,
            'tmf_boards{state="other"}': 0,
            "tmf_round_answered_boards": 0,
            "tmf_round_duration_seconds_count": 4,
            "tmf_rounds_degraded_total": 0,
            "tmf_query_loss": 2048 / 4096 / 5 / 2,
            "tmf_support_loss": 4096 / 4096 / 4 / 2,
            "tmf_broker_connected": 1,
            "tmf_broker_connections_total": 1,
            "tmf_broker_dropped_messages_total": 0,
        }
        assert {name: told[name] for name in expected} == expected
        assert told['tmf_updates_total{result="duplicate"}'] >= 1
        assert isnan(told["tmf_query_accuracy_ratio"])  # There are no classes.
        # Four rounds were announced and closed, and updates came in at least one group each.
        assert told["tmf_journal_commit_seconds_count"] >= 12
        assert 0 < told["tmf_journal_commit_seconds_sum"] < PATIENCE
        assert told["tmf_ingest_lag_seconds_count"] >= 4
        assert 0 < told["tmf_ingest_lag_seconds_sum"] < PATIENCE
        assert told["process_resident_memory_bytes"] > 0
        text = monitor.ask("/metrics")[1]
        assert [board for board in [*BOARDS, "sleeper", "gone"] if board in text] == []

        service.program.kill(signal.SIGTERM)
        service.program.start()
        monitor.wait_for_status("/ready", 200)
        again = monitor.wait_for_metric("tmf_model_version", 4)
        kept = ["tmf_round", "tmf_query_loss", "tmf_support_loss"]
        assert [again[name] for name in kept] == [told[name] for name in kept]
        assert again['tmf_updates_total{result="accepted"}'] == 0
        assert again['tmf_board_bytes_total{direction="up"}'] == 0


def test_names_follow_the_conventions() -> None:
    """As `promtool check metrics` and https://prometheus.io/docs/practices/naming/ have it."""
    families = {metric.name: metric for metric in Metrics(SPEC).registry.collect()}
    assert len([name for name in families if name.startswith("tmf_")]) > 20
    for name, family in families.items():
        assert re.fullmatch(r"(tmf|process)(_[a-z]+)+", name), name
        assert family.documentation.endswith("."), name
        assert not re.search(r"_(total|count|sum|bucket|info)$", name), name  # The suffix is added.
        assert not re.search(r"counter|gauge|histogram|milli|minutes|kilo|percent", name), name
        if family.type == "histogram":
            assert name.endswith("_seconds"), name
        for sample in family.samples:
            if family.type == "counter":
                assert sample.name.endswith(("_total", "_created")), sample.name
            assert set(sample.labels) <= {
                *("result", "direction", "state", "le", "fleet", "lineage", "version", "python")
            }, name


# --- Health and readiness


@real
@pytest.mark.slow
def test_health_turns_bad_while_the_loop_hangs(tmp_path: Path, broker: Broker) -> None:
    """Nobody reads the aggregator's log. Its pipe is full, and the next line blocks the loop. The
    thread that answers goes on and says so. Once somebody reads, all is well again."""
    service = Aggregator(tmp_path / "aggregator", broker.port)
    monitor = Monitor(f"127.0.0.1:{free_port()}")
    command = [*processes.ENDS_WITH_US, *service.program.command, "--metrics", monitor.address]
    reader, writer = os.pipe()
    room = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    with subprocess.Popen(command, stderr=writer) as process, Boards(broker.port) as boards:
        try:
            monitor.wait_for_status("/ready", 200)
            unread = array("i", [0])
            fcntl.ioctl(reader, termios.FIONREAD, unread)
            os.write(writer, b"." * (room - unread[0]))
            assert monitor.ask("/health") == (200, "ok\n")
            boards.are("ready", *BOARDS)  # Worth a line.
            answer = monitor.wait_for_status("/health", 503)
            assert re.fullmatch(r"the loop has not turned for \d+ s\n", answer)
            assert monitor.ask("/ready")[0] == 503
            assert len(os.read(reader, room)) == room
            monitor.wait_for_status("/ready", 200)
            boards.wait_for_round(0)
        finally:
            process.kill()
            os.close(reader)
            os.close(writer)


@real
def test_it_is_not_ready_without_its_broker(tmp_path: Path, broker: Broker) -> None:
    with monitored(tmp_path, broker.port) as (_, monitor):
        assert monitor.wait_for_status("/ready", 200) == "ok\n"
        broker.program.kill(signal.SIGKILL)
        assert monitor.wait_for_status("/ready", 503) == "no connection to the broker\n"
        assert monitor.ask("/health") == (200, "ok\n")  # To restart it would help nobody.
        assert monitor.metrics()["tmf_broker_connected"] == 0
        broker.start()
        monitor.wait_for_status("/ready", 200)
        assert monitor.metrics()["tmf_broker_connections_total"] == 2


@real
def test_it_is_not_ready_without_its_journal(tmp_path: Path, broker: Broker) -> None:
    """Somebody moves the state folder away: SQLite would go on writing into the moved file."""
    with monitored(tmp_path, broker.port) as (service, monitor):
        monitor.wait_for_status("/ready", 200)
        service.state.rename(tmp_path / "moved")
        answer = monitor.wait_for_status("/ready", 503)
        assert answer == f"{service.state / 'journal.db'}: absent or not writable\n"


# --- HTTP


@real
def test_who_asks_nonsense_or_nothing_harms_nobody(tmp_path: Path, broker: Broker) -> None:
    with monitored(tmp_path, broker.port) as (service, monitor):
        address = urlsplit(f"//{monitor.address}")
        with socket.create_connection((address.hostname, address.port)) as silent:
            assert monitor.ask("/nowhere")[0] == 404
            assert monitor.ask("/metrics?name[]=tmf_round")[0] == 200
            for nonsense in (b"\xff" * 100_000, b"GET /metrics HTTP/9.9\r\n\r\n", b"\r\n"):
                with socket.create_connection((address.hostname, address.port)) as stranger:
                    stranger.sendall(nonsense)
            silent.sendall(b"GET /hea")
            assert monitor.ask("/health") == (200, "ok\n")
        assert "Traceback" not in service.log


@real
def test_a_port_that_is_taken_is_one_line(tmp_path: Path, broker: Broker) -> None:
    with monitored(tmp_path, broker.port) as (service, monitor):
        command = [*service.program.command, "--state", tmp_path / "other"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert f"metrics: nobody can listen on {monitor.address} " in done.stderr
        assert not (tmp_path / "other").exists()


# --- What the broker drops


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


@real
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


# --- Boards by state


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b'{"state":"ready"}', Availability.AWAKE),
        (b'{"state":"training","heap":9}', Availability.AWAKE),
        (b'{"state":"sleeping","until":9}', Availability.SLEEPING),
        (b'{"state":"lost"}', Availability.LOST),
        (b'{"state":"dancing"}', Availability.OTHER),
        (b'{"state":["ready"]}', Availability.OTHER),
        (b'"ready"', Availability.OTHER),
        (b"[" * 4000, Availability.OTHER),
        (b'{"state":"ready"}' + b" " * 5000, Availability.OTHER),
        (b"\xff", Availability.OTHER),
        (b"", None),
    ],
)
def test_a_state_message_says_how_a_board_is(payload: bytes, expected: Availability | None) -> None:
    assert read_presence(payload).availability is expected


WORDS = [b"", b'{"state":"ready"}', b'{"state":"sleeping"}', b'{"state":"lost"}', b"?"]
WHY = [Availability.SLEEPING, Availability.LOST, Availability.OTHER]


@given(st.lists(st.tuples(st.sampled_from(BOARDS), st.sampled_from([*WORDS, None]))))
def test_each_board_that_is_away_counts_once(story: list[tuple[str, bytes | None]]) -> None:
    availability = AvailabilityCounter()
    last: dict[str, bytes | None] = {}
    for board, payload in story:
        last[board] = payload
        if payload is None:
            availability.answered([board])
        else:
            availability.seen(board, read_presence(payload).availability)
    for word, expected in zip(WORDS[2:], WHY, strict=True):
        assert availability.count[expected] == list(last.values()).count(word)
    assert availability.count[Availability.AWAKE] == 0
