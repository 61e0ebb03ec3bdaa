"""Find, or fetch, what an emulated board is built with and runs in.

That is: a cross compiler for each kind of board, QEMU, and MicroPython's source. What is on PATH is
used first; what is missing comes from Debian into `.cache/` (see debian.py). The demo needs none of
it: `python3 -m localfleet.emulator` fetches it, for tests and benchmarks.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Final, Literal

from localfleet import debian
from localfleet.debian import Bundle, Source
from localfleet.errors import PartsError

Kind = Literal["cortex-m0", "rv32imc"]
"""The instruction set of an RP2040, or of an ESP32-C3."""

_LIBRARIES: Final = "usr/lib/x86_64-linux-gnu"
_LIBC: Final = "libc6 libgcc-s1 libstdc++6 zlib1g libzstd1"
_COMPILER: Final = f"{_LIBC} libgmp10 libisl23 libmpc3 libmpfr6 libnewlib-dev"
# Hundreds of megabytes: other languages, other processors, link-time optimisation, manuals.
_UNWANTED: Final = (
    "usr/share",
    "usr/bin/*++*",
    "usr/bin/*gcov*",
    "usr/bin/*lto*",
    "usr/lib/gcc/*/*/cc1plus",
    "usr/lib/gcc/*/*/lto1",
    "usr/lib/gcc/*/*/plugin",
    "usr/lib/gcc/*/*/arm",
    "usr/lib/gcc/*/*/thumb/v[78]*",
    "usr/lib/gcc/*/*/rv64*",
)
_PROGRAMS: Final = ("gcc", "ar", "as", "ld", "nm", "objcopy", "objdump", "size", "strip")
_PROBE: Final = "#include <errno.h>\n#include <math.h>\n#include <stdio.h>\n#include <string.h>\n"


@dataclass(frozen=True)
class Machine:
    """What it takes to build for a kind of board and to run it.

    Attributes:
        march: what mpy-cross and mpy_ld.py call its instruction set.
        cross: what the names of its compiler's programs begin with.
        flags: of the compiler.
        compiler: its compiler as Debian has it.
        qemu: the program of QEMU, and the arguments that make it this board.
    """

    march: str
    cross: str
    flags: tuple[str, ...]
    compiler: Bundle
    qemu: tuple[str, ...]


def _remove(patterns: tuple[str, ...], root: Path) -> None:
    for pattern in patterns:
        for path in root.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _finish_compiler(cross: str, root: Path) -> None:
    """Make a fetched compiler small, and able to start its own parts.

    gcc starts cc1, as and ld itself, and would do so with this machine's libraries. So it is told
    (-B) to look for them among scripts, which start them through the fetched loader. The scripts
    find the rest from where they lie, so the project's folder may move.
    """
    _remove(_UNWANTED, root)
    [inside] = root.glob("usr/lib/gcc/*/*")
    programs = {f"inside/{name}": inside / name for name in ("cc1", "collect2")}
    programs |= {f"inside/{name}": root / f"usr/bin/{cross}{name}" for name in ("as", "ld")}
    programs |= {f"bin/{cross}{name}": root / f"usr/bin/{cross}{name}" for name in _PROGRAMS}
    for name, program in programs.items():
        script = root / "through-loader" / name
        script.parent.mkdir(parents=True, exist_ok=True)
        extra = '-B"$root/through-loader/inside/" -isystem "$root/usr/include/newlib" '
        script.write_text(
            "#!/bin/sh\n"
            "root=${0%/*}/../..\n"
            f'exec "$root/{debian.LOADERS["amd64"]}" --inhibit-cache '
            f'--library-path "$root/{_LIBRARIES}" "$root/{program.relative_to(root)}" '
            f'{extra if name.endswith("gcc") else ""}"$@"\n'
        )
        script.chmod(0o755)


MACHINES: Final[dict[Kind, Machine]] = {
    "cortex-m0": Machine(
        march="armv6m",
        cross="arm-none-eabi-",
        flags=("-mthumb", "-mcpu=cortex-m0", "-mfloat-abi=soft"),
        compiler=Bundle(
            name="compiler-arm",
            architecture="amd64",
            packages=f"gcc-arm-none-eabi binutils-arm-none-eabi {_COMPILER}",
            remedy="`apt install gcc-arm-none-eabi libnewlib-arm-none-eabi`",
            finish=partial(_finish_compiler, "arm-none-eabi-"),
        ),
        # An nRF51 with a megabyte of flash and an RP2040's RAM. An instruction takes 2**10 ns of
        # its time, whatever this machine does meanwhile: its timers show instructions.
        qemu=(
            "qemu-system-arm",
            "-machine",
            "microbit",
            "-icount",
            "shift=10,sleep=off",
            "-global",
            "nrf51-soc.flash-size=1048576",
            "-global",
            "nrf51-soc.sram-size=262144",
        ),
    ),
    "rv32imc": Machine(
        march="rv32imc",
        cross="riscv64-unknown-elf-",
        flags=("-march=rv32imc_zicsr", "-mabi=ilp32"),
        compiler=Bundle(
            name="compiler-riscv",
            architecture="amd64",
            packages=f"gcc-riscv64-unknown-elf binutils-riscv64-unknown-elf {_COMPILER}",
            remedy="`apt install gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf`",
            finish=partial(_finish_compiler, "riscv64-unknown-elf-"),
        ),
        # QEMU 7 shows nanoseconds as the number of instructions: so an instruction takes one.
        qemu=(
            "qemu-system-riscv32",
            "-machine",
            "virt",
            "-icount",
            "shift=0,sleep=off",
            "-bios",
            "none",
        ),
    ),
}

# Half of it is for networks, disks and screens that no board has; but its loader wants it all.
QEMU: Final = Bundle(
    name="qemu",
    architecture="amd64",
    packages=f"qemu-system-arm qemu-system-riscv {_LIBC} libaio1t64 libatomic1 libblkid1 libbpf1 "
    "libcap2 libcapstone5 libdaxctl1 libelf1t64 libfdt1 libffi8 libfuse3-4 libglib2.0-0t64 "
    "libgmp10 libgnutls30t64 libhogweed6t64 libibverbs1 libidn2-0 libjpeg62-turbo libkmod2 "
    "libmount1 libndctl6 libnettle8t64 libnl-3-200 libnl-route-3-200 libnuma1 libp11-kit0 "
    "libpcre2-8-0 libpixman-1-0 libpmem1 libpng16-16t64 librdmacm1t64 libsasl2-2 libseccomp2 "
    "libselinux1 libslirp0 libssl3t64 libtasn1-6 libudev1 libunistring5 liburing2 libuuid1 "
    "libvdeplug2t64",
    remedy="`apt install qemu-system-arm qemu-system-misc`",
    finish=partial(_remove, ("usr/share", "usr/bin/*64")),
)
PYELFTOOLS: Final = Bundle(
    name="pyelftools",
    architecture="all",
    packages="python3-pyelftools",
    remedy="`apt install python3-pyelftools`",
)
MICROPYTHON: Final = Source("micropython", "`apt source micropython` (Debian 13)")


def compiler(kind: Kind) -> str:
    """Return what to put before `gcc`, `ar` and so on: a cross compiler for this kind of board.

    Raises:
        PartsError: there is none on PATH that serves, and none is fetched.
    """
    machine = MACHINES[kind]
    gcc = shutil.which(f"{machine.cross}gcc")
    if gcc and shutil.which(f"{machine.cross}ld") and _serves(gcc, machine.flags):
        return machine.cross
    if not machine.compiler.folder.is_dir():
        raise _missing(machine.compiler.name, machine.compiler.remedy)
    return str(machine.compiler.folder / "through-loader" / "bin" / machine.cross)


@cache
def _serves(gcc: str, flags: tuple[str, ...]) -> bool:
    """Whether a compiler makes such code and has a C library's headers."""
    command = [gcc, *flags, "-fsyntax-only", "-xc", "-"]
    return not subprocess.run(
        command, input=_PROBE.encode(), capture_output=True, check=False
    ).returncode


