"""What the benchmark counts on the emulated Cortex-M0 keeps its promises, and is written down."""

import re
from typing import Any

import pytest

from benchmarks import board
from localfleet.emulator import Emulator
from localfleet.processes import PROJECT
from protocol.spec.spec import Spec
from tests.support.parts import compile_client, real

pytestmark = pytest.mark.real
PAGE = (PROJECT / "docs" / "engine.md").read_text(encoding="utf-8")
BOARD_PAGE = (PROJECT / "docs" / "board.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    compile_client()
    real(lambda: Emulator("cortex-m0"))
    return real(board.measure)


def figures(row: str, page: str = PAGE) -> list[float]:
    """The numbers of the last of the tables' rows that start so."""
    cells = re.findall(rf"^\| {row}([\d.,| ]*) \|$", page, re.MULTILINE)[-1]
    return [float(cell.replace(",", "")) for cell in cells.split(" | ")]


def test_the_kernels_are_faster_than_c(measured: dict[str, Any]) -> None:
    for name, row in measured["kernels"].items():
        assert row.keys() == set(board.VARIANTS), name
        assert row["asm_thumb"] < row["c"], name
        assert row["viper"] < 3 * row["c"], name
        assert row["bytecode"] > 60 * row["viper"], name


def test_a_step_of_the_sine_task_is_faster_than_with_c(measured: dict[str, Any]) -> None:
    step = measured["step"]["sine"]
    assert step["asm_thumb"] <= 0.85 * step["c"]
    assert step["viper"] <= 2.0 * step["c"]
    assert step["bytecode"] >= 60 * step["viper"]


def test_the_figures_are_those_that_are_written_down(measured: dict[str, Any]) -> None:
    for name in board.KERNELS:
        counted = [measured["kernels"][name][variant] for variant in board.VARIANTS]
        assert counted == pytest.approx(figures(rf"`{name}` \| "), rel=0.03), name
    sine = [measured["step"]["sine"][variant] for variant in board.VARIANTS]
    assert sine == pytest.approx(figures(""), rel=0.03)


def test_the_heap_is_what_is_written_down_and_asked_for(measured: dict[str, Any]) -> None:
    """The host's check of a spec asks for what a board needs, and for less than a tenth more."""
    for name in board.SPECS:
        spec = Spec.from_file(PROJECT / "specs" / f"{name}.toml")
        estimate = spec.heap_needed
        peak, least = measured["heap_peak"][name], measured["heap_least"][name]
        assert least <= estimate <= 1.1 * least, name
        *measures, written = figures(rf"{name} \| ", BOARD_PAGE)
        assert [peak, least] == pytest.approx(measures, rel=0.03), name
        assert written == estimate, name
