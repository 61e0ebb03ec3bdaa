"""A fleet whose boards follow a script, so that it is known what must come of it, bit for bit.

What a board sends is a function of its name and the round. A round waits for every board, so each
version must hold one update of each. The oracle adds up the same updates. And every board moves one
parameter, its mark, that no other moves: the model itself tells how often each board was counted.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import paho.mqtt.client as mqtt
from numpy.typing import NDArray
from paho.mqtt.enums import CallbackAPIVersion

from protocol import sparse
from protocol.cohort import is_invited
from protocol.fixed import fnv1a
from protocol.messages import Chunk, Plan, Receipt, Round, Update
from protocol.spec.spec import Spec
from protocol.topics import Topics, shard_of
from rounds.model import GlobalModel
from rounds.optimizers import cosine_step
from rounds.sums import PartialSum
from tests.faults.ledger import Account
from tests.faults.service_process import PATIENCE, Aggregator

BOARDS: Final = tuple(f"board-{i}" for i in range(8))
TEXT: Final = f"""
[model]
inputs = 3
loss = "mse"
layers = [
    {{ outputs = 200, activation = "relu" }},
    {{ outputs = 2, activation = "none", local = true }},
]
[training]
support = 4
query = 5
rate_local = 0.1
rate_global = 0.1
percent = 10
[rounds]
count = 100000
cohort = {len(BOARDS)}
deadline = 600
step_max = 1.0
step_min = 1.0
percent_down = 100
"""
MARK: Final = 16
"""Weight units by which a round moves a board's mark; what is published is within 4 of the sum."""
MOST_ROUNDS: Final = 1500
"""Until a mark would reach the end of the weights' range."""
RESEND: Final = 0.2
"""Seconds after which an update without a receipt is sent again; they double each time ..."""
RESEND_MOST: Final = 3.2
"""... up to this. A board waits ten times as long."""
TICK: Final = 0.05


class Script:
    """What a fleet's boards send, and what must come of it.

    Args:
        fleet: its name; another fleet, another model.
    """

    def __init__(self, fleet: str) -> None:
        self.text = f'fleet = "{fleet}"\n{TEXT}'
        self.spec = Spec.from_toml(self.text)
        self.topics = Topics(fleet)
        self.lineage = self.spec.lineage
        """The plan's, once a board has heard it."""
        self._model = GlobalModel(self.spec)
        self._versions = [self._model.published.copy()]

    def update(self, board: str, round_: int) -> Update:
        """What a board sends in a round, always the same."""
        spec = self.spec
        rng = np.random.default_rng(fnv1a(f"{board}/{round_}"))
        changes = np.zeros(spec.global_count, np.int64)
        others = np.arange(len(BOARDS), spec.global_count)
        chosen = rng.choice(others, spec.plan.top - 1, replace=False)
        changes[chosen] = rng.integers(1, 300, len(chosen)) * rng.choice([-1, 1], len(chosen))
        changes[BOARDS.index(board)] = MARK * len(BOARDS)
        block = sparse.encode(changes, np.flatnonzero(changes), spec.tensors)
        return Update(self.lineage, round_, board, 1, 4, 5, 4096, 2048, 0, 100, 7, 3, 9, block)

    def published(self, version: int) -> NDArray[np.int16]:
        """The oracle: what must be published as this version; shape (parameters,)."""
        while len(self._versions) <= version:
            round_ = self._model.version
            total = PartialSum(self.spec.global_count)
            for board in BOARDS:
                message = self.update(board, round_)
                total.add(message, sparse.decode(message.changes, self.spec.tensors))
            self._model.advance(total.changes / total.weight, cosine_step(self.spec.rounds, round_))
            self._versions.append(self._model.published.copy())
        return self._versions[version]


# --- Those who speak and listen


