"""The aggregator's process, which dies where a test wants it to.

The child runs what the ``tinymetafed serve`` command runs. It is forked from a server that has made
the imports already, for they take a second and a hundred kills would take minutes. A fault wraps a
method of the real program from outside: nothing in the program knows of it.
"""

import ctypes
import itertools
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Final, Literal
from unittest import mock

from aggregator.journal.journal import Journal
from cli import main
from tests.support.waiting import PATIENCE, wait_until

When = Literal["before", "inside", "after"]

PR_SET_PDEATHSIG: Final = 1
"""Of prctl(2): the kernel kills a child whose parent has ended."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["__main__", "tests.faults.service_process"])


@dataclass(frozen=True)
class Fault:
    """What happens at a step of the program."""

    step: Callable[..., Any]
    """A method of a class of the program."""
    when: When
    """Inside: when the transaction that this method makes is about to be committed."""
    call: int = 1
    """From this call on, counted from 1."""
    seconds: float | None = None
    """How long the step is held up; None where the process is killed, as by ``kill -9``."""

    def inject(self) -> None:
        """Put it into this process."""
        owner_name, _, name = self.step.__qualname__.partition(".")
        owner = getattr(sys.modules[self.step.__module__], owner_name)
        calls = itertools.count(1)
        real = self.step

        def faulty(*args: Any, **named: Any) -> object:
            due = next(calls) >= self.call
            if due and self.when == "before":
                self._strike()
            if due and self.when == "inside":
                with self._transactions_torn():
                    return real(*args, **named)
            result = real(*args, **named)
            if due and self.when == "after":
                self._strike()
            return result

        setattr(owner, name, faulty)

    @contextmanager
    def _transactions_torn(self) -> Iterator[None]:
        real = Journal._transaction

        @contextmanager
        def torn(journal: Journal) -> Iterator[Connection]:
            with real(journal) as db:
                yield db
                self._strike()

        with mock.patch.object(Journal, "_transaction", torn):
            yield

    def _strike(self) -> None:
        if self.seconds is None:
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            time.sleep(self.seconds)


def _serve(flags: list[str], log: Path, fault: Fault | None) -> None:
    """The child's whole life."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if fault is not None:
        fault.inject()
    sys.argv = ["tinymetafed", "serve", *flags]
    main.app()


class Aggregator:
    """One fleet's aggregator: a process after the other, on the same state folder.

    Args:
        folder: of the state and the log.
        spec: the spec's file.
        port: where the broker listens, or what stands before it.
    """

    def __init__(self, folder: Path, spec: Path, port: int) -> None:
        self.state = folder / "state"
        self.log = folder / "aggregator.log"
        self.flags = [
            *("--spec", str(spec)),
            *("--broker", f"mqtt://127.0.0.1:{port}"),
            *("--state", str(self.state)),
        ]
        self._process: ForkServerProcess | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        assert self._process.pid is not None
        return self._process.pid

    @property
    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def start(self, fault: Fault | None = None) -> None:
        self._process = _context.Process(
            target=_serve, args=(self.flags, self.log, fault), daemon=True
        )
        self._process.start()

    def wait(self) -> int:
        """Wait for its end; the exit code, negative after a signal."""
        assert self._process is not None
        self._process.join(PATIENCE)
        code = self._process.exitcode
        assert code is not None, f"it should have ended; it said:\n{self.said[-3000:]}"
        return code

    def kill(self, sign: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal and wait for the end; the exit code."""
        os.kill(self.pid, sign)
        return self.wait()

    def stop(self) -> None:
        """End it, however it is."""
        if self._process is not None and self._process.is_alive():
            self._process.kill()
            self._process.join()

    def wait_for_line(self, text: str, times: int = 1) -> None:
        """Wait until it has said this so many times, and has not ended."""
        assert self._process is not None
        process = self._process

        def is_said() -> bool:
            assert process.is_alive(), f"it has ended; it said:\n{self.said[-3000:]}"
            return self.said.count(text) >= times

        wait_until(f"{text!r} in the log", is_said, lambda: self.said[-3000:])

    def resident_bytes(self) -> int:
        """The memory that it takes now."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the kernel tells no VmRSS")
