"""The table of a board's states: sound, and in the documents as it runs."""

import ast
import re

import pytest

from localfleet.parts import Bits
from localfleet.processes import PROJECT
from tests.support.parts import on_both_boards, run_board

SESSION = PROJECT / "micropython_client" / "tinymetafed" / "session.py"
PAGE = PROJECT / "docs" / "board.md"

pytestmark = pytest.mark.real


def constants() -> dict[str, int]:
    """Numbers of states and events, which a board does not know by name."""
    found = re.findall(r"^_([A-Z]+) = const\((\d+)\)\n\"", SESSION.read_text(), re.MULTILINE)
    return {name: int(value) for name, value in found}


def drawn() -> list[list[str]]:
    """State, event and state after it, of each row in the document."""
    (block,) = re.findall(
        r"<!-- table: board-states.*?-->(.*?)<!-- end -->", PAGE.read_text(), re.DOTALL
    )
    rows = []
    state = ""
    for first, event, after in re.findall(r"^\| (.*?) \| (.*?) \| (.*?) \|$", block, re.MULTILINE):
        if found := re.match(r"\*\*(\w+)\*\*", first):
            state = found[1]
        if found := re.match(r"([A-Z]+): ", event):
            rows.append([state, found[1], after])
    return rows


@on_both_boards
def test_the_table_that_runs_is_the_one_that_is_drawn(bits: Bits) -> None:
    ((states, moves, _),) = run_board("table.py", bits)
    numbers = constants()
    assert [numbers[state.upper()] for state in states] == list(range(len(states)))
    assert moves == [
        [numbers[state.upper()], numbers[event], numbers[after.upper()]]
        for state, event, after in drawn()
    ]


def test_the_table_is_sound() -> None:
    """An event leads from a state to one other, each state has a step, and from each but the end
    every other one can be reached.
    """
    ((states, moves, steps),) = run_board("table.py", 64)
    assert steps == len(states)
    keys = [(state, event) for state, event, _ in moves]
    assert len(keys) == len(set(keys))
    for start in range(len(states)):
        reached = {start}
        while more := {after for state, _, after in moves if state in reached} - reached:
            reached |= more
        if states[start] != "stopped":
            assert reached == set(range(len(states)))


def test_every_event_is_found_somewhere() -> None:
    """In a step or a message."""
    tree = ast.parse(SESSION.read_text())
    found = {
        ast.unparse(node.args[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "self._go"
    }
    assert found == {f"_{event}" for _, event, _ in drawn()}
