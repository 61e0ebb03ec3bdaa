"""Who may import whom: rooms in their order, no circle between files, no test from a test."""

import ast
import re
from itertools import chain

import pytest

from localfleet.processes import PROJECT
from tests.architecture.sources import (
    BOARDS,
    circle,
    graph,
    imported,
    modules,
    packages,
    parsed,
    tools,
)
from tests.architecture.sources import rooms as table

ROOMS = table()
RUN_THE_AGGREGATOR = {"localfleet", "cli", "benchmarks", "tools"}


def test_the_table_has_every_room_below_those_that_import_it() -> None:
    assert {*packages(), BOARDS, "benchmarks", "tools"} == set(ROOMS)
    above: set[str] = set()
    for room, allowed in ROOMS.items():
        assert allowed <= above, f"{room} may import {allowed - above}, which stand below it"
        above.add(room)


def test_coverage_is_measured_of_every_package() -> None:
    assert set(tools()["coverage"]["run"]["source_pkgs"]) == set(packages())


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_the_table_allows(room: str) -> None:
    known = {name: path for other in ROOMS for name, path in modules(other).items()}
    wrong = {
        f"{name} imports {other}"
        for name, path in modules(room).items()
        for other in imported(parsed(path), known)
        if other.split(".")[0] not in ROOMS[room] | {room}
    }
    assert wrong == set()


def test_only_who_runs_the_aggregator_imports_it() -> None:
    """Whatever else needs a piece of it: that piece belongs into a room below."""
    allowed = {room for room, names in ROOMS.items() if "aggregator" in names}
    assert allowed <= RUN_THE_AGGREGATOR


@pytest.mark.parametrize("room", ROOMS)
def test_files_import_each_other_in_no_circle(room: str) -> None:
    imports = graph(modules(room))
    found = circle(imports)
    assert not found, " -> ".join(found)


def test_a_boards_files_import_each_other_in_no_circle() -> None:
    """What the package's own file imports inside a function is loaded when it is first asked for:
    the client may lean on the package."""
    known = modules("tinymetafed", PROJECT / BOARDS)
    imports = graph(known)
    assert "tinymetafed.session" in imports["tinymetafed.client"]
    body = parsed(known["tinymetafed"]).body
    at_once = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    imports["tinymetafed"] = set(chain.from_iterable(imported(node, known) for node in at_once))
    found = circle(imports)
    assert not found, " -> ".join(found)


def test_no_test_is_imported() -> None:
    """What tests share lies in tests/support, or beside them in a file that is no test. A program
    in a string counts, too."""
    known = modules("tests")
    tests = {name for name in known if name.rpartition(".")[2].startswith("test_")}
    assert len(tests) > 50
    wrong = set()
    for name, path in known.items():
        tree = parsed(path)
        strings = (
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        )
        named = chain.from_iterable(
            re.findall(r"(?:from|import)\s+(tests(?:\.\w+)*\.test_\w+)", text) for text in strings
        )
        wrong |= {f"{name} imports {other}" for other in {*imported(tree, known), *named} & tests}
    assert wrong == set()
