"""The aggregator as a process on a real broker, with boards that follow a script.

An oracle that adds up the same updates knows each version of the model, bit for bit, whatever was
killed in between.
"""

import json
import re
import signal
import sqlite3
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from aggregator.store.store import read_history
from localfleet import processes
from protocol.cohort import EVERYONE
from protocol.messages import FORMAT, Chunk, Delta, Plan, Round
from rounds.model import GlobalModel
from rounds.privacy import Ledger
from tests.conftest import Broker
from tests.support.service import BOARDS, SCRIPT, SPEC, TOPICS, A, Aggregator, B, Boards, C, D
from tests.support.specs import spec_text
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.real


# --- A fleet's whole life


def test_a_fleet_completes_its_rounds(aggregator: Aggregator, boards: Boards) -> None:
    """Four boards answer four rounds. Everyone can follow: the model, the rounds, the progress."""
    boards.are("ready", *BOARDS)
    boards.play_to_the_end()
    expected = SCRIPT.oracle([BOARDS] * 4)
    np.testing.assert_array_equal(boards.model(4), expected.published)
    plan = boards.latest(TOPICS.plan)
    assert plan is not None
    assert replace(Plan.unpack(plan), lineage=SPEC.lineage) == SPEC.plan
    delta = boards.latest(TOPICS.delta)
    assert delta is not None
    assert Delta.unpack(delta).checksum == expected.checksum
    assert boards.latest(TOPICS.round) == b""  # Whoever wakes now has nothing to do.
    progress = boards.wait_for_progress(state="done")
    assert progress == {
        "state": "done",
        "lineage": f"{boards.plan().lineage:08x}",
        "canary_version": None,
        "round": 4,
        "rounds": 4,
        "version": 4,
        "loss": 2048 / 4096 / 5 / 2,
        "support_loss": 4096 / 4096 / 4 / 2,
        "accuracy": None,  # There are no classes.
        "note": "",
        "epsilon": None,  # The spec wants no privacy.
        "accepted": 16,
        "rejected": {},
        "bytes_up": 4 * 4000,
        "bytes_down": 4 * 7,
        "awake": 4,
        "invited": 0,
        "answered": 0,
        "empty_deadlines": 0,
        "degraded_rounds": 0,
    }
    facts = read_history(aggregator.state)
    assert [(fact.round, fact.accepted, fact.invited) for fact in facts] == [
        (round_, 4, 4) for round_ in range(4)
    ]


def test_a_board_hears_of_a_round_only_after_its_model(
    aggregator: Aggregator, boards: Boards
) -> None:
    boards.are("ready", *BOARDS)
    boards.play_to_the_end()
    topics = [topic for topic, _ in boards.received]
    for place, (topic, payload) in enumerate(boards.received):
        if topic == TOPICS.round and payload:
            version = Round.unpack(payload).version
            before = [text for at, text in boards.received[:place] if at == TOPICS.full(0)]
            assert Chunk.unpack(before[-1]).version == version
    assert topics.index(TOPICS.plan) < topics.index(TOPICS.round)
    assert aggregator.program.process is not None
    assert aggregator.program.process.poll() is None  # It goes on serving the model.


# --- kill -9


def test_killed_in_mid_round_it_goes_on_without_losing_an_update(
    aggregator: Aggregator, boards: Boards
) -> None:
    """In round 1 two boards have their receipts when the aggregator is killed; the third answers
    while it is away, the fourth after it is back. The round keeps its number and its cohort."""
    boards.are("ready", *BOARDS)
    boards.wait_for_round(0)
    boards.answer(0, *BOARDS)
    before = boards.wait_for_round(1)
    boards.answer(1, A, B)
    boards.wait_for_receipt(1, A)
    boards.wait_for_receipt(1, B)
    aggregator.program.kill(signal.SIGKILL)
    boards.answer(1, C)
    aggregator.program.start()
    boards.wait_for_receipt(1, C)
    assert boards.wait_for_round(1, times=2) == before
    boards.answer(1, A)  # Sent again: it counts no second time.
    boards.wait_for_receipt(1, A, times=2)
    boards.answer(1, D)
    boards.play_to_the_end(first=2)
    np.testing.assert_array_equal(boards.model(4), SCRIPT.oracle([BOARDS] * 4).published)
    progress = boards.wait_for_progress(state="done")
    assert (progress["accepted"], progress["rejected"]) == (16, {"duplicate": 1})
    assert len(read_history(aggregator.state)) == 4


