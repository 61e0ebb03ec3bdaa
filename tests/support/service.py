"""The aggregator as a process on a real broker, and boards that follow a script."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localfleet import processes
from localfleet.processes import Program
from protocol.messages import Chunk, Plan, Receipt, Round, Update
from protocol.spec.spec import Spec
from protocol.topics import Topics, shard_of
from tests.support.client import Client
from tests.support.journal import JournalFile
from tests.support.script import Script
from tests.support.specs import spec_text
from tests.support.waiting import wait_until

BOARDS = ["board-a", "board-b", "board-c", "board-d"]
A, B, C, D = BOARDS
TEXT = spec_text()
SPEC = Spec.from_toml(TEXT)
TOPICS = Topics(SPEC.fleet)
SCRIPT = Script(SPEC, BOARDS)


class Boards(Client):
    """The boards, through one connection: they speak when the test says so, and hear everything."""

    def __init__(self, port: int) -> None:
        super().__init__(port, f"{TOPICS.root}/#")

    # --- What they say

    def are(self, state: str, *boards: str) -> None:
        for board in boards:
            self.send(TOPICS.state(board), json.dumps({"state": state}).encode(), retain=True)

    def update(self, board: str, round_: int) -> Update:
        """What a board sends in a round of the present lineage."""
        return replace(SCRIPT.update(board, round_), lineage=self.plan().lineage)

    def answer(self, round_: int, *boards: str) -> None:
        for board in boards:
            self.send(TOPICS.up(board), self.update(board, round_).pack())

    def command(self, **command: object) -> dict[str, Any]:
        """Tell the aggregator something; its answer."""
        request = f"request {len(self.received)}"
        self.send(TOPICS.command, json.dumps({**command, "id": request}).encode())
        answers: list[dict[str, Any]] = []

        def is_answered() -> bool:
            messages = (json.loads(text) for at, text in self.received if at == TOPICS.answer)
            answers.extend(message for message in messages if message["id"] == request)
            return bool(answers)

        self.wait(f"an answer to {command}", is_answered)
        return answers[0]

    def play_to_the_end(self, first: int = 0) -> None:
        """Answer every round from this one on."""
        for round_ in range(first, SPEC.rounds.count):
            self.wait_for_round(round_)
            self.answer(round_, *BOARDS)
        self.wait_for_progress(state="done")

    # --- What they hear

    def plan(self) -> Plan:
        """The plan in force."""
        self.wait("a plan", lambda: self.latest(TOPICS.plan) is not None)
        return Plan.unpack(self.latest(TOPICS.plan) or b"")

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

        def is_whole() -> bool:
            wanted = [(version, len(chunks()))] * len(chunks())
            found = [(chunk.version, chunk.chunks) for chunk in chunks()]
            return bool(found) and found == wanted

        self.wait(f"version {version}", is_whole)
        return np.frombuffer(b"".join(chunk.weights for chunk in chunks()), "<i2")


class Aggregator:
    """The process, which a test may kill and start again.

    Args:
        folder: of its spec, state and log.
        port: where the broker listens.
        text: the spec's.
        flags: of the command besides.
    """

    def __init__(
        self, folder: Path, port: int, text: str = TEXT, flags: Sequence[str] = ()
    ) -> None:
        folder.mkdir(exist_ok=True)
        spec = folder / "spec.toml"
        spec.write_text(text)
        self.state = folder / "state"
        self.journal = JournalFile(self.state)
        self.program: Program = processes.aggregator(folder, spec, port, *flags)

    @property
    def log(self) -> str:
        return self.program.log.read_text()

    def wait_for_log(self, text: str) -> None:
        def is_there() -> bool:
            self.program.check()
            return text in self.log

        wait_until(f"{text!r} in the log", is_there, lambda: self.log)
