"""A scripted fleet on real connections, whose aggregator and broker a test may hurt.

A round waits for every board, so each version must hold one update of each; the oracle adds up the
same updates, and each board's mark tells how often it was counted.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from protocol.cohort import is_invited
from protocol.messages import Chunk, Plan, Receipt, Round
from protocol.spec.spec import Spec
from protocol.topics import Topics, shard_of
from rounds.model import GlobalModel
from tests.faults.ledger import Account
from tests.faults.service_process import Aggregator
from tests.support.client import Client
from tests.support.script import MARK, Script
from tests.support.specs import spec_text
from tests.support.waiting import PATIENCE

BOARDS: Final = tuple(f"board-{i}" for i in range(8))
MOST_ROUNDS: Final = 1500
"""Until a mark would reach the end of the weights' range."""
RESEND: Final = 0.2
"""Seconds after which an update without a receipt is sent again; they double each time ..."""
RESEND_MOST: Final = 3.2
"""... up to this. A board waits ten times as long."""
TICK: Final = 0.05


class Board(Client):
    """Sends its update until its receipt, as the client does.

    Args:
        name: its name.
        script: says what it sends.
        port: where its broker listens.
        news: is notified of each message.
    """

    def __init__(self, name: str, script: Script, port: int, news: threading.Condition) -> None:
        self.name = name
        self._script = script
        self._at = at = Topics(script.spec.fleet)
        heard = (at.plan, at.round, at.receipt(shard_of(name)))
        super().__init__(port, *heard, name=f"{script.spec.fleet}-{name}", news=news)
        self.round: int | None = None
        """The open round, where it invites this board."""
        self.heard_back = 0
        """How often it heard of a round that was over already."""
        self.sent = 0
        self.receipted: set[int] = set()
        """Rounds in which the aggregator has this board's update."""
        self._pause = RESEND
        self._send_at = 0.0

    def repeat(self) -> None:
        """Send the open round's update again, if it is time to."""
        if time.monotonic() >= self._send_at:
            self._pause = min(2 * self._pause, RESEND_MOST)
            self._answer()

    def connected(self) -> None:
        self.publish(self._at.state(self.name), b'{"state": "ready"}', retain=True)

    def take(self, topic: str, payload: bytes) -> None:
        if topic == self._at.plan:
            self._script.lineage = Plan.unpack(payload).lineage
        elif topic != self._at.round:
            receipt = Receipt.unpack(payload)
            if self.name in receipt.boards:
                self.receipted.add(receipt.round)
        elif payload:
            announced = Round.unpack(payload)
            if is_invited(self.name, announced.round, announced.ticket_limit):
                before, self.round = self.round, announced.round
                self.heard_back += before is not None and before > announced.round
                if before != announced.round:
                    self._pause = RESEND
                    self._answer()

    def _answer(self) -> None:
        round_ = self.round
        if round_ is None or round_ in self.receipted or not self.is_connected:
            return
        self._send_at = time.monotonic() + self._pause
        self.sent += 1
        self.publish(self._at.up(self.name), self._script.update(self.name, round_).pack())


class Observer(Client):
    """Sees every version of the model that the broker passes on, put together from its chunks."""

    def __init__(self, topics: Topics, port: int, news: threading.Condition) -> None:
        super().__init__(port, topics.full("+"), news=news)
        self.versions: dict[int, NDArray[np.int16]] = {}
        self._chunks: dict[int, Chunk] = {}

    def take(self, _topic: str, payload: bytes) -> None:
        chunk = Chunk.unpack(payload)
        self._chunks[chunk.chunk] = chunk
        if len(self._chunks) < chunk.chunks:
            return
        if {part.version for part in self._chunks.values()} != {chunk.version}:
            return
        whole = b"".join(self._chunks[i].weights for i in range(chunk.chunks))
        self.versions[chunk.version] = np.frombuffer(whole, "<i2")


