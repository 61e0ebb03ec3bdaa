"""Compile C for a board: a native module in a .mpy file, made by MicroPython's own linker."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from localfleet import debian, toolchain
from localfleet.debian import CACHE
from localfleet.errors import ProcessError
from localfleet.toolchain import MACHINES, Kind


def build_native(c_file: Path, kind: Kind, flags: str = "-O2") -> Path:
    """Compile a C file into a module that a board can import under the file's name.

    The same file, compiler flags and kind are compiled once.

    Args:
        c_file: one that includes "py/dynruntime.h" and defines mpy_init().
        kind: of the board, which also decides the processor's flags.
        flags: further ones of the compiler; they come last.

    Returns:
        The .mpy file.

    Raises:
        PartsError: the compiler, or MicroPython's source, is missing.
        ProcessError: it does not compile or link; with what the compiler said.
    """
    cross = toolchain.compiler(kind)
    source = toolchain.micropython_source()
    environment = os.environ | {"PYTHONPATH": str(toolchain.pyelftools())}
    key = f"{kind} {cross} {source} {flags}".encode() + c_file.read_bytes()
    target = CACHE / "native" / f"{c_file.stem}-{hashlib.sha256(key).hexdigest()[:16]}"
    module = target / f"{c_file.stem}.mpy"
    if module.exists():
        return module
    with debian.alone(), debian.unpacked_once(target) as new, tempfile.TemporaryDirectory() as work:
        shutil.copy(c_file, work)
        command = [
            "make",
            f"MPY_DIR={source}",
            f"MOD={c_file.stem}",
            f"SRC={c_file.name}",
            f"ARCH={MACHINES[kind].march}",
            f"CROSS={cross}",
            f"PYTHON={sys.executable}",
            f"CFLAGS_EXTRA={flags}",
            "BUILD=build",
        ]
        (Path(work) / "Makefile").write_text("include $(MPY_DIR)/py/dynruntime.mk\n")
        done = subprocess.run(
            command, cwd=work, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = "\n  ".join(done.stderr.splitlines()[-15:])
            raise ProcessError(f"{c_file} does not compile for {kind}:\n  {said}")
        shutil.move(Path(work) / module.name, new)
    return module
