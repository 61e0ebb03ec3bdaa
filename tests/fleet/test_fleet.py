"""A whole fleet: real Mosquitto, real aggregator, real MicroPython of both word sizes.

In each scenario something goes wrong in the middle of round 2, in which one board is held back; the
model that comes out must be the oracle's, bit for bit: no update is lost, none counts twice.
"""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregator.store.store import read_history
from localfleet import processes
from protocol.fixed import ACTIVATION_BITS, to_activation
from protocol.messages import Update
from runtime.watcher import Watcher
from tests.conftest import Broker
from tests.support.client import Client
from tests.support.fleet import Fleet
from tests.support.oracle import train
from tests.support.specs import LETTERS, SINES, spec_text
from tests.support.waiting import wait_until

pytestmark = pytest.mark.real

BOARDS = ["board-a", "board-b", "board-c", "board-d"]
HELD = "board-d"
HELD_ROUND = 2


class HeldFleet(Fleet):
    """One board of it can be held back in the middle of a round."""

    def hold(self) -> None:
        (self.folder / HELD / "hold").write_text(str(HELD_ROUND))

    def release(self) -> None:
        (self.folder / HELD / "hold").unlink()

    def wait_until_only_the_held_board_is_missing(self, watcher: Watcher) -> None:
        self.wait_until(
            watcher,
            lambda p: p.round == HELD_ROUND and p.answered == len(BOARDS) - 1,
        )


@pytest.fixture
def fleet(tmp_path: Path, broker: Broker) -> Iterator[HeldFleet]:
    fleet = HeldFleet(tmp_path, broker, spec_text(**SINES), BOARDS)
    with processes.stopping(fleet.programs):
        yield fleet


def test_a_fleet_learns_to_tell_classes(tmp_path: Path, broker: Broker) -> None:
    """Convolutions and cross-entropy on two boards; each round has its share of right answers."""
    fleet = Fleet(tmp_path, broker, spec_text(**LETTERS), BOARDS[:2])
    seen = []
    with processes.stopping(fleet.programs):
        fleet.start()
        with Watcher(broker.port, fleet.topics) as watcher:
            while (progress := fleet.wait_until(watcher, bool)).state != "done":
                seen.append(progress.accuracy)
            seen.append(progress.accuracy)
    assert progress.rejected == {}
    assert fleet.cohorts() == [set(BOARDS[:2])] * fleet.spec.rounds.count
    fleet.assert_equals_oracle()
    # Of 9 query samples a board, what the oracle's boards got right.
    history = read_history(tmp_path / "state")
    right = [facts.accuracy for facts in history]
    assert right == [share for share, _ in fleet.measured()]
    assert [facts.loss for facts in history] == [loss for _, loss in fleet.measured()]
    assert {share for share in seen if share is not None} <= set(right)
    assert seen[-1] == right[-1]


def everyone(rounds: int) -> list[set[str]]:
    return [set(BOARDS)] * rounds


def test_a_fleet_comes_to_what_the_oracle_computes(fleet: HeldFleet) -> None:
    """Two 32-bit and two 64-bit boards take part in every round."""
    fleet.start()
    with Watcher(fleet.broker.port, fleet.topics) as watcher:
        progress = fleet.wait_until_done(watcher)
    assert progress.accepted == len(BOARDS) * fleet.spec.rounds.count
    assert progress.rejected == {}
    assert fleet.cohorts() == everyone(fleet.spec.rounds.count)
    fleet.assert_equals_oracle()


@pytest.mark.parametrize("value_bits", [4, 16])
def test_a_fleet_with_error_feedback_comes_to_what_the_oracle_computes(
    tmp_path: Path, broker: Broker, value_bits: int
) -> None:
    """Each board keeps what it did not send, and sends it with a later update."""
    feedback = {"percent": 5, "value_bits": value_bits, "error_feedback": True}
    fleet = Fleet(tmp_path, broker, spec_text(**(SINES | feedback)), BOARDS)
    with processes.stopping(fleet.programs):
        fleet.start()
        with Watcher(broker.port, fleet.topics) as watcher:
            progress = fleet.wait_until_done(watcher)
    assert progress.rejected == {}
    assert fleet.cohorts() == everyone(fleet.spec.rounds.count)
    fleet.assert_equals_oracle()