class Oracle:
    """Every version of a model in whose rounds all boards took part."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._model = GlobalModel(script.spec)
        self._versions = [self._model.published.copy()]

    def published(self, version: int) -> NDArray[np.int16]:
        """What must be published as this version; shape (parameters,)."""
        while len(self._versions) <= version:
            self._script.advance(self._model, self._script.boards)
            self._versions.append(self._model.published.copy())
        return self._versions[version]


class Fleet:
    """Boards, an observer and an aggregator on a broker.

    Args:
        folder: of the aggregator's files.
        port: where the broker listens.
        name: the fleet's.
        boards_port: where the boards connect to, if something stands before the broker.
        aggregator_port: where the aggregator connects to, likewise.
        repeats: whether boards send an update again until its receipt, as real ones do. Else they
            rely on the broker's confirmation alone.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        name: str = "faults",
        *,
        boards_port: int | None = None,
        aggregator_port: int | None = None,
        repeats: bool = True,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        spec_file = folder / "spec.toml"
        text = spec_text(
            fleet=name,
            count=100_000,
            cohort=len(BOARDS),
            deadline=600,
            step_max=1.0,
            step_min=1.0,
            percent_down=100,
        )
        spec_file.write_text(text)
        self.script = Script(Spec.from_toml(text), BOARDS)
        self.topics = Topics(name)
        self._oracle = Oracle(self.script)
        self.aggregator = Aggregator(folder, spec_file, aggregator_port or port)
        self.news = threading.Condition()
        self.boards = [
            Board(board, self.script, boards_port or port, self.news) for board in BOARDS
        ]
        self._port = port
        self._observer = Observer(self.topics, port, self.news)
        self._stopped = threading.Event()
        self._repeats = repeats
        self._clock = threading.Thread(target=self._resend)

    @contextmanager
    def running(self) -> Iterator[Self]:
        """With its boards at work; at the end all of it is stopped."""
        self._clock.start()
        try:
            for client in (self._observer, *self.boards):
                client.start()
            yield self
        finally:
            self._stopped.set()
            self._clock.join()
            for client in (self._observer, *self.boards):
                client.stop()
            self.aggregator.stop()

    def _resend(self) -> None:
        while self._repeats and not self._stopped.wait(TICK):
            for board in self.boards:
                board.repeat()

    @property
    def version(self) -> int:
        """The newest that was seen."""
        return max(self._observer.versions, default=0)

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        ends = time.monotonic() + PATIENCE
        with self.news:
            while not condition():
                left = ends - time.monotonic()
                assert left > 0, f"waited for {what}; aggregator:\n{self.aggregator.said[-3000:]}"
                self.news.wait(left)

    def idle(self, seconds: float) -> None:
        """Let the fleet work: the moment of a random fault is no event that could be awaited."""
        self._stopped.wait(seconds)

    def wait_for_rounds(self, more: int) -> None:
        """Wait until so many more versions are published."""
        wanted = self.version + more
        self.wait(f"version {wanted}", lambda: self.version >= wanted)

    def settle(self, faults: int, book: Callable[[Account], None]) -> None:
        """Close three more rounds, stop the aggregator in order, and hold the model to the oracle.

        Every version that was seen must be the oracle's, and so must the one that lies retained on
        the broker.

        Args:
            faults: how many there were.
            book: takes the account, and raises where updates were lost or doubled.
        """
        self.wait_for_rounds(3)
        assert self.aggregator.kill(signal.SIGTERM) == 0, self.aggregator.said[-3000:]
        with Observer(self.topics, self._port, self.news) as late:
            self.wait("the retained model", lambda: bool(late.versions))
        ((last, published),) = late.versions.items()
        account = self._count(last, published)
        account.faults = faults
        book(account)
        for version, seen in {**self._observer.versions, last: published}.items():
            expected = self._oracle.published(version)
            assert seen.tobytes() == expected.tobytes(), f"version {version} is not the oracle's"

    def _count(self, version: int, published: NDArray[np.int16]) -> Account:
        assert version <= MOST_ROUNDS
        moved = published[: len(BOARDS)].astype(int) - self._oracle.published(0)[: len(BOARDS)]
        counted = np.rint(moved / MARK).astype(int).tolist()
        return Account(
            sent=sum(board.sent for board in self.boards),
            acknowledged=sum(len(board.receipted) for board in self.boards),
            lost=sum(max(0, version - times) for times in counted),
            doubled=sum(max(0, times - version) for times in counted),
        )
