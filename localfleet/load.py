"""Many boards without training: what a fleet's size asks of a broker and its aggregator.

Each board connects, says that it is ready, hears of a round, sends an update and waits for its
receipt; without one it sends again, as boards do. The updates are real ones, with random changes
in sparse blocks as the plan wants them. All packets are made before the fleet connects, so that one
core can play thousands of boards; only a round's number is written in.
"""

import asyncio
import contextlib
import json
import random
import resource
import time
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

from localfleet.crowd import KEEPALIVE, MOST_BOARDS, Crowd
from localfleet.errors import LoadError
from protocol import mqtt, sparse
from protocol.cohort import is_invited
from protocol.errors import MessageError, PacketError
from protocol.messages import Plan, Round, Update
from protocol.spec.layers import LayerShape
from protocol.topics import Topics, shard_of
from runtime.settings import Address

CONNECT_SECONDS: Final = 10.0
"""For one attempt."""
RETRY_SECONDS: Final = 0.5
"""A board that could not connect waits a random time up to this, then up to twice as long, ..."""
RETRY_MOST: Final = 60.0
SILENCE: Final = 60.0
"""Seconds without any news after which the load gives up."""
SPARE_FILES: Final = 64
"""Open files that are no connections."""


@dataclass
class Load:
    """What became of it; ``--json`` prints these names and ``per_second``."""

    boards: int
    connections: int
    rounds: int = 0
    """Rounds that are over."""
    sent: int = 0
    """Updates, each once a round: without those that were sent again."""
    acknowledged: int = 0
    """PUBACKs of updates: the broker has them."""
    receipted: int = 0
    """Updates that the aggregator says are journaled."""
    resent: int = 0
    reconnected: int = 0
    """Connections that came back."""
    seconds: float = 0.0
    """From the first update to the end of the last round."""

    @property
    def per_second(self) -> float:
        """Receipts a second."""
        return self.receipted / self.seconds if self.seconds else 0.0

    def to_json(self) -> str:
        """For scripts."""
        return json.dumps(asdict(self) | {"per_second": round(self.per_second, 1)})


def run(  # noqa: PLR0913 - what a load is made of
    broker: Address,
    fleet: str,
    boards: int,
    rounds: int,
    *,
    connections: int | None = None,
    reconnect: bool = False,
) -> Load:
    """Play boards of a fleet until so many rounds are over.

    Args:
        broker: of the fleet, whose aggregator is running.
        fleet: its name.
        boards: how many.
        rounds: how many to take part in.
        connections: how many the boards share; one each if None.
        reconnect: in each round, once the broker has all updates, cut all connections at once.

    Raises:
        LoadError: the broker refuses, nothing comes from the fleet, or this process may not open
            so many files.
    """
    connections = min(connections or boards, boards)
    if boards > connections * MOST_BOARDS:
        raise LoadError(
            f"{boards:,} boards on {connections} connections: one carries at most {MOST_BOARDS:,}; "
            f"give more --connections"
        )
    allow_files(connections + SPARE_FILES)
    return asyncio.run(_Fleet(Load(boards, connections), broker, fleet, rounds, reconnect).play())


def updates(plan: Plan, count: int) -> list[Update]:
    """An update for each board, for round 0: random changes, always the same.

    Boards of a shard stand side by side.
    """
    shapes = [LayerShape.of_plan(layer) for layer in plan.layers]
    tensors = [shape.parameters for shape in shapes if shape.parameters and not shape.local]
    made = []
    for board in sorted((f"load-{i:05d}" for i in range(count)), key=shard_of):
        rng = np.random.default_rng(list(board.encode()))
        changes = np.rint(rng.laplace(0, 100, sum(tensors))).astype(np.int64)
        largest = sparse.top_indices(changes, plan.top)
        block = sparse.encode(changes, largest, tensors, plan.value_bits)
        made.append(
            Update(
                lineage=plan.lineage,
                round=0,
                board=board,
                nonce=int(rng.integers(2**32)),
                support=plan.support,
                query=plan.query,
                support_loss=4096 * plan.support,
                query_loss=4096 * plan.query,
                query_correct=0,
                bytes_up=1000,
                bytes_down=5000,
                milliseconds=900,
                heap_free=80_000,
                changes=block,
            )
        )
    return made