def test_a_board_predicts_between_rounds_and_without_a_broker(fleet: HeldFleet) -> None:
    """What it answers is what the network as it trained it last says."""
    fleet.start()
    with Watcher(fleet.broker.port, fleet.topics) as watcher:
        fleet.wait_until_done(watcher)
    fleet.broker.program.kill()
    last = fleet.spec.rounds.count - 1
    published = np.frombuffer(fleet.journal.versions()[last - 1], np.int16)
    for name in ("board-a", "board-b"):
        engine, _, _ = train(fleet.spec, published, name, last, fleet.samples[name][last])
        (answer,) = engine.forward(to_activation(np.array([[0.5]])))[-1][0]
        prediction = fleet.folder / name / "prediction"
        prediction.unlink()
        wait_until(f"a prediction of {name}", prediction.exists)
        assert float(prediction.read_text()) == answer / 2**ACTIVATION_BITS


def test_a_board_killed_in_mid_round_is_not_waited_for_and_comes_back(fleet: HeldFleet) -> None:
    """The broker publishes its last will, and the round closes with the other three. Started again,
    without memory, it fetches the model and is in a later round.
    """
    fleet.hold()
    fleet.start()
    with Watcher(fleet.broker.port, fleet.topics) as watcher:
        fleet.wait_until_only_the_held_board_is_missing(watcher)
        fleet.boards[HELD].kill()
        fleet.release()
        fleet.boards[HELD].start()
        fleet.wait_until_done(watcher)
    cohorts = fleet.cohorts()
    assert cohorts[HELD_ROUND] == set(BOARDS) - {HELD}
    assert HELD in cohorts[1]
    fleet.assert_equals_oracle()


def test_the_aggregator_killed_in_mid_round_goes_on_where_it_was(fleet: HeldFleet) -> None:
    """Three updates are journaled when it is killed; the fourth board answers its successor."""
    fleet.hold()
    fleet.start()
    with Watcher(fleet.broker.port, fleet.topics) as watcher:
        fleet.wait_until_only_the_held_board_is_missing(watcher)
        fleet.aggregator.kill(signal.SIGKILL)
        fleet.aggregator.start()
        fleet.release()
        progress = fleet.wait_until_done(watcher)
    assert fleet.cohorts() == everyone(fleet.spec.rounds.count)
    assert progress.accepted == len(BOARDS) * fleet.spec.rounds.count
    fleet.assert_equals_oracle()


STRATEGIES: dict[str, dict[str, Any]] = {
    "trimmed mean and Yogi": {
        "combine": {"rule": "trimmed_mean", "trim": 1, "clip_norm": 0.3},
        "optimizer": {"rule": "yogi"},
    },
    "count and momentum": {"combine": {"rule": "count"}, "optimizer": {"rule": "avgm"}},
}


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_a_strategy_outlives_the_aggregator(
    tmp_path: Path, broker: Broker, strategy: dict[str, Any]
) -> None:
    """Killed in mid-round, it finds momentum, squares and updates in the journal again."""
    settings = SINES | {"step_max": 0.05} | strategy
    fleet = HeldFleet(tmp_path, broker, spec_text(**settings), BOARDS)
    with processes.stopping(fleet.programs):
        fleet.hold()
        fleet.start()
        with Watcher(broker.port, fleet.topics) as watcher:
            fleet.wait_until_only_the_held_board_is_missing(watcher)
            fleet.aggregator.kill(signal.SIGKILL)
            fleet.aggregator.start()
            fleet.release()
            fleet.wait_until_done(watcher)
    assert fleet.cohorts() == everyone(fleet.spec.rounds.count)
    fleet.assert_equals_oracle()
    assert len(set(fleet.journal.versions())) == fleet.spec.rounds.count


