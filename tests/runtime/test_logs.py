"""The aggregator's log: a sentence a line for people, the same with its facts for machines."""

import json
import logging
import sys
from datetime import datetime
from pathlib import Path

import pytest

from aggregator.store.store import read_history
from localfleet import processes
from runtime.logs import JsonFormatter
from tests.aggregator.test_service import BOARDS, TOPICS, A, Aggregator, Boards, play_to_the_end
from tests.conftest import Broker


@pytest.mark.real
def test_a_machine_reads_every_line_and_what_each_round_came_to(
    tmp_path: Path, broker: Broker
) -> None:
    service = Aggregator(tmp_path / "aggregator", broker.port)
    service.program.command = [*service.program.command, "--log-format", "json"]
    service.program.start()
    with processes.stopping([service.program]), Boards(broker.port) as boards:
        boards.are("ready", *BOARDS)
        boards.wait_for_round(0)
        boards.send(TOPICS.up(A), b"garbage")
        play_to_the_end(boards)
        service.wait_for_log("rounds are over")
    lines = [json.loads(line) for line in service.log.splitlines()]
    assert all({"time", "level", "fleet", "message"} <= line.keys() for line in lines)
    assert {line["fleet"] for line in lines} == {"test"}
    times = [datetime.fromisoformat(line["time"]) for line in lines]
    assert times == sorted(times)
    assert times[0].tzinfo is not None
    closed = [line for line in lines if line.get("event") == "closed"]
    facts = [json.loads(facts.to_json()) for facts in read_history(service.state)]
    assert len(facts) == 4
    assert [{name: line[name] for name in facts[0]} for line in closed] == facts
    # The sentence says what a person wants to know; it is the same in either format.
    assert closed[0]["message"].startswith("round 1 of 4: 4 of 4 boards in ")
    assert closed[0]["message"].endswith("loss 0.05, 1 garbled")


def test_an_error_keeps_its_traceback_in_its_line() -> None:
    try:
        raise ValueError("too\nlong")  # noqa: TRY301
    except ValueError:
        record = logging.makeLogRecord({"msg": "no", "exc_info": sys.exc_info(), "path": Path("a")})
    text = JsonFormatter("pumps").format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert (line["fleet"], line["path"]) == ("pumps", "a")
    assert line["exception"].endswith("ValueError: too\nlong")
