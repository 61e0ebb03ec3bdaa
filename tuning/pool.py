"""The processes in which experiments and searches run: each does one job at a time.

A job is done by a generator function of a module, which another process can find. Who waits hears
each value that it yields and says whether it goes on, so a run that does badly can be given up.
"""

from __future__ import annotations

import time
import traceback
from contextlib import suppress
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, Self, TypeVar

from simulation.processes import leave_interrupts, spawning
from tuning.errors import ProcessDiedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from multiprocessing.connection import Connection

    J = TypeVar("J")
    V = TypeVar("V")


class Pool:
    """Starts processes when there are jobs for them, and ends them when it is left.

    Args:
        processes: at work at a time.
    """

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._idle: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        while self._idle:
            self._idle.pop().end()

    def run(
        self,
        work: Callable[[J], Iterator[V]],
        jobs: Iterable[J],
        heard: Callable[[int, V], bool],
        *,
        seconds: float | None = None,
    ) -> None:
        """Do jobs until there are no more, or until the time is over.

        However it ends, the processes that are still at work end with it.

        Args:
            work: does a job.
            jobs: the next is taken when a process is free, so it may depend on what was heard.
            heard: takes in what a job yields, with its number in the order of the jobs, from 0;
                returns whether the job goes on.
            seconds: after which no more is waited for; None for no limit.

        Raises:
            ProcessDiedError: a process has died.
            Exception: what a job raised, with its traceback as a note.
        """
        until = None if seconds is None else time.monotonic() + seconds
        numbered = enumerate(jobs)
        busy: dict[object, tuple[int, _Worker]] = {}
        try:
            while (left := None if until is None else until - time.monotonic()) is None or left > 0:
                while len(busy) < self._processes and (job := next(numbered, None)) is not None:
                    worker = self._idle.pop() if self._idle else _Worker()
                    busy[worker.pipe] = job[0], worker
                    worker.begin(work, job[1])
                if not busy:
                    break
                for pipe in wait([worker.pipe for _, worker in busy.values()], left):
                    number, worker = busy[pipe]
                    is_over, value = worker.message()
                    if is_over:
                        del busy[pipe]
                        self._idle.append(worker)
                    else:
                        worker.answer(go_on=heard(number, value))
        finally:
            for _, worker in busy.values():
                worker.end()


class _Worker:
    """A process."""

    def __init__(self) -> None:
        context = spawning()
        self.pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other,), daemon=True)
        self._process.start()
        other.close()

    def end(self) -> None:
        """Whatever it is at is lost."""
        self._process.terminate()
        self._process.join()
        self.pipe.close()

    def begin(self, work: Callable[[J], Iterator[V]], job: J) -> None:
        self._send((work, job))

    def message(self) -> tuple[bool, Any]:
        """Whether the job is over, and if not, what it has yielded."""
        try:
            is_over, value = self.pipe.recv()
        except EOFError as error:
            raise ProcessDiedError(
                "a process has died, perhaps for want of memory: --processes 1 takes less"
            ) from error
        if isinstance(value, Exception):
            raise value
        return is_over, value

    def answer(self, *, go_on: bool) -> None:
        self._send(go_on)

    def _send(self, value: object) -> None:
        with suppress(BrokenPipeError):  # That it has died shows where its message is awaited.
            self.pipe.send(value)


def _serve(pipe: Connection) -> None:
    """In the process: do jobs as long as there is somebody who waits for them."""
    leave_interrupts()
    while True:
        try:
            work, job = pipe.recv()
            for value in work(job):
                pipe.send((False, value))
                if not pipe.recv():
                    break
            pipe.send((True, None))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return
        except Exception as error:  # noqa: BLE001 - it is raised where the job is waited for
            error.add_note(traceback.format_exc())
            pipe.send((True, error))