class Board:
    """Sends its update until its receipt, as the client does; its loop is paho's own thread.

    It has no last will: a board that loses its connection must still be waited for.
    """

    def __init__(self, name: str, script: Script, port: int, news: threading.Condition) -> None:
        self.name = name
        self._script = script
        self._topics = script.topics
        self.round: int | None = None
        """The open round, where it asks this board."""
        self.heard_back = 0
        """How often it heard of a round that was over already."""
        self.sent = 0
        self.receipted: set[int] = set()
        """Rounds in which the aggregator has this board's update."""
        self._news = news
        self._pause = RESEND
        self._send_at = 0.0
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, f"{script.spec.fleet}-{name}")
        self._client.reconnect_delay_set(0.05, 0.2)  # type: ignore[arg-type]  # Floats do.
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.connect_async("127.0.0.1", port)

    def start(self) -> None:
        self._client.loop_start()

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def repeat(self) -> None:
        """Send the open round's update again, if it is time to."""
        if time.monotonic() >= self._send_at:
            self._pause = min(2 * self._pause, RESEND_MOST)
            self._send()

    def _send(self) -> None:
        round_ = self.round
        if round_ is None or round_ in self.receipted or not self._client.is_connected():
            return
        self._send_at = time.monotonic() + self._pause
        self.sent += 1
        payload = self._script.update(self.name, round_).pack()
        self._client.publish(self._topics.up(self.name), payload, 1)

    def _on_connect(
        self, client: mqtt.Client, _data: object, _flags: object, _reason: object, _more: object
    ) -> None:
        receipts = self._topics.receipt(shard_of(self.name))
        topics = [self._topics.plan, self._topics.round, receipts]
        client.subscribe([(topic, 1) for topic in topics])
        client.publish(self._topics.state(self.name), b'{"state": "ready"}', 1, retain=True)

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        payload = bytes(message.payload)
        if message.topic == self._topics.plan:
            self._script.lineage = Plan.unpack(payload).lineage
        elif message.topic != self._topics.round:
            receipt = Receipt.unpack(payload)
            if self.name in receipt.boards:
                with self._news:
                    self.receipted.add(receipt.round)
                    self._news.notify_all()
        elif payload:
            announced = Round.unpack(payload)
            if is_invited(self.name, announced.round, announced.ticket_limit):
                before, self.round = self.round, announced.round
                self.heard_back += before is not None and before > announced.round
                if before != announced.round:
                    self._pause = RESEND
                    self._send()


class Observer:
    """Sees every version of the model that the broker passes on, put together from its chunks."""

    def __init__(self, topics: Topics, port: int, news: threading.Condition) -> None:
        self.versions: dict[int, NDArray[np.int16]] = {}
        self._chunks: dict[int, Chunk] = {}
        self._news = news
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.reconnect_delay_set(0.05, 0.2)  # type: ignore[arg-type]
        self._client.on_connect = lambda client, *_: client.subscribe(topics.full("+"), 1)
        self._client.on_message = self._on_message
        self._client.connect_async("127.0.0.1", port)

    def __enter__(self) -> Self:
        self._client.loop_start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        chunk = Chunk.unpack(bytes(message.payload))
        self._chunks[chunk.chunk] = chunk
        if len(self._chunks) < chunk.chunks:
            return
        if {part.version for part in self._chunks.values()} != {chunk.version}:
            return
        whole = b"".join(self._chunks[i].weights for i in range(chunk.chunks))
        with self._news:
            self.versions[chunk.version] = np.frombuffer(whole, "<i2")
            self._news.notify_all()


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
        self.script = Script(name)
        spec_file.write_text(self.script.text)
        self.aggregator = Aggregator(folder, spec_file, aggregator_port or port)
        self.news = threading.Condition()
        self.boards = [
            Board(board, self.script, boards_port or port, self.news) for board in BOARDS
        ]
        self._port = port
        self._observer = Observer(self.script.topics, port, self.news)
        self._stopped = threading.Event()
        self._repeats = repeats
        self._clock = threading.Thread(target=self._resend)

    @contextmanager
    def running(self) -> Iterator[Self]:
        """With its boards at work; at the end all of it is stopped."""
        self._clock.start()
        try:
            with self._observer:
                for board in self.boards:
                    board.start()
                yield self
        finally:
            self._stopped.set()
            self._clock.join()
            for board in self.boards:
                board.stop()
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
        with Observer(self.script.topics, self._port, self.news) as late:
            self.wait("the retained model", lambda: bool(late.versions))
        ((last, published),) = late.versions.items()
        account = self._count(last, published)
        account.faults = faults
        book(account)
        for version, seen in {**self._observer.versions, last: published}.items():
            expected = self.script.published(version)
            assert seen.tobytes() == expected.tobytes(), f"version {version} is not the oracle's"

    def _count(self, version: int, published: NDArray[np.int16]) -> Account:
        assert version <= MOST_ROUNDS
        moved = published[: len(BOARDS)].astype(int) - self.script.published(0)[: len(BOARDS)]
        counted = np.rint(moved / MARK).astype(int).tolist()
        return Account(
            sent=sum(board.sent for board in self.boards),
            acknowledged=sum(len(board.receipted) for board in self.boards),
            lost=sum(max(0, version - times) for times in counted),
            doubled=sum(max(0, times - version) for times in counted),
        )
