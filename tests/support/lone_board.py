"""An aggregator in the test's own hand, and boards beside it whose switches are files.

What a board sends can be held against the oracle, bit for bit.
"""

import json
import queue
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from localfleet import processes
from localfleet.parts import Bits
from localfleet.processes import Program
from protocol import feedback
from protocol.cohort import EVERYONE
from protocol.messages import Delta, Receipt, Round, Update
from protocol.topics import Topics, shard_of
from rounds.model import GlobalModel
from rounds.sums import PartialSum
from tests.support.client import Client
from tests.support.oracle import draw_samples, train
from tests.support.parts import BOARD_SCRIPTS, compile_client, real
from tests.support.specs import SINES, head, make_spec, relu

PATIENCE = 20.0
"""Seconds; shorter than a board waits for a model that does not come."""
SPEC = make_spec(
    **SINES
    | {
        "layers": (relu(32), relu(32), head(1)),
        "count": 12,
        "cohort": 2,
        "step_max": 1.0,
        "percent_down": 30,
    }
)
TOPICS = Topics(SPEC.fleet)
A, B = "board-a", "board-b"
SAMPLES = draw_samples(SPEC, (A, B), seed=3)
CHUNKS = 3


class Ears(Client):
    """Hears the boards' updates and states, in order."""

    def __init__(self, port: int) -> None:
        super().__init__(port, TOPICS.all_updates, TOPICS.all_states)
        self.updates: queue.Queue[Update] = queue.Queue()
        self.states: queue.Queue[dict[str, Any]] = queue.Queue()

    def take(self, topic: str, payload: bytes) -> None:
        if TOPICS.board_of_state(topic):
            self.states.put(json.loads(payload))
        else:
            self.updates.put(Update.unpack(payload))


class Aggregator:
    """The test's own hand: it announces what the test says, and hears the boards."""

    def __init__(self, port: int) -> None:
        self.models = [start()]
        self._client = Ears(port)
        self.updates, self.states = self._client.updates, self._client.states

    def __enter__(self) -> Self:
        self._client.__enter__()
        self.publish(TOPICS.plan, SPEC.plan.pack())
        self.publish_model()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.stop()

    # --- What it says

    @property
    def model(self) -> GlobalModel:
        """The newest version."""
        return self.models[-1]

    def publish(self, topic: str, payload: bytes, *, retain: bool = True) -> None:
        self._client.send(topic, payload, retain=retain)

    def publish_model(self, where: Callable[[int], str] = TOPICS.full, parts: int = CHUNKS) -> None:
        chunks = self.model.chunks()
        assert len(chunks) == CHUNKS
        for chunk in chunks[:parts]:
            self.publish(where(chunk.chunk), chunk.pack())

    def take_back(self, where: Callable[[int], str]) -> None:
        for number in range(CHUNKS):
            self.publish(where(number), b"")

    def make_version(self) -> Delta:
        """The next version, not yet published."""
        model = self.model
        after = GlobalModel.restore(
            SPEC, model.version, model.fine.tobytes(), model.published.tobytes()
        )
        total = PartialSum(SPEC.global_count, weight=1)
        rng = np.random.default_rng(model.version)
        total.changes[:] = rng.integers(-500, 500, SPEC.global_count)
        delta = after.advance(total.changes / total.weight, 1.0)
        self.models.append(after)
        return delta

    def round(
        self,
        round_: int,
        version: int,
        *,
        invited: int = EVERYONE,
        chosen: bytes = b"",
        max_age: int = 0,
        canary: int = 0,
        share: int = 0,
    ) -> Round:
        return Round(
            lineage=SPEC.lineage,
            round=round_,
            version=version,
            ticket_limit=invited,
            deadline=60_000,
            chosen=chosen,
            max_age=max_age,
            canary_version=canary,
            canary_share=share,
        )

    def announce(self, round_: int, version: int, **settings: Any) -> None:
        """With the settings of `round`."""
        self.publish(TOPICS.round, self.round(round_, version, **settings).pack())

    def acknowledge(self, update: Update) -> None:
        receipt = Receipt(SPEC.lineage, update.round, (update.board,)).pack()
        self.publish(TOPICS.receipt(shard_of(update.board)), receipt, retain=False)

    # --- What it hears

    def hear_updates(self, boards: int = 1) -> dict[str, Update]:
        """An update of each of so many boards, and their receipts."""
        heard: dict[str, Update] = {}
        while len(heard) < boards:
            update = self.updates.get(timeout=PATIENCE)
            heard[update.board] = update
            self.acknowledge(update)
        return heard

    def hear_state(self) -> dict[str, Any]:
        return self.states.get(timeout=PATIENCE)


def start() -> GlobalModel:
    """Version 3, after which comes round 5: versions and rounds count apart."""
    model = GlobalModel(SPEC)
    model.version = 3
    return model


def assert_learned_from(update: Update, model: GlobalModel, round_: int) -> None:
    """It is what the oracle's board sends that learned in this round from this version."""
    published: NDArray[np.int16] = model.published
    engine, loss, _ = train(SPEC, published, update.board, round_, SAMPLES[update.board][round_])
    block, _ = feedback.encode(
        engine.flat(local=False)[0] - published,
        np.zeros(SPEC.global_count, np.int16),
        SPEC.plan.top,
        SPEC.tensors,
        SPEC.plan.value_bits,
    )
    assert (update.round, update.query_loss) == (round_, loss)
    assert update.changes == block


class Board:
    """A board in a folder of its own, with the switches of tests/board/round_main.py."""

    def __init__(self, folder: Path, port: int, name: str, bits: Bits, main: str) -> None:
        self.folder = folder / name
        settings: dict[str, object] = {"broker": f"127.0.0.1:{port}", "fleet": SPEC.fleet}
        compile_client()
        self.program: Program = real(
            lambda: processes.board(self.folder, name, bits, settings, BOARD_SCRIPTS / main)
        )
        for round_, samples in enumerate(SAMPLES[name]):
            text = "\n".join(map(json.dumps, samples)) + "\n"
            (self.folder / f"samples-{round_}").write_text(text)

    def switch(self, name: str, value: int | list[int]) -> None:
        """Write a file that it reads, in one go."""
        (self.folder / "new").write_text(json.dumps(value))
        (self.folder / "new").rename(self.folder / name)

    def wait_for(self, line: str, times: int = 1) -> None:
        ends = time.monotonic() + PATIENCE
        while self.log().count(line + "\n") < times:
            self.program.check()
            assert time.monotonic() < ends, f"it did not say {line!r}, but:\n{self.log()}"
            time.sleep(0.01)  # There is no event to await: it writes to a file.

    def log(self) -> str:
        return self.program.log.read_text()

    def said(self, what: str) -> list[int]:
        """The numbers that followed."""
        return [int(n) for n in re.findall(rf"^{what} (\d+)$", self.log(), re.MULTILINE)]


Start = Callable[..., Board]
"""Starts a board by its name, with 32-bit words and round_main.py unless told otherwise; by
keyword, the switches that are set before."""
