"""Check that a lock's packages can be installed on a 64-bit Raspberry Pi: `make check-wheels`.

A Pi has a processor of its own kind, aarch64, and no compiler to spare: every package needs a wheel
for it, or one for any machine, on each Python that pyproject.toml names. pip finds them, by the
lock's hashes; the package index must be within reach. Nothing is installed.

Exits with 1 and the package's name where a wheel is missing.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.lock", "requirements-privacy.lock")
"""The plain install, and the container's."""
GLIBC = range(17, 37)
"""Minor versions of glibc 2 whose wheels run on Raspberry Pi OS of 2023 (Debian 12: 2.36)."""


def pythons() -> list[str]:
    """The Pythons that are supported, such as 3.11."""
    text = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    classifiers = tomllib.loads(text)["project"]["classifiers"]
    return [
        match[1]
        for line in classifiers
        if (match := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line))
    ]


def missing(lock: str, python: str) -> str:
    """What pip says that it cannot find; empty where it finds all."""
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in reversed(GLIBC)]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    command += ["--only-binary", ":all:", "--no-deps", "--require-hashes"]
    command += ["--implementation", "cp", "--python-version", python, *platforms]
    command += ["--requirement", str(PROJECT / lock)]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*command, "--dest", folder], capture_output=True, text=True, check=False
        )
        found = len(list(Path(folder).glob("*.whl")))
    if done.returncode == 0:
        print(f"{lock}: Python {python}: {found} wheels", flush=True)
        return ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return f"{lock}: Python {python}: {errors[0] if errors else done.stderr}"


def main() -> None:
    """Ask for each lock and each Python."""
    problems = [problem for lock in LOCKS for one in pythons() if (problem := missing(lock, one))]
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
