"""A board that takes part from a loop of its own, or beside other tasks of asyncio.

Real boards of both word sizes, a real broker and aggregator: what comes out must be what the oracle
computes, as it is for boards that block.
"""

import re
from pathlib import Path

import pytest

from localfleet import processes
from localfleet.parts import Bits
from runtime.watcher import Watcher
from tests.conftest import Broker
from tests.support.fleet import Fleet
from tests.support.lone_board import SPEC, A, Aggregator, Start, assert_learned_from
from tests.support.parts import on_both_boards

pytestmark = pytest.mark.real

BOARDS = ["board-a", "board-b"]
"""With 32 and 64 bits."""
TEXT = """
fleet = "test"
seed = 7
[model]
inputs = 1
loss = "mse"
layers = [
    { outputs = 9, activation = "relu" },
    { outputs = 8, activation = "relu" },
    { outputs = 1, activation = "none", local = true },
]
[training]
support = 5
query = 6
rate_local = 0.02
rate_global = 0.02
percent = 20
[rounds]
count = 3
cohort = 2
deadline = 30
step_max = 2.0
percent_down = 40
"""


def play(folder: Path, broker: Broker, main: str) -> Fleet:
    """A fleet whose boards run this script, after its last round."""
    fleet = Fleet(folder, broker, TEXT, BOARDS, main)
    with processes.stopping(fleet.programs):
        fleet.start()
        with Watcher(broker.port, fleet.topics) as watcher:
            progress = fleet.wait_until_done(watcher)
    assert progress.rejected == {}
    assert fleet.cohorts() == [set(BOARDS)] * fleet.spec.rounds.count
    return fleet


def test_a_fleet_of_boards_with_loops_of_their_own_comes_to_what_the_oracle_computes(
    tmp_path: Path, broker: Broker
) -> None:
    """A step takes a sample at most, and each round goes through the states in their order."""
    fleet = play(tmp_path, broker, "steps_main.py")
    fleet.assert_equals_oracle()
    for board in fleet.boards.values():
        log = board.log.read_text()
        assert "Traceback" not in log
        states = re.findall(r"^state (\w+)$", log, re.MULTILINE)
        assert states[:5] == ["idle", "offline", "idle", "adopting", "idle"]
        assert states[states.index("fetching") :][:8] == [
            *("fetching", "idle", "training", "encoding", "idle", "sending", "waiting", "idle")
        ]
        assert states.count("training") == fleet.spec.rounds.count


def test_a_fleet_of_boards_with_other_tasks_comes_to_what_the_oracle_computes(
    tmp_path: Path, broker: Broker
) -> None:
    """They wait for each sample until another task of theirs has had its turn."""
    fleet = play(tmp_path, broker, "aio_main.py")
    fleet.assert_equals_oracle()
    for board in fleet.boards.values():
        assert "Traceback" not in board.log.read_text()


@on_both_boards
def test_a_task_ends_with_its_samples(aggregator: Aggregator, boot: Start, bits: Bits) -> None:
    """It takes part in as many rounds as it has samples for, and leaves the broker in order."""
    board = boot(A, bits, main="aio_main.py")
    for round_ in range(SPEC.rounds.count):
        aggregator.announce(round_, 3)
        assert_learned_from(aggregator.hear_updates()[A], aggregator.model, round_)
    assert aggregator.hear_state()["state"] == "ready"
    aggregator.announce(SPEC.rounds.count, 3)
    assert aggregator.hear_state()["state"] == "stopped"
    board.wait_for("ended as stopped")