def qemu(kind: Kind) -> list[str]:
    """Return the command prefix that emulates such a board.

    Raises:
        PartsError: it is neither on PATH nor fetched.
    """
    program, *arguments = MACHINES[kind].qemu
    if installed := shutil.which(program):
        return [installed, *arguments]
    if not QEMU.folder.is_dir():
        raise _missing(QEMU.name, QEMU.remedy)
    return [*QEMU.command(f"usr/bin/{program}"), *arguments]


def micropython_source() -> Path:
    """Return the folder of MicroPython's source.

    Raises:
        PartsError: it is not fetched.
    """
    if not MICROPYTHON.folder.is_dir():
        raise _missing(MICROPYTHON.name, MICROPYTHON.remedy)
    return MICROPYTHON.folder


def pyelftools() -> Path:
    """Return the folder to put on PYTHONPATH so that MicroPython's linker of .mpy files works.

    Raises:
        PartsError: it is not fetched.
    """
    if not PYELFTOOLS.folder.is_dir():
        raise _missing(PYELFTOOLS.name, PYELFTOOLS.remedy)
    return PYELFTOOLS.folder / "usr/lib/python3/dist-packages"


def _missing(name: str, remedy: str) -> PartsError:
    return PartsError(f"{name} is missing: run `make test`, or {remedy}")


def fetch() -> None:
    """Get what is missing; costs milliseconds when nothing is.

    Raises:
        PartsError: some could not be had; one line for each.
    """
    if not _missing_parts():
        return
    with debian.alone():
        parts = _missing_parts()
        bundles = [part for part in parts if isinstance(part, Bundle)]
        sources = [part for part in parts if isinstance(part, Source)]
        try:
            debian.fetch(bundles, sources)
        except PartsError as error:
            raise PartsError(
                "\n".join(
                    f"{part.name} is missing ({error}): {part.remedy}"
                    for part in parts
                    if not part.folder.is_dir()
                )
            ) from error


def _missing_parts() -> list[Bundle | Source]:
    wanted: list[tuple[Callable[[], object], Bundle | Source]] = [
        (micropython_source, MICROPYTHON),
        (pyelftools, PYELFTOOLS),
    ]
    for kind, machine in MACHINES.items():
        wanted += [(partial(compiler, kind), machine.compiler), (partial(qemu, kind), QEMU)]
    missing: list[Bundle | Source] = []
    for find, part in wanted:
        try:
            find()
        except PartsError:
            if part not in missing:
                missing.append(part)
    return missing
