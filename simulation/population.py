"""The boards' side of a simulation: who is awake, at work, or gone, and what each board has."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import numpy as np

from protocol.messages import U32, Update
from simulation.boards import Order

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from protocol.spec.spec import Spec
    from rounds.core import RoundCore
    from rounds.learning import Version
    from rounds.model import GlobalModel
    from simulation.boards import Crew, LocalUpdate
    from simulation.clock import Clock
    from simulation.conditions import Conditions
    from simulation.server import OpenRound
    from simulation.traffic import Traffic

NO_VERSION: Final = -1
NO_ROUND: Final = -1


@dataclass(eq=False)
class _Job:
    """A board at work."""

    board: int
    round: int
    update: bytes = b""
    """What it will send; nothing where it fails before."""
    residual: NDArray[np.int16] | None = None


class Population:
    """A fleet's boards.

    Args:
        spec: the fleet's.
        names: of the boards, by number.
        crew: trains them.
        conditions: what befalls them.
        seed: of what befalls them.
        clock: of the run.
        core: told who is awake, and asked whom a round invites.
        traffic: told what boards send and receive.
    """

    def __init__(  # noqa: PLR0913 - the parts of a run, by keyword
        self,
        *,
        spec: Spec,
        names: Sequence[str],
        crew: Crew,
        conditions: Conditions,
        seed: int,
        clock: Clock,
        core: RoundCore,
        traffic: Traffic,
    ) -> None:
        self._spec = spec
        self._names = names
        self._numbers = {name: board for board, name in enumerate(names)}
        self._crew = crew
        self._conditions = conditions
        self._seed = seed
        self._clock = clock
        self._core = core
        self._traffic = traffic
        self._lineage, self._keeps = spec.lineage, bool(spec.plan.feedback)
        self._heap_free = min(spec.heap - spec.heap_needed, U32)
        self._takes = [conditions.takes(seed, name) for name in names]
        self._sent: list[bytes] = []  # Updates that the aggregator has not taken in yet.
        self._jobs: dict[int, _Job] = {}
        self._seeking: set[int] = set()  # Boards that may find work in the open round.
        self._failed: set[int] = set()
        self._tired: set[int] = set()  # Boards that sleep as soon as their work is done.
        self._version = np.full(len(names), NO_VERSION)
        self._chunks: dict[int, list[int]] = {}  # Sizes of a version's chunks, to fetch.
        self._learned_in = np.full(len(names), NO_ROUND)  # The round that a board last began.
        self._residuals: dict[int, NDArray[np.int16]] = {}

    def take_sent(self) -> list[bytes]:
        """The updates that boards have sent since the last call."""
        sent, self._sent = self._sent, []
        return sent

    # --- Sleep -----------------------------------------------------------------------------------

    def set_out(self) -> None:
        """The run begins: some boards are awake, others asleep."""
        sleep = self._conditions.sleep
        for board, name in enumerate(self._names):
            awake, seconds = sleep.until(name, self._seed)
            if awake:
                self._wake(board)
            if sleep.awake < 1:
                self._clock.after(seconds, partial(self._turn_over if awake else self._rise, board))

    def put_to_sleep(self) -> None:
        """Whoever is tired and has no work sleeps, once its update is journaled."""
        for board in sorted(self._tired - self._jobs.keys()):
            self._tired.discard(board)
            self._lie_down(board)

    def _wake(self, board: int) -> None:
        self._traffic.connect(board)
        self._core.board_awake(self._names[board])
        self._seeking.add(board)

    def _rise(self, board: int) -> None:
        """A board's day begins."""
        sleep = self._conditions.sleep
        self._clock.after(sleep.awake * sleep.period, partial(self._turn_over, board))
        if board in self._tired:
            self._tired.discard(board)  # It has not come to sleep.
        else:
            self._wake(board)

    def _turn_over(self, board: int) -> None:
        """A board's day ends; it goes to sleep, but not out of a round."""
        sleep = self._conditions.sleep
        self._clock.after((1 - sleep.awake) * sleep.period, partial(self._rise, board))
        self._tired.add(board)

    def _lie_down(self, board: int) -> None:
        self._traffic.leave(board)
        self._seeking.discard(board)
        self._core.board_lost(self._names[board])

    # --- What boards hear ------------------------------------------------------------------------

    def hear_of(self, round_: int, invited: Iterable[str]) -> None:
        """A round is announced: boards give up what no round takes any more.

        Those that have failed are back.
        """
        oldest = round_ - self._spec.rounds.oldest
        for job in [job for job in self._jobs.values() if job.round < oldest]:
            if job.board not in self._failed:
                self._free(job.board)
        for board in sorted(self._failed):
            self._version[board] = NO_VERSION
            self._learned_in[board] = NO_ROUND
            self._residuals.pop(board, None)
            self._wake(board)
            self._free(board)
        self._failed.clear()
        self._seeking.update(self._numbers[name] for name in invited)

    def follow(self, version: Version) -> None:
        """All who are there and had the version before get this one by its delta."""
        if version.delta:
            follows = self._traffic.connected & (self._version == version.model.version - 1)
            self._version[follows] = version.model.version

    # --- Work ------------------------------------------------------------------------------------

    def begin(self, opened: OpenRound | None) -> None:
        """Set boards to work that are free and invited by the open round.

        Raises:
            SimulationError: a process of the crew has died.
        """
        seeking, self._seeking = self._seeking, set()
        cohort = self._core.cohort
        if opened is None or cohort is None:
            return
        round_ = opened.round
        batches: dict[bool, list[_Job]] = {}
        for board in sorted(seeking - self._jobs.keys()):
            name = self._names[board]
            if self._learned_in[board] == round_ or not cohort.invites(name, round_):
                continue
            job = self._jobs[board] = _Job(board, round_)
            self._learned_in[board] = round_
            is_canary = opened.canary_group.has(name)
            self._fetch(board, opened.canary if is_canary else opened.stable)
            if self._conditions.fails(self._seed, name, round_, opened.attempt):
                self._failed.add(board)
                self._traffic.fail(board)
            else:
                batches.setdefault(is_canary, []).append(job)
                self._clock.after(self._takes[board], partial(self._send, job))
        orders = [
            self._order(jobs, opened.canary if is_canary else opened.stable)
            for is_canary, jobs in batches.items()
        ]
        for jobs, learned in zip(batches.values(), self._crew.train(orders), strict=True):
            for job, update in zip(jobs, learned, strict=True):
                job.residual = update.residual
                job.update = self._pack(job, update)

    def _fetch(self, board: int, model: GlobalModel) -> None:
        """Get the version to work on, where a board has another one."""
        if self._version[board] != model.version:
            if model.version not in self._chunks:
                self._chunks = {model.version: self._traffic.sizes(model.chunks())}
            self._traffic.fetch(board, self._chunks[model.version])
            self._version[board] = model.version

    def _order(self, jobs: list[_Job], model: GlobalModel) -> Order:
        residuals = None
        if self._keeps:
            nothing = np.zeros(self._spec.global_count, np.int16)
            residuals = np.array([self._residuals.get(job.board, nothing) for job in jobs])
        return Order(
            round=jobs[0].round,
            published=model.published.copy(),
            boards=tuple(job.board for job in jobs),
            residuals=residuals,
        )

    def _pack(self, job: _Job, learned: LocalUpdate) -> bytes:
        """A board's update, as it sends it."""
        training, name = self._spec.training, self._names[job.board]
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
            bytes_up=int(self._traffic.up[job.board]) & U32,
            bytes_down=int(self._traffic.down[job.board]) & U32,
            milliseconds=min(int(self._takes[job.board] * 1000), U32),
            heap_free=self._heap_free,
            changes=learned.block,
        ).pack()

    def _send(self, job: _Job) -> None:
        board = job.board
        if self._jobs.get(board) is not job:
            return  # It gave up: the round was over.
        self._sent.append(job.update)
        if job.residual is not None:
            self._residuals[board] = job.residual
        self._traffic.update(board, job.update)
        self._free(board)

    def _free(self, board: int) -> None:
        del self._jobs[board]
        self._seeking.add(board)
