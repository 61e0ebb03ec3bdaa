"""`tinymetafed load` as a user runs it, beside a real broker and a real aggregator."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from aggregator.store.store import read_history
from localfleet import processes
from tests.conftest import Broker
from tests.support.ports import free_port
from tests.support.specs import BURST, spec_text

pytestmark = pytest.mark.real


def load(port: int, *flags: str) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("tinymetafed")
    where = ("--fleet", "burst", "--broker", f"mqtt://127.0.0.1:{port}")
    return subprocess.run(
        [command, "load", *where, *flags], capture_output=True, text=True, check=False
    )


def test_boards_share_connections_and_play_some_of_the_rounds(
    tmp_path: Path, broker: Broker
) -> None:
    """A round invites 30 of 40 boards; 3 of 5 rounds are played, and the counts add up."""
    spec = tmp_path / "spec.toml"
    spec.write_text(spec_text(**(BURST | {"count": 5}), cohort=30))
    aggregator = processes.aggregator(tmp_path, spec, broker.port)
    with processes.stopping([aggregator]):
        aggregator.start()
        played = ("--boards", "40", "--connections", "6", "--rounds", "3")
        done = load(broker.port, *played, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    accepted = [facts.accepted for facts in read_history(tmp_path / "state")]
    assert 30 <= accepted[0] <= 40  # It opens when 30 are awake, and invites whoever else comes.
    assert accepted[1:3] == [30, 30]
    assert (result["boards"], result["connections"], result["rounds"]) == (40, 6, 3)
    assert 90 <= result["receipted"] <= result["sent"] <= 130  # The next round may have begun.
    assert result["per_second"] == pytest.approx(result["receipted"] / result["seconds"], rel=0.1)


def test_the_table_shows_the_counts(tmp_path: Path, broker: Broker) -> None:
    spec = tmp_path / "spec.toml"
    spec.write_text(spec_text(**BURST, cohort=7))
    aggregator = processes.aggregator(tmp_path, spec, broker.port)
    with processes.stopping([aggregator]):
        aggregator.start()
        done = load(broker.port, "--boards", "7", "--reconnect")
    assert done.returncode == 0, done.stderr
    rows = dict(line.strip("│ ").split("│") for line in done.stdout.splitlines() if "│" in line)
    counts = {name.strip(): value.strip() for name, value in rows.items()}
    assert (counts["boards"], counts["updates sent"], counts["reconnected"]) == ("7", "7", "7")


def test_without_a_broker_or_an_aggregator_it_says_so_in_one_line(broker: Broker) -> None:
    alone = load(broker.port)
    assert alone.returncode == 2
    assert "nothing on tmf/v1/burst/plan" in alone.stderr
    assert "is an aggregator of this fleet running?" in alone.stderr
    nobody = load(free_port())
    assert nobody.returncode == 2
    assert nobody.stderr.startswith("tinymetafed: no broker at 127.0.0.1:")
    assert nobody.stderr.count("\n") == 1


def test_more_boards_than_a_connection_carries_are_refused() -> None:
    done = load(1883, *["--boards", "70000", "--connections", "2"])
    assert done.returncode == 2
    assert "one carries at most 32,767; give more --connections" in done.stderr
