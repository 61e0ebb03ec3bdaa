"""Find, or fetch, the real programs that the demo and the tests run.

The parts are Mosquitto, MicroPython for 64 and for 32 bits, and umqtt.simple. A program on PATH is
used first. What is missing comes from Debian, signatures checked, into the project's `.cache/`: no
system file is touched and no rights are needed (see debian.py).

`python3 -m localfleet.parts` fetches what is missing and prints one line per part. Only the
standard library is used here, because this runs before the virtual environment exists.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from localfleet import debian
from localfleet.debian import CACHE, Bundle
from localfleet.errors import PartsError

SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # Seldom on an ordinary user's PATH.

# What sys.implementation._mpy must say: files of version 6.3, and the architecture in bits 10-13.
# The minor version counts too: native code is refused by an interpreter of another one.
MPY_VERSION = 6 | 3 << 8
MPY_ARCHITECTURE = {32: 1, 64: 2}  # x86, x64
MPY_PROBE = (
    "import sys; i = sys.implementation;"
    "print(64 if sys.maxsize > 1 << 31 else 32, getattr(i, '_mpy', 0), *i.version[:3])"
)

UMQTT = "micropython-umqtt.simple==1.3.4"
UMQTT_HASH = "sha256:b6a2520239e3992c63a7de9370ee9b3d9d27819a90359c521f1c0f7ccab8d12f"

Bits = Literal[32, 64]

_MICROPYTHON = "micropython libc6 libgcc-s1 libffi8 libmbedcrypto16 libmbedtls21 libmbedx509-7"
MOSQUITTO = Bundle(
    name="mosquitto",
    architecture="amd64",
    packages="mosquitto libc6 libcap2 libcjson1 libdlt2 libgcc-s1 libssl3t64 libsystemd0 "
    "libwebsockets19t64 libwrap0 libzstd1 zlib1g",
    remedy="`apt install mosquitto`",
)
MICROPYTHON: dict[Bits, Bundle] = {
    64: Bundle(
        name="micropython-64",
        architecture="amd64",
        packages=_MICROPYTHON,
        remedy="`apt install micropython` (Debian 13)",
    ),
    32: Bundle(
        name="micropython-32",
        architecture="i386",
        packages=_MICROPYTHON,
        remedy="`dpkg --add-architecture i386` and `apt install micropython:i386` (Debian 13)",
    ),
}
PIP = Bundle(
    name="pip",
    architecture="all",
    packages="python3-pip-whl",
    remedy="`apt install python3-venv`",
)


# --- Where a part is -----------------------------------------------------------------------------


def mosquitto() -> list[str]:
    """Return the command prefix that runs the broker.

    Raises:
        PartsError: it is neither on this machine nor fetched.
    """
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *SYSTEM_FOLDERS))
    installed = shutil.which("mosquitto", path=path)
    return [installed] if installed else MOSQUITTO.command("usr/sbin/mosquitto")


def micropython(bits: Bits) -> list[str]:
    """Return the command prefix that runs MicroPython with words of 32 or 64 bits.

    Raises:
        PartsError: there is no suitable one on PATH and none is fetched.
    """
    installed, refusal = _installed_micropython(bits)
    if installed and not refusal:
        return [installed]
    return MICROPYTHON[bits].command("usr/bin/micropython")


def umqtt() -> Path:
    """Return the folder to put on MICROPYPATH so that `import umqtt.simple` works.

    Raises:
        PartsError: it has not been fetched.
    """
    folder = _umqtt_folder()
    if not folder.is_dir():
        raise PartsError(
            f"umqtt.simple is missing: run `make setup` (it is {UMQTT} on the package index)"
        )
    return folder


def _umqtt_folder() -> Path:
    return CACHE / UMQTT.replace("==", "-")


def _installed_micropython(bits: Bits) -> tuple[str | None, str]:
    """Return the `micropython` on PATH and why it does not serve ("" where it does)."""
    installed = shutil.which("micropython")
    if installed is None:
        return None, ""
    answer = _output([installed, "-c", MPY_PROBE]).split()
    if len(answer) < 2 or not all(word.isdigit() for word in answer[:2]):
        return installed, "does not answer as MicroPython does"
    its_bits, mpy = int(answer[0]), int(answer[1])
    if its_bits != bits:
        return installed, f"has {its_bits} bits"
    if mpy & 0x3FF != MPY_VERSION or mpy >> 10 & 0xF != MPY_ARCHITECTURE[bits]:
        return installed, f"cannot load native .mpy files of version 6.3 (its _mpy is {mpy:#x})"
    return installed, ""


def _output(command: list[str]) -> str:
    """Return what a command prints, "" where it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