def test_updates_sent_while_the_aggregator_is_away_are_not_lost(fleet: HeldFleet) -> None:
    """The fourth board sends its update to a broker without a subscriber, which keeps it."""
    fleet.hold()
    fleet.start()
    with Watcher(fleet.broker.port, fleet.topics) as watcher:
        fleet.wait_until_only_the_held_board_is_missing(watcher)
        assert fleet.aggregator.kill(signal.SIGTERM) == 0
        with Client(fleet.broker.port, fleet.topics.up(HELD)) as listener:
            fleet.release()
            listener.wait("the update", lambda: bool(listener.received))
        fleet.aggregator.start()
        progress = fleet.wait_until_done(watcher)
    assert fleet.cohorts() == everyone(fleet.spec.rounds.count)
    assert progress.accepted == len(BOARDS) * fleet.spec.rounds.count
    fleet.assert_equals_oracle()


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_the_broker_restarted_in_mid_round(fleet: HeldFleet, sign: signal.Signals) -> None:
    """Boards and aggregator reconnect by themselves, and what was journaled counts.

    A broker that stops in order publishes everyone's last will, so the round may close without the
    held board; one that is killed does not, and the held board is waited for.
    """
    fleet.hold()
    fleet.start()
    with Watcher(fleet.broker.port, fleet.topics) as watcher:
        fleet.wait_until_only_the_held_board_is_missing(watcher)
        fleet.broker.program.kill(sign)
        fleet.broker.start()
        fleet.release()
        fleet.wait_until_done(watcher)
    cohorts = fleet.cohorts()
    assert cohorts[:HELD_ROUND] == everyone(HELD_ROUND)
    assert cohorts[HELD_ROUND] >= set(BOARDS) - {HELD}
    if sign is signal.SIGKILL:
        assert cohorts[HELD_ROUND] == set(BOARDS)
    fleet.assert_equals_oracle()


def test_the_broker_comes_last(tmp_path: Path, absent_broker: Broker) -> None:
    """Whoever is first waits for the others."""
    fleet = HeldFleet(tmp_path, absent_broker, spec_text(**SINES), BOARDS)
    with processes.stopping(fleet.programs):
        fleet.start()
        absent_broker.start()
        with Watcher(absent_broker.port, fleet.topics) as watcher:
            fleet.wait_until_done(watcher)
    assert fleet.cohorts()[-1] == set(BOARDS)
    fleet.assert_equals_oracle()


def test_duplicates_stale_rounds_and_garbage_change_nothing(fleet: HeldFleet) -> None:
    """A stranger repeats a board's update, sends one of an old round, and one that is noise."""
    fleet.hold()
    fleet.start()
    with Watcher(fleet.broker.port, fleet.topics) as watcher:
        fleet.wait_until_only_the_held_board_is_missing(watcher)
        now = fleet.journal.payload(HELD_ROUND, "board-a")
        forged = Update.unpack(fleet.journal.payload(0, "board-b"))
        with Client(fleet.broker.port) as stranger:
            stranger.send(fleet.topics.up("board-a"), now)
            stranger.send(fleet.topics.up("board-b"), now)
            stranger.send(fleet.topics.up("board-b"), forged.pack()[:-1] + b"\x55")
            stranger.send(fleet.topics.up("board-c"), np.random.default_rng(0).bytes(300))
        fleet.wait_until(watcher, lambda p: sum(p.rejected.values()) == 4)
        fleet.release()
        progress = fleet.wait_until_done(watcher)
    assert progress.rejected == {"duplicate": 1, "identity": 1, "stale": 1, "garbled": 1}
    assert fleet.cohorts() == everyone(fleet.spec.rounds.count)
    fleet.assert_equals_oracle()
