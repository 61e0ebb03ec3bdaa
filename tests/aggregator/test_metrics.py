"""Metrics, health and readiness of a real aggregator, as a monitor sees them over HTTP.

The boards follow a script, so every number is known.
"""

import fcntl
import os
import re
import signal
import socket
import subprocess
import termios
from array import array
from math import isnan
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from aggregator.metrics import Metrics
from localfleet import processes
from tests.conftest import Broker
from tests.support.monitor import Monitor, monitored
from tests.support.ports import free_port
from tests.support.service import BOARDS, SPEC, TOPICS, A, Aggregator, Boards
from tests.support.waiting import PATIENCE

real = pytest.mark.real


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
        first = monitor.wait_for_metric('tmf_state{state="done"}', 1)
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
        assert {name: first[name] for name in expected} == expected
        assert first['tmf_updates_total{result="duplicate"}'] >= 1
        assert isnan(first["tmf_query_accuracy_ratio"])  # There are no classes.
        # Four rounds were announced and closed, and updates came in at least one group each.
        assert first["tmf_journal_commit_seconds_count"] >= 12
        assert 0 < first["tmf_journal_commit_seconds_sum"] < PATIENCE
        assert first["tmf_ingest_lag_seconds_count"] >= 4
        assert 0 < first["tmf_ingest_lag_seconds_sum"] < PATIENCE
        assert first["process_resident_memory_bytes"] > 0
        text = monitor.ask("/metrics")[1]
        assert [board for board in [*BOARDS, "sleeper", "gone"] if board in text] == []

        service.program.kill(signal.SIGTERM)
        service.program.start()
        monitor.wait_for_status("/ready", 200)
        again = monitor.wait_for_metric("tmf_model_version", 4)
        kept = ["tmf_round", "tmf_query_loss", "tmf_support_loss"]
        assert [again[name] for name in kept] == [first[name] for name in kept]
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