# --- Fetching ------------------------------------------------------------------------------------


PARTS: dict[str, Callable[[], object]] = {
    "mosquitto": mosquitto,
    "micropython-64": partial(micropython, 64),
    "micropython-32": partial(micropython, 32),
    "umqtt": umqtt,
}


def fetch() -> None:
    """Get every part that is missing; costs milliseconds when none is.

    Raises:
        PartsError: some could not be had; one line for each.
    """
    if all(map(_have, PARTS.values())):
        return
    with debian.alone():
        bundles = [MOSQUITTO, *MICROPYTHON.values()]
        complaints = _complaints([bundle for bundle in bundles if not _have(PARTS[bundle.name])])
        if not _have(umqtt):
            try:
                _umqtt()
            except PartsError as error:
                complaints.append(f"umqtt.simple is missing ({error}): run `make setup`")
    if complaints:
        raise PartsError("\n".join(complaints))


def fetch_pip() -> Path:
    """Return Debian's pip wheel, for a Python without ensurepip, fetching it where needed.

    Raises:
        PartsError: it could not be had.
    """
    with debian.alone():
        complaints = [] if PIP.folder.is_dir() else _complaints([PIP])
    wheel = next(PIP.folder.glob("usr/share/python-wheels/pip-*.whl"), None)
    if wheel is None:
        raise PartsError(*complaints or [f"no pip wheel in {PIP.folder}: {PIP.remedy}"])
    return wheel


def _have(find: Callable[[], object]) -> bool:
    try:
        find()
    except PartsError:
        return False
    return True


def _complaints(missing: list[Bundle]) -> list[str]:
    """Fetch bundles from Debian; return a line for each that is still missing."""
    try:
        if missing:
            debian.fetch(missing)
    except PartsError as error:
        absent = [bundle for bundle in missing if not bundle.folder.is_dir()]
        return [f"{bundle.name} is missing ({error}): {bundle.remedy}" for bundle in absent]
    return []


def _umqtt() -> None:
    """Unpack umqtt.simple with pip, which checks the hash.

    The archive holds no setup.py, so pip downloads, checks and unpacks it, then complains. With
    --no-clean it leaves the unpacked files in the folder that we gave it for temporary files.
    """
    print(f"fetching {UMQTT} with pip ...", file=sys.stderr, flush=True)
    with debian.unpacked_once(_umqtt_folder()) as temporary:
        work = temporary / "work"
        work.mkdir()
        (work / "requirements").write_text(f"{UMQTT} --hash={UMQTT_HASH}\n")
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
        command += ["--quiet", "--no-clean", "--no-deps", "--no-binary", ":all:"]
        command += ["--no-build-isolation", "--require-hashes", "--requirement", "requirements"]
        done = subprocess.run(
            command,
            cwd=work,
            env=os.environ | {"TMPDIR": str(work)},
            capture_output=True,
            text=True,
            check=False,
        )
        package = next(work.glob("**/umqtt/simple.py"), None)
        if package is None:
            complaint = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
            raise PartsError(f"pip download failed: {complaint}")
        package.parent.rename(temporary / "umqtt")
        shutil.rmtree(work)


def _report() -> Iterator[str]:
    """Yield a line per part: its version and where it was found.

    Raises:
        PartsError: a part is there but does not start.
    """
    broker = mosquitto()
    greeting = re.search(r"version (\S+)", _output([*broker, "-h"]))
    yield f"mosquitto       {greeting[1] if greeting else '?':8}{broker[-1]}"
    for bits in MICROPYTHON:
        command = micropython(bits)
        version = ".".join(_output([*command, "-c", MPY_PROBE]).split()[2:])
        if not version:
            raise PartsError(f"{command[-1]} does not start: does the kernel run {bits}-bit code?")
        installed, refusal = _installed_micropython(bits)
        note = f"  ({installed} {refusal})" if refusal else ""
        yield f"micropython-{bits}  {version:8}{command[-1]}{note}"
    yield f"umqtt.simple    {UMQTT.split('==')[1]:8}{umqtt()}"


def main(arguments: list[str]) -> int:
    """Fetch what is missing and print what there is.

    `--quiet` prints nothing where nothing is missing; `pip` prints the path of Debian's pip wheel.

    Returns:
        The process's exit code: 1 where a part is missing.
    """
    try:
        if arguments == ["pip"]:
            print(fetch_pip())
            return 0
        fetch()
        for line in _report() if arguments != ["--quiet"] else ():
            print(line)
    except PartsError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
