"""The aggregator as a process on a real broker, with boards that follow a script.

What a board learns is a function of its name and the round, so an oracle that adds up the same
updates knows each version of the model, bit for bit, whatever was killed in between.
"""

import json
import re
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import paho.mqtt.client as mqtt
import pytest
from numpy.typing import NDArray
from paho.mqtt.enums import CallbackAPIVersion

from aggregator.store.store import read_history
from localfleet import processes
from localfleet.processes import Program
from protocol import sparse
from protocol.fixed import fnv1a
from protocol.messages import Chunk, Delta, Plan, Receipt, Round, Update
from protocol.spec.spec import Spec
from protocol.topics import Topics, shard_of
from rounds.model import GlobalModel
from rounds.optimizers import cosine_step
from rounds.privacy import Ledger
from rounds.sums import PartialSum
from tests.conftest import Broker

pytestmark = pytest.mark.real

PATIENCE = 20.0
BOARDS = ["board-a", "board-b", "board-c", "board-d"]
A, B, C, D = BOARDS
TEXT = """
fleet = "test"
[model]
inputs = 3
loss = "mse"
layers = [
    { outputs = 200, activation = "relu" },
    { outputs = 2, activation = "none", local = true },
]
[training]
support = 4
query = 5
rate_local = 0.1
rate_global = 0.1
percent = 10
[rounds]
count = 4
cohort = 4
deadline = 60
step_max = 2.0
percent_down = 20
"""
SPEC = Spec.from_toml(TEXT)
TOPICS = Topics(SPEC.fleet)


def update(board: str, round_: int) -> Update:
    """What a board sends in a round, always the same."""
    rng = np.random.default_rng(fnv1a(f"{board}/{round_}"))
    changes = rng.integers(-300, 300, SPEC.global_count)
    block = sparse.encode(changes, sparse.top_indices(changes, SPEC.plan.top), SPEC.tensors)
    sent = 1000 * (round_ + 1)
    return Update(SPEC.lineage, round_, board, 1, 4, 5, 4096, 2048, 0, sent, 7, 3, 9, block)


def oracle(answered: list[list[str]]) -> GlobalModel:
    """The model after rounds that these boards answered."""
    model = GlobalModel(SPEC)
    for round_, boards in enumerate(answered):
        total = PartialSum(SPEC.global_count)
        for board in boards:
            message = update(board, round_)
            total.add(message, sparse.decode(message.changes, SPEC.tensors))
        model.advance(total.changes / total.weight, cosine_step(SPEC.rounds, round_))
    return model