class _Fleet:
    """All connections, and what is known of the round."""

    def __init__(
        self,
        load: Load,
        broker: Address,
        fleet: str,
        rounds: int,
        reconnect: bool,  # noqa: FBT001
    ) -> None:
        self.load = load
        self._broker = broker
        self._topics = Topics(fleet)
        self._rounds = rounds
        self._boards: list[str] = []
        self._reconnect = reconnect
        self._crowds: list[Crowd] = []
        self._away: set[Crowd] = set()  # Those without a subscribed connection.
        self._round: Round | None = None  # The newest.
        self._open: int | None = None  # Its number, until it is over or owes us nothing more.
        self._asked: frozenset[str] = frozenset()
        self._was_cut_in: int | None = None
        self._owed = 0  # Receipts that the open round still owes, ...
        self._unacknowledged = 0  # and PUBACKs that the broker does.
        self._began: float | None = None
        self._news = time.monotonic()
        self._done = asyncio.Event()
        self._silent: set[Crowd] = set()  # Those that owe us the answer to a ping, or their end.
        self._quiet = asyncio.Event()
        self._failure: LoadError | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def play(self) -> Load:
        plan = await self._plan()
        made = updates(plan, self.load.boards)
        self._boards = [update.board for update in made]
        for part in np.array_split(np.arange(len(made)), self.load.connections):
            self._crowds.append(Crowd(self, self._topics, [made[i] for i in part]))
        self._away.update(self._crowds)
        try:
            await self._until_done()
            await self._last_words()
        finally:
            self._done.set()
            for crowd in self._crowds:
                crowd.cut()
            await asyncio.sleep(0)  # In which they are closed.
        return self.load

    async def _until_done(self) -> None:
        self._news = pinged = time.monotonic()
        for crowd in self._crowds:
            self._connect(crowd)
        while not self._done.is_set():
            try:
                await asyncio.wait_for(self._done.wait(), 1)
            except TimeoutError:
                now = time.monotonic()
                if now - self._news > SILENCE:
                    raise LoadError(self._silence()) from None
                if now - pinged > KEEPALIVE / 2:
                    pinged = now
                    for crowd in self._crowds:
                        crowd.ping()
        if self._failure:
            raise self._failure

    def _silence(self) -> str:
        load = self.load
        return (
            f"nothing new for {SILENCE:.0f} s, after {load.rounds} rounds, {load.sent:,} updates "
            f"and {load.receipted:,} receipts: is the aggregator running, and is its round asking "
            f"for these {load.boards:,} boards (cohort, deadline)?"
        )

    async def _plan(self) -> Plan:
        """What a board must know, as a board gets it."""
        reader, writer = await self._dial()
        topic = self._topics.plan
        writer.write(mqtt.connect(f"tmf-{self._topics.fleet}-load", KEEPALIVE))
        writer.write(mqtt.subscribe(1, [topic]))
        buffer = bytearray()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                while data := await reader.read(2**16):
                    buffer += data
                    for packet in mqtt.split(buffer):
                        if packet.kind == mqtt.CONNACK and packet.body[-1]:
                            self.rejected(packet.body[-1])
                        elif packet.kind == mqtt.PUBLISH:
                            return Plan.unpack(mqtt.message_of(packet).payload)
        except TimeoutError:
            pass
        except (OSError, PacketError, MessageError) as error:
            raise LoadError(f"no plan of fleet {self._topics.fleet!r} ({error})") from error
        finally:
            writer.close()
        raise self._failure or LoadError(
            f"nothing on {topic} at {self._broker}: is an aggregator of this fleet running?"
        )

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            return await asyncio.open_connection(self._broker.host, self._broker.port)
        except OSError as error:
            raise LoadError(
                f"no broker at {self._broker} ({error}): is it running, and is --broker right?"
            ) from error

    # --- The connections

    def _connect(self, crowd: Crowd) -> None:
        task = asyncio.get_running_loop().create_task(self._connected(crowd))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connected(self, crowd: Crowd) -> None:
        loop = asyncio.get_running_loop()
        wait = RETRY_SECONDS
        while not self._done.is_set():
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await loop.create_connection(lambda: crowd, *self._broker)
            except (OSError, TimeoutError):
                await asyncio.sleep(random.uniform(0, wait))
                wait = min(2 * wait, RETRY_MOST)
            else:
                return

    async def _last_words(self) -> None:
        """Hear what is under way, then leave: the first board to hear of the end must not cut it.

        Neither is waited for long.
        """
        for last_word in (Crowd.ping, Crowd.leave):
            self._silent = set(self._crowds) - self._away
            self._quiet.clear()
            for crowd in self._silent:
                last_word(crowd)
            if self._silent:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._quiet.wait(), CONNECT_SECONDS)

    # --- What the connections tell

    def rejected(self, code: int) -> None:
        self._failure = LoadError(
            f"the broker at {self._broker} refuses a connection (code {code} of MQTT 3.1.1)"
        )
        self._done.set()

    def there(self, crowd: Crowd) -> None:
        self._news = time.monotonic()
        self._away.discard(crowd)
        self._finish()

    def answers(self, crowd: Crowd) -> None:
        self._silent.discard(crowd)
        if not self._silent:
            self._quiet.set()

    def lost(self, crowd: Crowd) -> None:
        self._away.add(crowd)
        self.answers(crowd)
        if not self._done.is_set():
            self.load.reconnected += 1
            self._connect(crowd)

    def invites(self, announced: Round) -> frozenset[str]:
        before = self._round
        if before is None or announced.round > before.round:
            self._open = announced.round
            self._owed = self._unacknowledged = 0
            self._asked = frozenset()
        elif announced.round < before.round:
            return frozenset()
        if announced != before:
            rule = (announced.round, announced.ticket_limit, announced.chosen)
            invited = {board for board in self._boards if is_invited(board, *rule)}
            self._owed += len(invited - self._asked)
            self._unacknowledged += len(invited - self._asked)
            self._asked = frozenset(invited)
            self._round = announced
        return self._asked

    def over(self, round_: int) -> None:
        if round_ == self._open:
            self._end()

    def sent(self, first: int, again: int) -> None:
        self._news = time.monotonic()
        if self._began is None:
            self._began = self._news
        self.load.sent += first
        self.load.resent += again

    def acknowledged(self, round_: int | None, count: int) -> None:
        self.load.acknowledged += count
        if round_ != self._open:
            return
        self._unacknowledged -= count
        if self._unacknowledged == 0:
            self._cut()

    def receipted(self, round_: int, count: int) -> None:
        self._news = time.monotonic()
        self.load.receipted += count
        if round_ == self._open:
            self._owed -= count
            if self._owed == 0:
                self._end()

    def _cut(self) -> None:
        """Cut all connections, once a round, if that is wanted."""
        if self._reconnect and self._was_cut_in != self._open:
            self._was_cut_in = self._open
            self._away.update(self._crowds)
            for crowd in self._crowds:
                crowd.cut()

    def _end(self) -> None:
        """The open round is over, or owes us nothing more."""
        if self._done.is_set():
            return  # Another round went by while the connections were closing.
        self._cut()  # Its end can be heard before the last PUBACKs.
        self._open = None
        self.load.rounds += 1
        if self._began is not None:
            self.load.seconds = time.monotonic() - self._began
        self._finish()

    def _finish(self) -> None:
        """The load is done when the last round is, and whoever was cut off is back."""
        if self.load.rounds >= self._rounds and not (self._reconnect and self._away):
            self._done.set()


def allow_files(count: int) -> None:
    """Let this process open so many files, sockets included."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if count > soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
        except ValueError as error:
            raise LoadError(
                f"{count:,} open files are needed, and the system allows {hard:,}: raise it with "
                f"ulimit -n, or let boards share --connections"
            ) from error
