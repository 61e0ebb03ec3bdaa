"""A fleet of real parts for a test, and what its aggregator has journaled."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from localfleet import processes
from localfleet.parts import Bits
from localfleet.processes import Program
from protocol.progress import Progress
from protocol.spec.spec import Spec
from protocol.topics import Topics
from runtime.watcher import Watcher
from tests.conftest import Broker
from tests.support.journal import JournalFile
from tests.support.oracle import Samples, draw_samples, play
from tests.support.parts import BOARD_SCRIPTS, compile_client, real
from tests.support.waiting import PATIENCE, wait_until


class Fleet:
    """Boards, an aggregator and a broker, each of which a test may kill and start again.

    Args:
        folder: of all files.
        broker: started, or to be started by the test.
        text: the spec's.
        boards: their names; every other one has 64-bit words.
        main: in tests/board, what the boards run.
    """

    def __init__(
        self,
        folder: Path,
        broker: Broker,
        text: str,
        boards: Sequence[str],
        main: str = "fleet_main.py",
    ) -> None:
        self.folder = folder
        self.broker = broker
        self.main = BOARD_SCRIPTS / main
        self.spec = Spec.from_toml(text)
        self.topics = Topics(self.spec.fleet)
        self.samples: Samples = draw_samples(self.spec, boards, seed=3)
        spec_file = folder / "spec.toml"
        spec_file.write_text(text)
        compile_client()
        self.aggregator = processes.aggregator(folder, spec_file, broker.port)
        self.journal = JournalFile(folder / "state")
        self.boards = {name: self._board(name, i) for i, name in enumerate(boards)}
        self.programs = [self.aggregator, *self.boards.values()]

    def _board(self, name: str, i: int) -> Program:
        folder = self.folder / name
        settings: dict[str, object] = {
            "broker": f"mqtt://127.0.0.1:{self.broker.port}",
            "fleet": self.spec.fleet,
        }
        bits: Bits = 64 if i % 2 else 32
        program = real(lambda: processes.board(folder, name, bits, settings, self.main))
        for round_, samples in enumerate(self.samples[name]):
            (folder / f"samples-{round_}").write_text("\n".join(map(json.dumps, samples)) + "\n")
        return program

    def start(self) -> None:
        for program in self.programs:
            program.start()

    def wait_until(self, watcher: Watcher, wanted: Callable[[Progress], bool]) -> Progress:
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends:
            progress = watcher.next(seconds=1)
            if progress is not None and wanted(progress):
                return progress
        logs = [p.log.read_text(errors="replace")[-2000:] for p in self.programs]
        pytest.fail("the fleet did not get there in time:\n" + "\n---\n".join(logs))

    def wait_until_done(self, watcher: Watcher) -> Progress:
        return self.wait_until(watcher, lambda p: p.state == "done")

    def wait_for_line(self, name: str, part: str) -> str:
        """A board's log, once a line of it has this in it."""
        log = self.boards[name].log

        def said() -> str:
            return log.read_text(errors="replace")

        wait_until(f"{name} to say {part!r}", lambda: part in said(), said)
        return said()

    def cohorts(self) -> list[set[str]]:
        """Who is in each round, by the journal."""
        cohorts: list[set[str]] = [set() for _ in range(self.spec.rounds.count)]
        for round_, board in self.journal.updates():
            cohorts[round_].add(board)
        return cohorts

    def assert_equals_oracle(self) -> None:
        published = [model.tobytes() for model in play(self.spec, self.samples, self.cohorts())[0]]
        assert self.journal.versions() == published

    def measured(self) -> list[tuple[float, float]]:
        """The oracle's accuracy and loss of each round's query samples."""
        return play(self.spec, self.samples, self.cohorts())[1]
