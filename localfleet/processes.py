"""Start and end a fleet's real programs on this machine: a broker, an aggregator, boards.

Each runs in a session of its own, so that Ctrl-C reaches only us and we end them in order; and each
is told by the kernel to end should we be killed.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from localfleet import parts
from localfleet.errors import PartsError, ProcessError
from localfleet.parts import Bits
from runtime.shipped import shipped

PROJECT: Final = Path(__file__).resolve().parent.parent
PATIENCE: Final = 10.0
"""Seconds that a program has to start, or to end before it is killed."""
HEAP: Final = {32: "128k", 64: "256k"}
"""Of a board: an RP2040 leaves about as much. Objects are twice as large on 64 bits."""
ENDS_WITH_US: Final = ("setpriv", "--pdeathsig", "KILL")
"""Of util-linux, which every Debian has: the kernel ends the program when our process ends."""


@dataclass
class Program:
    """A running program and its log."""

    name: str
    command: Sequence[str | Path]
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; its output goes to the log.

        Raises:
            ProcessError: there is no such program.
        """
        with self.log.open("ab") as log:
            try:
                self.process = subprocess.Popen(
                    [*ENDS_WITH_US, *self.command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **self.environment},
                    cwd=self.folder,
                    start_new_session=True,
                )
            except OSError as error:
                raise ProcessError(f"{self.name} does not start: {error}") from error

    def check(self) -> None:
        """Raise if it has ended by itself.

        Raises:
            ProcessError: it has; with its exit code and the end of its log.
        """
        if self.process is not None and self.process.poll() is not None:
            tail = self.log.read_text(errors="replace").splitlines()[-5:]
            message = f"{self.name} ended with code {self.process.returncode}; {self.log} says:"
            raise ProcessError("\n  ".join([message, *tail]))

    def kill(self, sign: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal and wait for the end; the exit code."""
        assert self.process is not None  # noqa: S101 - only a started program is killed
        self.process.send_signal(sign)
        return self.process.wait(PATIENCE)

    def stop(self) -> None:
        """Ask it to end, and make it end if it does not."""
        if self.process is None or self.process.poll() is not None:
            return
        try:
            self.kill(signal.SIGTERM)
        except subprocess.TimeoutExpired:
            self.kill()


def need_checkout() -> None:
    """Make sure that this is a checkout, with a broker's configuration, examples and `make`.

    Raises:
        PartsError: it is installed from a wheel.
    """
    if not (PROJECT / "Makefile").is_file():
        raise PartsError(
            "this needs a checkout of the project, which `make demo` sets up; from a wheel, "
            "`tinymetafed simulate` needs nothing else"
        )


def free_port() -> int:
    """A TCP port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def broker(folder: Path, port: int) -> Program:
    """A Mosquitto on loopback as it is deployed; its data and log lie in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    text = (PROJECT / "broker" / "mosquitto.conf").read_text(encoding="utf-8")
    text = re.sub(r"(?m)^listener .*", f"listener {port} 127.0.0.1", text)
    text = re.sub(r"(?m)^persistence_location .*", f"persistence_location {folder}/", text)
    if os.geteuid() == 0:
        text += "\nuser root\n"  # Else it becomes a user who may not write into our folder.
    config = folder / "mosquitto.conf"
    config.write_text(text, encoding="utf-8")
    return Program("mosquitto", [*parts.mosquitto(), "-c", config], folder / "mosquitto.log")


def start_broker(program: Program, port: int) -> None:
    """Start a broker and wait until it accepts connections.

    Raises:
        ProcessError: it ended, or took too long.
    """
    program.start()
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        program.check()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.01)  # There is no event to await: nothing says when another's socket listens.
    raise ProcessError(f"mosquitto does not listen on port {port} after {PATIENCE:.0f} s")


def aggregator(folder: Path, spec: Path, port: int, *flags: str) -> Program:
    """The aggregator; its state and log lie in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [
        Path(sys.executable).with_name("tinymetafed"),
        "serve",
        "--spec",
        spec,
        "--broker",
        f"mqtt://127.0.0.1:{port}",
        "--state",
        folder / "state",
        *flags,
    ]
    return Program("aggregator", command, folder / "aggregator.log")


def board(folder: Path, name: str, bits: Bits, settings: dict[str, object], main: Path) -> Program:
    """A board: MicroPython with a board's heap, the compiled client, and a ``main.py``.

    Args:
        folder: the board's file system, made if need be; its log lies there too.
        name: the board's name.
        bits: its words.
        settings: of its ``config.json``, but for the board's name.
        main: the program to run, copied into the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(main, folder / "main.py")
    config = json.dumps({**settings, "board": name}, indent=2)
    (folder / "config.json").write_text(config, encoding="utf-8")
    command = [*parts.micropython(bits), "-X", f"heapsize={HEAP[bits]}", "main.py"]
    return Program(name, command, folder / "board.log", micropython_path(bits), folder)


def micropython_path(bits: Bits) -> dict[str, str]:
    """The environment in which MicroPython finds the compiled client and umqtt.simple."""
    client = shipped("client") / {32: "x86", 64: "x64"}[bits]
    return {"MICROPYPATH": os.pathsep.join([str(client), str(parts.umqtt()), ".frozen"])}


@contextlib.contextmanager
def stopping(programs: list[Program]) -> Iterator[list[Program]]:
    """Stop every program of a list at the end, the last first; more may join it meanwhile."""
    try:
        yield programs
    finally:
        for program in reversed(programs):
            program.stop()
