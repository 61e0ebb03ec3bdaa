"""What several tests need: real parts, and scripts that run on a board's interpreter."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import pytest

from localfleet import debian, parts
from localfleet.errors import PartsError
from localfleet.processes import PROJECT, micropython_path

Part = TypeVar("Part")

BOARD_SCRIPTS: Final = PROJECT / "tests" / "board"
GOLDEN: Final = PROJECT / "protocol" / "golden"

on_both_boards = pytest.mark.parametrize("bits", [64, 32])


def real(find: Callable[[], Part]) -> Part:
    """Find a part; where it is absent, skip the test, or fail it in CI."""
    try:
        return find()
    except PartsError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@cache
def compile_client() -> None:
    """Compile what a board ships with, where it is older than its sources; one worker does."""
    with debian.alone():
        subprocess.run([sys.executable, PROJECT / "micropython_client" / "build.py"], check=True)


def run_board(script: str, bits: parts.Bits, *arguments: str | Path, heap: str = "32M") -> Any:
    """Run a script of tests/board on MicroPython with the shipped client.

    Returns:
        What it printed: a list with the value of each line, which is JSON.
    """
    compile_client()
    micropython = real(lambda: parts.micropython(bits))
    environment = real(lambda: micropython_path(bits))
    done = subprocess.run(
        [*micropython, "-X", f"heapsize={heap}", BOARD_SCRIPTS / script, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or done.stderr:
        pytest.fail(f"{script} on {bits} bits: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def mutated(rng: np.random.Generator, data: bytes) -> bytes:
    """Data that something has happened to: flipped bits, changed bytes, a piece lost or added."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(out) + 1))
        match rng.integers(5):
            case 0 if at < len(out):
                out[at] ^= 1 << int(rng.integers(8))
            case 1 if at < len(out):
                out[at] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF, int(rng.integers(256))]))
            case 2:
                del out[at:]
            case 3:
                del out[at : at + 1]
            case _:
                out[at:at] = rng.bytes(int(rng.integers(1, 4)))
    return bytes(out)
