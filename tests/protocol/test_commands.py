"""An operator steers a fleet by its command topic, and rounds are of other kinds.

As in test_aggregator_service: a real aggregator, a real broker, and boards that the test plays.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aggregator.store.store import read_history
from localfleet import processes
from protocol import sparse
from protocol.cohort import is_canary
from protocol.commands import Import, parse
from protocol.errors import CommandError
from protocol.messages import Chunk
from protocol.spec.spec import Spec
from rounds.model import GlobalModel
from rounds.optimizers import cosine_step
from rounds.sums import PartialSum
from tests.aggregator.test_service import (
    BOARDS,
    SPEC,
    TEXT,
    TOPICS,
    A,
    Aggregator,
    B,
    Boards,
    C,
    D,
    oracle,
    update,
)
from tests.conftest import Broker


@pytest.fixture
def aggregator(tmp_path: Path, broker: Broker) -> Iterator[Aggregator]:
    made = Aggregator(tmp_path / "aggregator", broker.port)
    made.program.start()
    with processes.stopping([made.program]):
        yield made


@pytest.fixture
def boards(broker: Broker) -> Iterator[Boards]:
    with Boards(broker.port) as made:
        made.are("ready", *BOARDS)
        yield made


# --- Pause, resume, stop


def test_a_paused_fleet_opens_no_round_and_loses_nothing(
    aggregator: Aggregator, boards: Boards
) -> None:
    """Two of four boards have answered when an operator pauses the fleet. The round is withdrawn; a
    third board's update comes all the same and counts. The aggregator is killed and started again:
    the fleet is still paused. Then it is resumed, the last board answers, and all four count."""
    boards.wait_for_round(0)
    boards.answer(0, A, B)
    answer = boards.command(command="pause")
    assert answer["ok"]
    assert boards.latest(TOPICS.round) == b""
    boards.answer(0, C)
    boards.wait_for_receipt(0, C)
    aggregator.program.kill()
    aggregator.program.start()
    boards.wait_for_progress(state="paused", answered=3)
    assert not boards.command(command="pause")["ok"]  # It is already.
    announced = len([1 for topic, payload in boards.received if topic == TOPICS.round and payload])
    assert boards.command(command="resume")["ok"]
    boards.wait_for_round(0, times=announced + 1)
    boards.answer(0, D)
    np.testing.assert_array_equal(boards.model(1), oracle([BOARDS]).published)


def test_a_stopped_fleet_closes_with_what_there_is(aggregator: Aggregator, boards: Boards) -> None:
    boards.wait_for_round(0)
    boards.answer(0, A, B)
    boards.wait_for_receipt(0, B)
    assert boards.command(command="stop")["ok"]
    np.testing.assert_array_equal(boards.model(1), oracle([[A, B]]).published)
    boards.wait_for_progress(state="done", round=1, version=1)
    assert boards.latest(TOPICS.round) == b""
    aggregator.program.kill()
    aggregator.program.start()
    boards.wait_for_progress(state="done", awake=4)
    assert boards.command(command="resume")["ok"]
    boards.wait_for_round(1)


# --- A new plan


def test_a_new_plan_waits_for_the_round_and_keeps_the_model(
    aggregator: Aggregator, boards: Boards
) -> None:
    boards.wait_for_round(0)
    lineage, top = boards.plan().lineage, boards.plan().top
    text = TEXT.replace("percent = 10", "percent = 50")
    boards.send(TOPICS.command, b'{"command": "apply", "spec": %s}' % _json(text))
    boards.answer(0, A)
    assert boards.plan().top == top  # Boards are at work by the old one.
    boards.answer(0, B, C, D)
    boards.wait_for_round(1)
    plan = boards.plan()
    assert plan.lineage == lineage
    assert plan.top > top
    np.testing.assert_array_equal(boards.model(1), oracle([BOARDS]).published)
    aggregator.program.kill()
    aggregator.program.start()  # With the old spec's file, which has not changed.
    boards.wait_for_progress(round=1, state="collecting")
    assert boards.plan() == plan


@pytest.mark.usefixtures("aggregator")
def test_another_model_begins_a_lineage_and_boards_on_the_old_one_are_told(boards: Boards) -> None:
    boards.wait_for_round(0)
    boards.answer(0, A, B, C)
    boards.wait_for_receipt(0, C)
    late = boards.update(D, 0)
    assert boards.command(command="pause")["ok"]
    answer = boards.command(command="apply", spec="seed = 2\n" + TEXT)
    assert answer["ok"]
    assert boards.plan().lineage != late.lineage
    assert f"{boards.plan().lineage:08x}" in answer["detail"]
    other = Spec.from_toml("seed = 2\n" + TEXT)
    np.testing.assert_array_equal(boards.model(0), other.start())
    boards.wait_for_round(0, times=2)
    boards.send(TOPICS.up(D), late.pack())
    boards.wait_for_progress(rejected={"lineage": 1})
    event = boards.latest(TOPICS.event(D))
    assert event is not None
    assert b"lineage" in event


# --- Versions


def test_a_version_is_rolled_back_to_as_a_new_version(
    aggregator: Aggregator, boards: Boards
) -> None:
    for round_ in range(2):
        boards.wait_for_round(round_)
        boards.answer(round_, *BOARDS)
    boards.wait_for_round(2)
    assert boards.command(command="pause")["ok"]
    answer = boards.command(command="rollback", version=1)
    assert answer["ok"]
    assert "version 3" in answer["detail"]
    np.testing.assert_array_equal(boards.model(3), oracle([BOARDS]).published)
    assert boards.latest(TOPICS.delta) == b""  # No board gets there by a change.
    refused = boards.command(command="rollback", version=99)
    assert not refused["ok"]
    assert "version 99" in refused["detail"]
    aggregator.program.kill()
    aggregator.program.start()
    boards.wait_for_progress(state="paused", version=3)
    boards.command(command="resume")
    announced = boards.wait_for_round(2, times=2)
    assert announced.version == 3


@pytest.mark.usefixtures("aggregator")
def test_weights_from_elsewhere_are_a_version_too(boards: Boards) -> None:
    boards.wait_for_round(0)
    boards.command(command="pause")
    weights = np.arange(SPEC.global_count, dtype=np.int16)
    answer = boards.command(**Import.of(weights).model_dump(exclude={"id"}))
    assert answer["ok"]
    np.testing.assert_array_equal(boards.model(1), weights)
    short = boards.command(**Import.of(weights[1:]).model_dump(exclude={"id"}))
    assert not short["ok"]


@pytest.mark.usefixtures("aggregator")
def test_what_is_no_command_is_answered_and_harms_nothing(boards: Boards) -> None:
    boards.wait_for_round(0)
    assert "dance" in boards.command(command="dance")["detail"]
    assert not boards.command(command="rollback", version=-1)["ok"]
    boards.send(TOPICS.command, b"\xff[[[")
    boards.answer(0, *BOARDS)
    boards.wait_for_round(1)
    plan = boards.command(command="pause") and boards.command(command="apply", spec="fleet = 3")
    assert not plan["ok"]
    assert "fleet" in plan["detail"]


@pytest.mark.parametrize("payload", [b"", b"null", b"[" * 5000, b'{"command":"stop"', b"x" * 2**21])
def test_any_bytes_are_a_command_or_refused(payload: bytes) -> None:
    with pytest.raises(CommandError, match="command"):
        parse(payload)


def _json(text: str) -> bytes:
    return b'"' + text.replace("\n", "\\n").replace('"', '\\"').encode() + b'"'


# --- Buffered rounds


def test_in_buffered_rounds_a_late_update_counts_with_a_discount(
    tmp_path: Path, broker: Broker
) -> None:
    """Three of four boards fill the buffer, and a version is made of them. The slow fourth goes on:
    its update for round 0 comes in round 1, is journaled, survives a kill -9, and weighs less."""
    text = TEXT.replace("cohort = 4", 'cohort = 4\nquorum = 3\nmode = "buffered"')
    service = Aggregator(tmp_path / "aggregator", broker.port, text)
    with Boards(broker.port) as boards, processes.stopping([service.program]):
        boards.are("ready", *BOARDS)
        service.program.start()
        assert boards.wait_for_round(0).max_age == 8
        boards.answer(0, A, B, C)
        boards.wait_for_round(1)
        boards.answer(0, D)
        boards.wait_for_receipt(0, D)
        service.program.kill()
        service.program.start()
        boards.answer(1, A, B)
        model = GlobalModel(SPEC)
        first = _sum((0, A), (0, B), (0, C))
        model.advance(first.changes / first.weight, cosine_step(SPEC.rounds, 0))
        now, late = _sum((1, A), (1, B)), _sum((0, D))
        mean = (now.changes + late.changes * 2**-0.5) / (2 + 2**-0.5)
        model.advance(mean, cosine_step(SPEC.rounds, 1))
        np.testing.assert_array_equal(boards.model(2), model.published)
    assert [facts.late for facts in read_history(service.state)] == [0, 1]


def _sum(*answers: tuple[int, str]) -> PartialSum:
    total = PartialSum(SPEC.global_count)
    for round_, board in answers:
        message = update(board, round_)
        total.add(message, sparse.decode(message.changes, SPEC.tensors))
    return total


# --- A version on trial


@pytest.mark.parametrize("worse", [False, True])
def test_a_new_version_is_tried_out_and_taken_back_by_itself(
    tmp_path: Path, broker: Broker, *, worse: bool
) -> None:
    """Round 0 makes version 1, which half of the boards try out in round 1. If their loss is worse
    than the others', version 1 is taken back; else everybody gets it. Each way, the next version is
    on trial after that."""
    text = TEXT.replace("cohort = 4", "cohort = 8")
    text += "\n[rounds.canary]\nshare = 0.5\ntolerance = 0.1\n"
    names = [f"board-{i}" for i in range(8)]
    service = Aggregator(tmp_path / "aggregator", broker.port, text)
    with Boards(broker.port) as boards, processes.stopping([service.program]):
        boards.are("ready", *names)
        service.program.start()
        boards.wait_for_round(0)
        boards.answer(0, *names)
        announced = boards.wait_for_round(1)
        assert (announced.version, announced.canary_version) == (0, 1)
        tried = boards.latest(TOPICS.canary(0))
        assert tried is not None
        assert Chunk.unpack(tried).version == 1
        canaries = {name for name in names if is_canary(name, 1, announced.canary_share)}
        assert 0 < len(canaries) < 8
        for name in names:
            loss = 9000 if worse and name in canaries else 2048
            boards.send(TOPICS.up(name), replace(boards.update(name, 1), query_loss=loss).pack())
        announced = boards.wait_for_round(2)
        assert (announced.version, announced.canary_version) == (0 if worse else 1, 2)
        boards.wait_for_progress(round=2, version=announced.version, canary_version=2)
    last = read_history(service.state)[-1]
    assert last.canary == ("rolled back" if worse else "promoted")
    assert last.canary_loss == (9000 if worse else 2048) / 4096 / 5 / 2
