"""Fixtures: an aggregator that does what the test says, and boards."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from localfleet import processes
from localfleet.parts import Bits
from localfleet.processes import Program
from tests.conftest import Broker
from tests.support.lone_board import Aggregator, Board, Start


@pytest.fixture
def aggregator(broker: Broker) -> Iterator[Aggregator]:
    with Aggregator(broker.port) as aggregator:
        yield aggregator


@pytest.fixture
def boot(broker: Broker, tmp_path: Path) -> Iterator[Start]:
    """Start a board; its switches are set before."""
    programs: list[Program] = []

    def boot_(
        name: str, bits: Bits = 32, main: str = "round_main.py", **switches: int | list[int]
    ) -> Board:
        board = Board(tmp_path, broker.port, name, bits, main)
        for switch, value in switches.items():
            board.switch(switch, value)
        programs.append(board.program)
        board.program.start()
        return board

    with processes.stopping(programs):
        yield boot_
