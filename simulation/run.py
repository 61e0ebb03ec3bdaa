"""A fleet's rounds in virtual time: the aggregator's own decisions, carried out by many boards.

The round core, what it learns, the messages and the sparse blocks are those of the service. What
lies between is replaced by a queue of events in virtual time: a board begins, and is done after as
long as it takes; it falls silent, goes to sleep, wakes up. Boards that begin at the same moment
learn in one batch. A message takes no time and is never lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

import numpy as np

from protocol import sparse
from protocol.errors import SparseError
from protocol.messages import U32, Round, Update
from rounds.core import Announce, Close, Decision, RoundCore, State, UpdateKey, Withdraw
from rounds.learning import NO_CANARY, Basis, CanaryGroup, Learning, Version
from rounds.model import GlobalModel
from rounds.sums import PartialSum
from simulation.boards import LocalUpdate, Order
from simulation.errors import SimulationError
from simulation.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from protocol.spec.spec import Spec
    from simulation.boards import Crew
    from simulation.conditions import Conditions

NO_VERSION: Final = -1
DIGEST_BYTES: Final = 16


def board_names(boards: int) -> list[str]:
    """Names of so many boards, all of one length."""
    return [f"board-{number:0{len(str(boards - 1))}}" for number in range(boards)]


@dataclass(frozen=True)
class Record:
    """A closed round. Losses were measured before what they are of was learned from."""

    round: int
    version: int
    """The newest, which came of the round; perhaps the canary."""
    loss: float
    """Of the query samples: mean squared error, or cross-entropy in nats."""
    support_loss: float
    accuracy: float | None
    """Share of the query samples whose class was told; of classes."""
    accepted: int
    """Updates in the version."""
    late: int
    """Those among them that were for an earlier round."""
    invited: int
    canary: str | None
    """What the round said of the canary version."""
    note: str
    """What a person should know of how the updates were combined, if anything."""
    bytes_up: int
    """That all boards sent since the round before closed; in whole MQTT packets."""
    bytes_down: int
    seconds: float
    """Virtual, since the run began."""


@dataclass(eq=False)
class _Job:
    """A board at work."""

    board: int
    round: int
    update: bytes = b""
    """What it will send; nothing where it fails before."""
    residual: NDArray[np.int16] | None = None


@dataclass
class _Asked:
    """The open round, as boards hear of it."""

    round: int
    attempt: int
    canary: CanaryGroup


class Run:
    """One run of a fleet.

    Args:
        spec: the fleet's.
        names: of the boards, by number.
        crew: trains them.
        conditions: what befalls them.
        seed: of what befalls them.
    """

    def __init__(
        self, spec: Spec, names: Sequence[str], crew: Crew, conditions: Conditions, seed: int = 0
    ) -> None:
        self.spec = spec
        self.core = RoundCore(spec.rounds)
        self.learning = Learning(spec, Version(GlobalModel(spec)))
        self.traffic = Traffic(spec, names)
        self.now = 0.0
        """Virtual seconds since the run began."""
        self._names = names
        self._numbers = {name: board for board, name in enumerate(names)}
        self._crew = crew
        self._conditions = conditions
        self._seed = seed
        self._lineage, self._keeps = spec.lineage, bool(spec.plan.feedback)
        needed = spec.heap_needed
        self._heap_free = min(spec.heap - needed, U32)
        self._takes = [conditions.takes(seed, name) for name in names]
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._queued = 0
        # What boards are at and what they know.
        self._jobs: dict[int, _Job] = {}
        self._seeking: set[int] = set()  # Boards that may find work in the open round.
        self._failed: set[int] = set()
        self._tired: set[int] = set()  # Boards that sleep as soon as their work is done.
        self._version = np.full(len(names), NO_VERSION)
        self._chunks: dict[int, list[int]] = {}  # Sizes of a version's chunks, to fetch.
        self._learned_in = np.full(len(names), -1)  # The round that a board last began.
        self._residuals: dict[int, NDArray[np.int16]] = {}
        # What the aggregator is at.
        self._open: _Asked | None = None
        self._canaries: dict[int, CanaryGroup] = {}
        self._arrived: list[bytes] = []
        self._sums: dict[Basis, PartialSum] = {}
        self._summed: list[tuple[Basis, str, sparse.Sparse]] = []  # One by one, for some rules.
        self._bytes = (0, 0)

    @property
    def model(self) -> GlobalModel:
        """The version that every board gets."""
        return self.learning.stable.model

    def rounds(self) -> Iterator[Record]:
        """Play the spec's rounds, each of which is told when it closes; once.

        Raises:
            SimulationError: a process of the crew has died.
        """
        self._set_out()
        while True:
            self._take_in()
            self._put_to_sleep()
            yield from self._carry_out(self.core.tick(self.now))
            if self.core.state is State.DONE:
                return
            if self.core.state is State.GATHERING and self.core.awake:
                self._after(self.spec.rounds.deadline, _look)
            self._begin()
            self._pass_time()

    def _carry_out(self, decisions: Sequence[Decision]) -> Iterator[Record]:
        for decision in decisions:
            match decision:
                case Announce():
                    self._announce(decision)
                case Close():
                    yield self._close(decision)
                case Withdraw():
                    self._open = None

    # --- Time ------------------------------------------------------------------------------------

    def _after(self, seconds: float, event: Callable[[], None]) -> None:
        heappush(self._queue, (self.now + seconds, self._queued, event))
        self._queued += 1

    def _pass_time(self) -> None:
        """Go to the next moment at which something happens, and let all of it happen."""
        self.now = self._queue[0][0]
        while self._queue and self._queue[0][0] <= self.now:
            heappop(self._queue)[2]()

    # --- Boards ----------------------------------------------------------------------------------

    def _set_out(self) -> None:
        sleep = self._conditions.sleep
        for board, name in enumerate(self._names):
            awake, seconds = sleep.until(name, self._seed)
            if awake:
                self._wake(board)
            if sleep.awake < 1:
                self._after(seconds, partial(self._turn_over if awake else self._rise, board))

    def _wake(self, board: int) -> None:
        self.traffic.connect(board)
        self.core.board_awake(self._names[board])
        self._seeking.add(board)

    def _rise(self, board: int) -> None:
        """A board's day begins."""
        sleep = self._conditions.sleep
        self._after(sleep.awake * sleep.period, partial(self._turn_over, board))
        if board in self._tired:
            self._tired.discard(board)  # It has not come to sleep.
        else:
            self._wake(board)

    def _turn_over(self, board: int) -> None:
        """A board's day ends; it goes to sleep, but not out of a round."""
        sleep = self._conditions.sleep
        self._after((1 - sleep.awake) * sleep.period, partial(self._rise, board))
        self._tired.add(board)

    def _put_to_sleep(self) -> None:
        """Whoever is tired and has no work sleeps, once its update is journaled."""
        for board in sorted(self._tired - self._jobs.keys()):
            self._tired.discard(board)
            self._lie_down(board)

    def _lie_down(self, board: int) -> None:
        self.traffic.leave(board)
        self._seeking.discard(board)
        self.core.board_lost(self._names[board])

    def _begin(self) -> None:
        """Set boards to work that are free and asked by the open round."""
        invited, self._seeking = self._seeking, set()
        cohort = self.core.cohort
        if self._open is None or cohort is None:
            return
        round_, attempt, canary = self._open.round, self._open.attempt, self._open.canary
        batches: dict[bool, list[_Job]] = {}
        for board in sorted(invited - self._jobs.keys()):
            name = self._names[board]
            if self._learned_in[board] == round_ or not cohort.invites(name, round_):
                continue
            job = self._jobs[board] = _Job(board, round_)
            self._learned_in[board] = round_
            self._fetch(board, is_canary=canary.has(name))
            if self._conditions.fails(self._seed, name, round_, attempt):
                self._failed.add(board)
                self.traffic.fail(board)
            else:
                batches.setdefault(canary.has(name), []).append(job)
                self._after(self._takes[board], partial(self._send, job))
        orders = [self._order(jobs, is_canary=is_canary) for is_canary, jobs in batches.items()]
        for jobs, learned in zip(batches.values(), self._crew.train(orders), strict=True):
            for job, what in zip(jobs, learned, strict=True):
                job.residual = what.residual
                job.update = self._pack(job, what)

    def _fetch(self, board: int, *, is_canary: bool) -> None:
        """Get the version to work on, where a board has another one."""
        model = self._model(is_canary=is_canary)
        if self._version[board] != model.version:
            if model.version not in self._chunks:
                self._chunks = {model.version: self.traffic.sizes(model.chunks())}
            self.traffic.fetch(board, self._chunks[model.version])
            self._version[board] = model.version

    def _model(self, *, is_canary: bool) -> GlobalModel:
        canary = self.learning.canary if is_canary else None
        return (canary or self.learning.stable).model

    def _order(self, jobs: list[_Job], *, is_canary: bool) -> Order:
        residuals = None
        if self._keeps:
            nothing = np.zeros(self.spec.global_count, np.int16)
            residuals = np.array([self._residuals.get(job.board, nothing) for job in jobs])
        boards = tuple(job.board for job in jobs)
        published = self._model(is_canary=is_canary).published.copy()
        return Order(jobs[0].round, published, boards, residuals)

    def _pack(self, job: _Job, learned: LocalUpdate) -> bytes:
        """A board's update, as it sends it."""
        training, name = self.spec.training, self._names[job.board]
        nonce = blake2b(f"{self._seed}/{name}/{job.round}".encode(), digest_size=4).digest()
        return Update(
            lineage=self._lineage,
            round=job.round,
            board=name,
            nonce=int.from_bytes(nonce, "big"),
            support=training.support,
            query=training.query,
            support_loss=learned.support_loss,
            query_loss=learned.query_loss,
            query_correct=learned.query_correct,
            bytes_up=int(self.traffic.up[job.board]) & U32,
            bytes_down=int(self.traffic.down[job.board]) & U32,
            milliseconds=min(int(self._takes[job.board] * 1000), U32),
            heap_free=self._heap_free,
            changes=learned.block,
        ).pack()

    def _send(self, job: _Job) -> None:
        board = job.board
        if self._jobs.get(board) is not job:
            return  # It gave up: the round was over.
        self._arrived.append(job.update)
        if job.residual is not None:
            self._residuals[board] = job.residual
        self.traffic.update(board, job.update)
        self._free(board)

    def _free(self, board: int) -> None:
        del self._jobs[board]
        self._seeking.add(board)

    def _hear_of(self, round_: int) -> None:
        """Boards give up what no round takes any more; those that failed are back."""
        oldest = round_ - self.spec.rounds.oldest
        for job in [job for job in self._jobs.values() if job.round < oldest]:
            if job.board not in self._failed:
                self._free(job.board)
        for board in sorted(self._failed):
            self._version[board] = NO_VERSION
            self._learned_in[board] = -1
            self._residuals.pop(board, None)
            self._wake(board)
            self._free(board)
        self._failed.clear()

    # --- The aggregator --------------------------------------------------------------------------

    def _take_in(self) -> None:
        """Sum the updates that have arrived, as one group."""
        digests: dict[UpdateKey, bytes] = {}
        updates = [Update.unpack(payload) for payload in self._arrived]
        blocks = sparse.decode_all([update.changes for update in updates], self.spec.tensors)
        for update, block, payload in zip(updates, blocks, self._arrived, strict=True):
            counted = UpdateKey(update.round, update.board)
            digest = blake2b(payload, digest_size=DIGEST_BYTES).digest()
            refusal = self.core.verdict(*counted, digest, digests.get(counted))
            if refusal is not None or isinstance(block, SparseError):
                raise SimulationError(  # No board here sends what nobody wants.
                    f"round {update.round}: the update of {update.board} is refused "
                    f"({refusal or block}): this is a fault of the simulation, please report it"
                )
            digests[counted] = digest
            is_canary = self._canaries.get(update.round, NO_CANARY).has(update.board)
            basis = Basis(self.core.round - update.round, is_canary)
            if basis not in self._sums:
                clip = self.spec.rounds.clip
                self._sums[basis] = PartialSum(self.spec.global_count, clip=clip)
            self._sums[basis].add(update, block)
            self._summed.append((basis, update.board, block))
        self._arrived.clear()
        if digests:
            self.core.journaled(digests)
            for round_ in {round_ for round_, _ in digests}:
                boards = [board for number, board in digests if number == round_]
                self.traffic.receipts(round_, boards)

    def _announce(self, announced: Announce) -> None:
        canary, rules = self.learning.canary_group(), self.spec.rounds
        message = Round(
            lineage=self._lineage,
            round=announced.round,
            version=self.model.version,
            ticket_limit=announced.ticket_limit,
            deadline=int(rules.deadline * 1000),
            chosen=announced.chosen,
            max_age=rules.oldest,
            canary_version=canary.version,
            canary_share=canary.share,
        )
        self._canaries[announced.round] = canary
        self._open = _Asked(announced.round, announced.empty_deadlines, canary)
        self.traffic.announce(message.pack())
        self._hear_of(announced.round)
        self._seeking.update(self._numbers[name] for name in announced.invited)
        self._after(rules.deadline, _look)

    def _close(self, closed: Close) -> Record:
        sums, self._sums = self._sums, {}
        before = self.model.version
        came = self.learning.close(sums, self._summed, closed.round)
        self._summed = []
        oldest = self.core.round - self.spec.rounds.oldest
        self._canaries = {n: canary for n, canary in self._canaries.items() if n >= oldest}
        if self.model.version != before:
            self._publish()
        sent = int(self.traffic.up.sum()), int(self.traffic.down.sum())
        (up, down), self._bytes = self._bytes, sent
        total = PartialSum(self.spec.global_count)
        for part in sums.values():
            total.merge(part)
        is_classes = self.spec.is_classifier
        support_loss, loss = total.losses(1 if is_classes else self.spec.layers[-1].outputs)
        return Record(
            round=closed.round,
            version=self.learning.newest.model.version,
            loss=loss,
            support_loss=support_loss,
            accuracy=total.query_correct / total.query if is_classes else None,
            accepted=total.weight,
            late=sum(sums[basis].weight for basis in sums if basis.age),
            invited=closed.invited,
            canary=came.verdict.value if came.verdict else None,
            note=came.combined.note,
            bytes_up=sent[0] - up,
            bytes_down=sent[1] - down,
            seconds=self.now,
        )

    def _publish(self) -> None:
        """All who are there and had the version before follow."""
        version = self.learning.stable
        self.traffic.model(version.delta)
        if version.delta:
            follows = self.traffic.connected & (self._version == version.model.version - 1)
            self._version[follows] = version.model.version


def _look() -> None:
    """Nothing happens, but the round core is asked what to do: a deadline may have passed."""