def test_what_is_not_journaled_is_not_acknowledged(aggregator: Aggregator, boards: Boards) -> None:
    """Somebody locks the journal, so that an update is read but cannot be committed. The aggregator
    says so and tries again, and is killed in this. The broker still has the update: nobody sends it
    again, yet it counts."""
    boards.are("ready", *BOARDS)
    boards.wait_for_round(0)
    stranger = sqlite3.connect(aggregator.state / "journal.db", isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    boards.answer(0, A)
    aggregator.wait_for_log("journal.db: cannot be used (database is locked)")
    aggregator.program.kill(signal.SIGKILL)
    stranger.close()
    aggregator.program.start()
    boards.wait_for_receipt(0, A)


def test_no_deadline_comes_nearer_while_the_journal_is_stuck(
    tmp_path: Path, broker: Broker
) -> None:
    """It is locked for longer than the deadline. The round waits for the third board."""
    text = spec_text(deadline=2, cohort=3)
    service = Aggregator(tmp_path / "aggregator", broker.port, text)
    service.program.start()
    with Boards(broker.port) as boards, processes.stopping([service.program]):
        boards.are("ready", A, B, C)
        boards.wait_for_round(0)
        boards.answer(0, A)
        boards.wait_for_receipt(0, A)
        stranger = sqlite3.connect(service.state / "journal.db", isolation_level=None)
        stranger.execute("BEGIN IMMEDIATE")
        boards.answer(0, B)
        service.wait_for_log("database is locked")
        time.sleep(2)  # What is awaited here is that nothing happens.
        stranger.close()
        boards.wait_for_receipt(0, B)
        time.sleep(0.5)  # Some turns of its loop, in which it could see that it is late.
        boards.answer(0, C)
        assert boards.wait_for_progress(round=1)["accepted"] == 3


def test_told_to_stop_while_the_journal_is_stuck_it_stops(
    aggregator: Aggregator, boards: Boards
) -> None:
    boards.are("ready", *BOARDS)
    boards.wait_for_round(0)
    stranger = sqlite3.connect(aggregator.state / "journal.db", isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    boards.answer(0, A)
    aggregator.wait_for_log("database is locked")
    assert aggregator.program.kill(signal.SIGTERM) == 2
    assert "Traceback" not in aggregator.log
    stranger.close()


def test_killed_when_done_it_is_done_and_serves_a_broker_that_forgot(
    aggregator: Aggregator, boards: Boards, broker: Broker
) -> None:
    boards.are("ready", *BOARDS)
    boards.play_to_the_end()
    aggregator.program.kill(signal.SIGKILL)
    broker.program.kill(signal.SIGKILL)
    (broker.folder / "mosquitto.db").unlink(missing_ok=True)
    broker.start()
    aggregator.program.start()
    with Boards(broker.port) as late:
        np.testing.assert_array_equal(late.model(4), SCRIPT.oracle([BOARDS] * 4).published)
        assert late.wait_for_progress(state="done")["accepted"] == 16


# --- What boards may send


@pytest.mark.usefixtures("aggregator")
def test_what_is_rejected_is_counted_reported_and_harms_nothing(boards: Boards) -> None:
    boards.are("ready", *BOARDS)
    boards.wait_for_round(0)
    boards.answer(0, A)
    boards.send(TOPICS.up(A), replace(boards.update(A, 0), nonce=2).pack())
    boards.send(TOPICS.up(B), b"\xc1 garbage")
    boards.send(TOPICS.up(C), boards.update(D, 0).pack())
    boards.send(TOPICS.up(D), replace(boards.update(D, 0), lineage=1).pack())
    boards.send(TOPICS.up("stranger"), replace(boards.update("stranger", 0), changes=b"").pack())
    boards.send(f"{TOPICS.root}/up/99/white space", b"")
    boards.send(TOPICS.state("stranger"), b"\xff[[[[")
    boards.answer(0, B, C, D)
    boards.wait_for_round(1)
    boards.answer(0, B)  # Journaled, though its round is over: a receipt must have been lost.
    boards.wait_for_receipt(0, B, times=2)
    boards.send(TOPICS.up(C), replace(boards.update(C, 0), nonce=2).pack())
    boards.play_to_the_end(first=1)
    np.testing.assert_array_equal(boards.model(4), SCRIPT.oracle([BOARDS] * 4).published)
    assert boards.wait_for_progress(state="done")["rejected"] == {
        "conflict": 1,
        "garbled": 2,
        "identity": 1,
        "lineage": 1,
        "sparse": 1,
        "duplicate": 1,
        "stale": 1,
    }
    events = {
        board: json.loads(boards.latest(TOPICS.event(board)) or b"{}").get("rejected")
        for board in [*BOARDS, "stranger"]
    }
    assert events == {
        A: "conflict",
        B: "garbled",
        C: "identity",
        D: "lineage",
        "stranger": "sparse",
    }


# --- Boards that do not answer


@pytest.mark.usefixtures("aggregator")
def test_a_round_closes_without_a_board_that_is_lost(boards: Boards) -> None:
    boards.are("ready", *BOARDS)
    boards.wait_for_round(0)
    boards.answer(0, A, B, C)
    boards.are("lost", D)
    boards.wait_for_round(1)
    np.testing.assert_array_equal(boards.model(1), SCRIPT.oracle([[A, B, C]]).published)


def test_a_round_that_nobody_answers_is_announced_again(tmp_path: Path, broker: Broker) -> None:
    text = spec_text(deadline=1, cohort=2)
    service = Aggregator(tmp_path / "aggregator", broker.port, text)
    with Boards(broker.port) as boards, processes.stopping([service.program]):
        boards.are("ready", *BOARDS)
        service.program.start()
        first = boards.wait_for_round(0)
        third = boards.wait_for_round(0, times=3)
        assert third.ticket_limit > first.ticket_limit  # The first cohort has been silent twice.
        boards.answer(0, *BOARDS)
        boards.wait_for_round(1)
        assert boards.wait_for_progress(round=1)["empty_deadlines"] >= 1


# --- Strategies


def test_a_round_with_too_few_updates_for_its_rule_leaves_the_model(
    tmp_path: Path, broker: Broker
) -> None:
    """Of two updates no largest and smallest can be left out, and a mean would trust both."""
    text = spec_text(combine={"rule": "trimmed_mean", "trim": 1})
    service = Aggregator(tmp_path / "aggregator", broker.port, text)
    with Boards(broker.port) as boards, processes.stopping([service.program]):
        boards.are("ready", *BOARDS)
        service.program.start()
        boards.wait_for_round(0)
        boards.answer(0, A, B)
        boards.are("lost", C, D)
        boards.wait_for_round(1)
        np.testing.assert_array_equal(boards.model(1), GlobalModel(SPEC).published)
        note = "trimmed_mean needs 3 updates, 2 came: the model stays"
        assert boards.wait_for_progress(round=1)["note"] == note
        service.wait_for_log(f"round 1: {note}")
        boards.are("ready", C, D)
        boards.answer(1, *BOARDS)
        boards.wait_for_round(2)
        assert (boards.model(2) != GlobalModel(SPEC).published).any()
        assert [facts.note for facts in read_history(service.state)] == [note, ""]


def test_what_privacy_has_cost_is_told_and_not_forgotten(tmp_path: Path, broker: Broker) -> None:
    """The epsilon grows with each round, also across a restart; what was published stays."""
    text = spec_text(privacy={"clip": 0.1, "noise_multiplier": 2.0, "delta": 1e-5})
    service = Aggregator(tmp_path / "aggregator", broker.port, text)
    with Boards(broker.port) as boards, processes.stopping([service.program]):
        boards.are("ready", *BOARDS)
        service.program.start()
        boards.wait_for_round(0)
        boards.answer(0, *BOARDS)
        boards.wait_for_round(1)
        noisy = boards.model(1)
        service.program.kill(signal.SIGKILL)
        service.program.start()
        boards.wait_for_round(1, times=2)
        np.testing.assert_array_equal(boards.model(1), noisy)
        boards.play_to_the_end(first=1)
        last = boards.wait_for_progress(state="done")["epsilon"]
    assert (noisy != SCRIPT.oracle([BOARDS]).published).any()
    spent = [facts.epsilon for facts in read_history(service.state)]
    assert spent == [Ledger([2.0] * rounds).epsilon(1e-5) for rounds in (1, 2, 3, 4)]
    assert last == spent[-1]


# --- The broker


def test_an_absent_broker_is_waited_for(tmp_path: Path, absent_broker: Broker) -> None:
    service = Aggregator(tmp_path / "aggregator", absent_broker.port)
    service.program.start()
    with processes.stopping([service.program]):
        service.wait_for_log("no broker at")
        absent_broker.start()
        with Boards(absent_broker.port) as boards:
            boards.are("ready", *BOARDS)
            boards.wait_for_round(0)
        assert service.log.count("no broker at") == 1


def test_a_broker_that_is_killed_and_forgets_everything_gets_everything_again(
    aggregator: Aggregator, boards: Boards, broker: Broker
) -> None:
    boards.are("ready", *BOARDS)
    boards.wait_for_round(0)
    boards.answer(0, A, B)
    boards.wait_for_receipt(0, B)
    broker.program.kill(signal.SIGKILL)
    (broker.folder / "mosquitto.db").unlink(missing_ok=True)
    aggregator.wait_for_log("lost the broker")
    broker.start()
    with Boards(broker.port) as again:
        again.wait_for_round(0)
        again.answer(0, C, D)
        again.play_to_the_end(first=1)
        np.testing.assert_array_equal(again.model(4), SCRIPT.oracle([BOARDS] * 4).published)


def test_no_deadline_comes_nearer_while_the_broker_is_away(tmp_path: Path, broker: Broker) -> None:
    """The broker is away for longer than the deadline. The round waits for the second board."""
    text = spec_text(deadline=2, cohort=2)
    service = Aggregator(tmp_path / "aggregator", broker.port, text)
    service.program.start()
    with processes.stopping([service.program]):
        with Boards(broker.port) as boards:
            boards.are("ready", A, B)
            boards.wait_for_round(0)
            boards.answer(0, A)
            boards.wait_for_receipt(0, A)
        broker.program.kill(signal.SIGTERM)
        service.wait_for_log("lost the broker")
        time.sleep(2)  # What is awaited here is that nothing happens.
        broker.start()
        with Boards(broker.port) as again:
            again.answer(0, B)
            assert again.wait_for_progress(round=1)["accepted"] == 2


def test_a_broker_that_refuses_us_is_named_with_what_to_check(
    tmp_path: Path, absent_broker: Broker
) -> None:
    config = absent_broker.folder / "mosquitto.conf"
    text = config.read_text()
    assert "allow_anonymous true" in text
    config.write_text(text.replace("allow_anonymous true", "allow_anonymous false"))
    absent_broker.start()
    service = Aggregator(tmp_path / "aggregator", absent_broker.port)
    service.program.start()
    with processes.stopping([service.program]):
        service.wait_for_log("refuses us")
        assert re.search(r"ERROR.*refuses us.*check TMF_USERNAME and TMF_PASSWORD", service.log)


# --- The log


def test_a_machine_reads_every_line_of_the_log_and_what_each_round_came_to(
    tmp_path: Path, broker: Broker
) -> None:
    service = Aggregator(tmp_path / "aggregator", broker.port, flags=["--log-format", "json"])
    service.program.start()
    with processes.stopping([service.program]), Boards(broker.port) as boards:
        boards.are("ready", *BOARDS)
        boards.wait_for_round(0)
        boards.send(TOPICS.up(A), b"garbage")
        boards.play_to_the_end()
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


# --- Stopping


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_ends_in_order_within_a_second(
    aggregator: Aggregator, boards: Boards, sign: signal.Signals
) -> None:
    boards.are("ready", *BOARDS)
    boards.wait_for_round(0)
    boards.answer(0, A)
    boards.wait_for_receipt(0, A)
    before = time.monotonic()
    assert aggregator.program.kill(sign) == 0
    assert time.monotonic() - before < 1
    assert "Traceback" not in aggregator.log


def test_exit_when_done_leaves_the_last_word_on_the_broker(tmp_path: Path, broker: Broker) -> None:
    service = Aggregator(tmp_path / "aggregator", broker.port, flags=["--exit-when-done"])
    service.program.start()
    with Boards(broker.port) as boards, processes.stopping([service.program]):
        boards.are("ready", *BOARDS)
        boards.play_to_the_end()
        assert service.program.process is not None
        assert service.program.process.wait(PATIENCE) == 0
    with Boards(broker.port) as late:
        late.wait_for_progress(state="done", version=4)
        np.testing.assert_array_equal(late.model(4), SCRIPT.oracle([BOARDS] * 4).published)


# --- Another format of the wire


@pytest.mark.usefixtures("aggregator")
def test_who_speaks_another_format_is_told_and_not_invited(boards: Boards) -> None:
    """A cohort of today's boards is there, and one with the client of the version before, which
    names no format in its state. That one reads why on its event topic, and no round counts on it.
    So does a board that still had an update of that format to send."""
    old = "board-of-before"
    before = {"state": "ready", "client": "0.1.0", "firmware": "1.25.0", "heap_free": 90_000}
    boards.send(TOPICS.state(old), json.dumps(before).encode(), retain=True)
    boards.are("ready", *BOARDS)
    boards.wait("an event", lambda: boards.latest(TOPICS.event(old)) is not None)
    assert json.loads(boards.latest(TOPICS.event(old)) or b"") == {
        "rejected": "format",
        "detail": "of format 1, and this aggregator speaks 2: update whichever is older",
    }
    assert boards.wait_for_round(0).ticket_limit == EVERYONE  # A cohort of five is drawn by lot.
    boards.answer(0, *BOARDS)
    boards.wait_for_round(1)
    update = bytearray(boards.update(D, 1).pack())
    assert update[1] == FORMAT
    update[1] = 1
    boards.send(TOPICS.up(D), bytes(update))
    boards.wait_for_progress(rejected={"format": 1})
    event = json.loads(boards.latest(TOPICS.event(D)) or b"")
    assert event["detail"].startswith("update: of format 1")