class Boards:
    """The boards, through one connection: they speak when the test says so, and hear everything."""

    def __init__(self, port: int) -> None:
        self.received: list[tuple[str, bytes]] = []
        self._news = threading.Condition()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._take
        self._client.on_connect = lambda client, *_: client.subscribe(f"{TOPICS.root}/#", 1)
        self._client.connect("127.0.0.1", port)

    def __enter__(self) -> Self:
        self._client.loop_start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _take(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        with self._news:
            self.received.append((message.topic, bytes(message.payload)))
            self._news.notify_all()

    def send(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish, and wait until the broker has it."""
        self._client.publish(topic, payload, 1, retain).wait_for_publish(PATIENCE)

    def are(self, state: str, *boards: str) -> None:
        for board in boards:
            self.send(TOPICS.state(board), json.dumps({"state": state}).encode(), retain=True)

    def plan(self) -> Plan:
        """The plan in force."""
        self.wait("a plan", lambda: self.latest(TOPICS.plan) is not None)
        return Plan.unpack(self.latest(TOPICS.plan) or b"")

    def update(self, board: str, round_: int) -> Update:
        """What a board sends in a round of the present lineage."""
        return replace(update(board, round_), lineage=self.plan().lineage)

    def answer(self, round_: int, *boards: str) -> None:
        for board in boards:
            self.send(TOPICS.up(board), self.update(board, round_).pack())

    def command(self, **command: object) -> dict[str, Any]:
        """Tell the aggregator something; its answer."""
        invited = f"request {len(self.received)}"
        self.send(TOPICS.command, json.dumps({**command, "id": invited}).encode())
        answers: list[dict[str, Any]] = []

        def answered() -> bool:
            messages = (json.loads(text) for at, text in self.received if at == TOPICS.answer)
            answers.extend(message for message in messages if message["id"] == invited)
            return bool(answers)

        self.wait(f"an answer to {command}", answered)
        return answers[0]

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        with self._news:
            arrived = self._news.wait_for(condition, PATIENCE)
        assert arrived, f"waited for {what}; heard {[topic for topic, _ in self.received][-20:]}"

    def latest(self, topic: str) -> bytes | None:
        return next((payload for at, payload in reversed(self.received) if at == topic), None)

    def wait_for_round(self, round_: int, times: int = 1) -> Round:
        def announced() -> list[Round]:
            messages = (
                Round.unpack(text) for at, text in self.received if at == TOPICS.round and text
            )
            return [message for message in messages if message.round == round_]

        self.wait(f"round {round_}", lambda: len(announced()) >= times)
        return announced()[-1]

    def wait_for_receipt(self, round_: int, board: str, times: int = 1) -> None:
        def receipts() -> int:
            topic = TOPICS.receipt(shard_of(board))
            messages = [Receipt.unpack(text) for at, text in self.received if at == topic]
            return sum(m.round == round_ and board in m.boards for m in messages)

        self.wait(f"receipt of {board} in round {round_}", lambda: receipts() >= times)

    def wait_for_progress(self, **facts: object) -> dict[str, Any]:
        def progress() -> dict[str, Any]:
            return dict(json.loads(self.latest(TOPICS.progress) or b"{}"))

        self.wait(f"progress {facts}", lambda: facts.items() <= progress().items())
        return progress()

    def model(self, version: int) -> NDArray[np.int16]:
        """The published model, once all its chunks are of this version."""

        def chunks() -> list[Chunk]:
            latest = (self.latest(TOPICS.full(i)) for i in range(99))
            return [Chunk.unpack(text) for text in latest if text]

        def whole() -> bool:
            wanted = [(version, len(chunks()))] * len(chunks())
            found = [(chunk.version, chunk.chunks) for chunk in chunks()]
            return bool(found) and found == wanted

        self.wait(f"version {version}", whole)
        return np.frombuffer(b"".join(chunk.weights for chunk in chunks()), "<i2")


class Aggregator:
    """The process, which a test may kill and start again."""

    def __init__(self, folder: Path, port: int, text: str = TEXT) -> None:
        folder.mkdir(exist_ok=True)
        spec = folder / "spec.toml"
        spec.write_text(text)
        self.state = folder / "state"
        self.program: Program = processes.aggregator(folder, spec, port)

    @property
    def log(self) -> str:
        return self.program.log.read_text()

    def wait_for_log(self, text: str) -> None:
        ends = time.monotonic() + PATIENCE
        while text not in self.log:
            self.program.check()
            assert time.monotonic() < ends, f"no {text!r} in the log:\n{self.log}"
            time.sleep(0.02)  # A file tells nobody that it has grown.


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


def play_to_the_end(boards: Boards, first: int = 0) -> None:
    for round_ in range(first, SPEC.rounds.count):
        boards.wait_for_round(round_)
        boards.answer(round_, *BOARDS)
    boards.wait_for_progress(state="done")


# --- A fleet's whole life


def test_a_fleet_completes_its_rounds(aggregator: Aggregator, boards: Boards) -> None:
    """Four boards answer four rounds. Everyone can follow: the model, the rounds, the progress."""
    boards.are("ready", *BOARDS)
    play_to_the_end(boards)
    expected = oracle([BOARDS] * 4)
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
        "epsilon": None,  # No privacy was asked for.
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
    play_to_the_end(boards)
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
    play_to_the_end(boards, first=2)
    np.testing.assert_array_equal(boards.model(4), oracle([BOARDS] * 4).published)
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
    text = TEXT.replace("deadline = 60", "deadline = 2").replace("cohort = 4", "cohort = 3")
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
    play_to_the_end(boards)
    aggregator.program.kill(signal.SIGKILL)
    broker.program.kill(signal.SIGKILL)
    (broker.folder / "mosquitto.db").unlink(missing_ok=True)
    broker.start()
    aggregator.program.start()
    with Boards(broker.port) as late:
        np.testing.assert_array_equal(late.model(4), oracle([BOARDS] * 4).published)
        assert late.wait_for_progress(state="done")["accepted"] == 16


# --- What boards may send


@pytest.mark.usefixtures("aggregator")
def test_what_is_refused_is_counted_reported_and_harms_nothing(boards: Boards) -> None:
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
    play_to_the_end(boards, first=1)
    np.testing.assert_array_equal(boards.model(4), oracle([BOARDS] * 4).published)
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
    np.testing.assert_array_equal(boards.model(1), oracle([[A, B, C]]).published)


def test_a_round_that_nobody_answers_is_announced_again(tmp_path: Path, broker: Broker) -> None:
    text = TEXT.replace("deadline = 60", "deadline = 1").replace("cohort = 4", "cohort = 2")
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
    text = TEXT + '[rounds.combine]\nrule = "trimmed_mean"\ntrim = 1\n'
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
    text = TEXT + "[rounds.privacy]\nclip = 0.1\nnoise_multiplier = 2.0\ndelta = 1e-5\n"
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
        play_to_the_end(boards, first=1)
        told = boards.wait_for_progress(state="done")["epsilon"]
    assert (noisy != oracle([BOARDS]).published).any()
    spent = [facts.epsilon for facts in read_history(service.state)]
    assert spent == [Ledger([2.0] * rounds).epsilon(1e-5) for rounds in (1, 2, 3, 4)]
    assert told == spent[-1]


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
        play_to_the_end(again, first=1)
        np.testing.assert_array_equal(again.model(4), oracle([BOARDS] * 4).published)


def test_no_deadline_comes_nearer_while_the_broker_is_away(tmp_path: Path, broker: Broker) -> None:
    """The broker is away for longer than the deadline. The round waits for the second board."""
    text = TEXT.replace("deadline = 60", "deadline = 2").replace("cohort = 4", "cohort = 2")
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
    service = Aggregator(tmp_path / "aggregator", broker.port)
    service.program.command = [*service.program.command, "--exit-when-done"]
    service.program.start()
    with Boards(broker.port) as boards, processes.stopping([service.program]):
        boards.are("ready", *BOARDS)
        play_to_the_end(boards)
        assert service.program.process is not None
        assert service.program.process.wait(PATIENCE) == 0
    with Boards(broker.port) as late:
        late.wait_for_progress(state="done", version=4)
        np.testing.assert_array_equal(late.model(4), oracle([BOARDS] * 4).published)
