"""An operator steers a fleet by its command topic, and rounds are of other kinds."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aggregator.store.store import read_history
from localfleet import processes
from protocol.cohort import is_canary
from protocol.commands import Import
from protocol.messages import Chunk
from rounds.model import GlobalModel
from rounds.optimizers import cosine_step
from tests.conftest import Broker
from tests.support.service import BOARDS, SCRIPT, SPEC, TOPICS, A, Aggregator, B, Boards, C, D
from tests.support.specs import make_spec, spec_text

pytestmark = pytest.mark.real


@pytest.fixture
def boards(boards: Boards) -> Boards:
    boards.are("ready", *BOARDS)
    return boards


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
    np.testing.assert_array_equal(boards.model(1), SCRIPT.oracle([BOARDS]).published)


def test_a_stopped_fleet_closes_with_what_there_is(aggregator: Aggregator, boards: Boards) -> None:
    boards.wait_for_round(0)
    boards.answer(0, A, B)
    boards.wait_for_receipt(0, B)
    assert boards.command(command="stop")["ok"]
    np.testing.assert_array_equal(boards.model(1), SCRIPT.oracle([[A, B]]).published)
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
    command = {"command": "apply", "spec": spec_text(percent=50)}
    boards.send(TOPICS.command, json.dumps(command).encode())
    boards.answer(0, A)
    assert boards.plan().top == top  # Boards are at work by the old one.
    boards.answer(0, B, C, D)
    boards.wait_for_round(1)
    plan = boards.plan()
    assert plan.lineage == lineage
    assert plan.top > top
    np.testing.assert_array_equal(boards.model(1), SCRIPT.oracle([BOARDS]).published)
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
    answer = boards.command(command="apply", spec=spec_text(seed=2))
    assert answer["ok"]
    assert boards.plan().lineage != late.lineage
    assert f"{boards.plan().lineage:08x}" in answer["detail"]
    other = make_spec(seed=2)
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
    np.testing.assert_array_equal(boards.model(3), SCRIPT.oracle([BOARDS]).published)
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


# --- Buffered rounds


def test_in_buffered_rounds_a_late_update_counts_with_a_discount(
    tmp_path: Path, broker: Broker
) -> None:
    """Three of four boards fill the buffer, and a version is made of them. The slow fourth goes on:
    its update for round 0 comes in round 1, is journaled, survives a kill -9, and weighs less."""
    text = spec_text(quorum=3, mode="buffered")
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
        SCRIPT.advance(model, [A, B, C])
        now, late = SCRIPT.total([(1, A), (1, B)]), SCRIPT.total([(0, D)])
        mean = (now.changes + late.changes * 2**-0.5) / (2 + 2**-0.5)
        model.advance(mean, cosine_step(SPEC.rounds, 1))
        np.testing.assert_array_equal(boards.model(2), model.published)
    assert [facts.late for facts in read_history(service.state)] == [0, 1]


# --- A canary version


@pytest.mark.parametrize("worse", [False, True])
def test_a_canary_version_is_tried_out_and_rolled_back_by_itself(
    tmp_path: Path, broker: Broker, *, worse: bool
) -> None:
    """Round 0 makes version 1, which half of the boards try out in round 1. If their loss is worse
    than the others', version 1 is rolled back; else everybody gets it. Each way, the next version
    is the canary after that."""
    text = spec_text(cohort=8, canary={"share": 0.5, "tolerance": 0.1})
    names = [f"board-{i}" for i in range(8)]
    service = Aggregator(tmp_path / "aggregator", broker.port, text)
    with Boards(broker.port) as boards, processes.stopping([service.program]):
        boards.are("ready", *names)
        service.program.start()
        boards.wait_for_round(0)
        boards.answer(0, *names)
        announced = boards.wait_for_round(1)
        assert (announced.version, announced.canary_version) == (0, 1)
        canary = boards.latest(TOPICS.canary(0))
        assert canary is not None
        assert Chunk.unpack(canary).version == 1
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


# --- Commands that the broker keeps


def test_a_retained_command_is_not_carried_out_at_each_start(
    aggregator: Aggregator, boards: Boards
) -> None:
    """A dashboard publishes with the retain flag. Who is connected carries the command out, once;
    who is started later names the kept copy and does nothing; an empty message takes it away."""
    boards.wait_for_round(0)
    command = json.dumps({"command": "pause", "id": "kept"}).encode()
    boards.send(TOPICS.command, command, retain=True)
    boards.wait_for_progress(state="paused")
    assert boards.command(command="resume")["ok"]
    aggregator.program.kill()
    aggregator.program.start()
    aggregator.wait_for_log("a retained command pause is not carried out")
    assert f"publish an empty retained message to {TOPICS.command}" in aggregator.log
    boards.wait_for_progress(state="collecting")
    boards.send(TOPICS.command, b"", retain=True)
    aggregator.program.kill()
    aggregator.program.start()
    boards.answer(0, *BOARDS)
    boards.wait_for_round(1)
    assert aggregator.log.count("a command is refused") == 1
