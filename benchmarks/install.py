"""`make bench-install`: what the plain install takes, and how soon and how lightly it runs.

It is built and installed as a user does it: a wheel, and the packages of `requirements.lock` with
their hashes, into an environment of its own. `BEFORE=PATH` names a checkout of a former state,
which is installed likewise; both take turns, and the medians count.

- downloaded: all wheels
- installed: their files; and with the bytecode that pip compiles of them (uv does not)
- help: processor time of `tinymetafed --help`, over a Typer application with three commands
- ready: from the start of `tinymetafed serve` until the broker has accepted it, in seconds; and
  the processor time of that, which other work on the machine does not change
- rss: what it holds in memory a second later

Writes `build/bench/install.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

from localfleet import processes
from localfleet.processes import PROJECT

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER: Final = PROJECT / "build" / "bench" / "install"
RESULT: Final = FOLDER.with_suffix(".json")
TURNS: Final = 15
IDLE_SECONDS: Final = 1.0
"""After which the aggregator has done all that it does without boards."""
READY: Final = "connected to the broker"
WANTED: Final = {
    "downloaded, MB": 30,
    "installed, MB": 90,
    "help / Typer alone": 1.3,
    "ready / before": 0.85,
    "rss, MB": 66,
}
"""Promises, each at most."""
TYPER_ALONE: Final = '''
import typer
app = typer.Typer(help="Nothing else.", no_args_is_help=True, add_completion=False)
def work() -> None:
    """What a command does."""
for name in ("one", "two", "three"):
    app.command(name)(work)
app()
'''
PIP: Final = (sys.executable, "-m", "pip", "--disable-pip-version-check")


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the project installed in it."""

    folder: Path
    downloaded: int
    """Bytes of all wheels."""
    installed: int
    """Bytes of all files, before any is compiled."""

    @property
    def bin(self) -> Path:
        """Where its programs are."""
        return self.folder / "bin"

    @property
    def size(self) -> int:
        """Bytes of all files now."""
        return _size(self.folder / "lib")


def build_wheel(source: Path, folder: Path) -> Path:
    """The wheel of a checkout, from a copy: what an earlier build left behind stays out of it."""
    copy = folder / "source"
    left_out = shutil.ignore_patterns(".git", ".cache", "build", "*.egg-info", "__pycache__")
    shutil.copytree(source, copy, ignore=left_out)
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, copy)
    shutil.rmtree(copy)
    (wheel,) = folder.glob("tinymetafed-*.whl")
    return wheel


def install(source: Path, folder: Path) -> Environment:
    """Install a checkout's wheel and its `requirements.lock` into a fresh environment.

    Raises:
        subprocess.CalledProcessError: pip says on stderr what does not work.
    """
    wheels = folder / "wheels"
    wheels.mkdir(parents=True)
    build_wheel(source, wheels)
    lock = ("--no-deps", "--require-hashes", "--requirement", source / "requirements.lock")
    _pip("download", "--only-binary", ":all:", "--dest", wheels, *lock)
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    _pip("--python", venv, "install", "--no-deps", "--no-index", "--no-compile", *wheels.iterdir())
    return Environment(venv, _size(wheels), _size(venv / "lib"))


def _pip(*words: str | Path) -> None:
    subprocess.run([*PIP, "-qq", *words], check=True)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def processor_seconds(command: Sequence[str | Path]) -> float:
    """User and system time of a program."""
    before = os.times()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])  # Of the children: user and system.


@dataclass(frozen=True)
class Start:
    """How an aggregator started."""

    ready: float
    """Seconds."""
    processor: float
    """Seconds of it."""
    resident: float
    """Megabytes."""


def serve(environment: Environment, spec: Path, port: int, folder: Path) -> Start:
    """Start an aggregator, see how, and end it."""
    words: list[str | Path] = ["--spec", spec, "--broker", f"127.0.0.1:{port}", "--state", folder]
    start = time.monotonic()
    command = [environment.bin / "tinymetafed", "serve", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None  # noqa: S101 - it was asked for
        for line in process.stderr:
            if READY in line:
                break
        ready = time.monotonic() - start
        proc = Path(f"/proc/{process.pid}")
        ticks = proc.joinpath("stat").read_text(encoding="ascii").rpartition(")")[2].split()
        time.sleep(IDLE_SECONDS)
        status = proc.joinpath("status").read_text(encoding="ascii")
        process.terminate()
    processor = sum(map(int, ticks[11:13])) / os.sysconf("SC_CLK_TCK")  # utime and stime.
    (resident,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
    return Start(ready, processor, 1024 * int(resident) / 1e6)


def measure(before: Path | None) -> dict[str, Any]:
    """All figures; ``before`` is a checkout to install beside this one."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    sources = {"now": PROJECT} | ({} if before is None else {"before": before})
    made = {name: install(source, FOLDER / name) for name, source in sources.items()}
    for environment in made.values():
        subprocess.run(
            [environment.bin / "python", "-m", "compileall", "-qq", environment.folder / "lib"],
            check=False,  # Some packages carry files for other Pythons.
        )
    found: dict[str, Any] = {
        name: {
            "downloaded_mb": round(environment.downloaded / 1e6, 1),
            "installed_mb": round(environment.installed / 1e6, 1),
            "with_bytecode_mb": round(environment.size / 1e6, 1),
        }
        for name, environment in made.items()
    }
    alone = FOLDER / "typer_alone.py"
    alone.write_text(TYPER_ALONE, encoding="utf-8")
    commands: dict[str, list[str | Path]] = {
        "typer": [made["now"].bin / "python", alone, "--help"],
        **{name: [made[name].bin / "tinymetafed", "--help"] for name in made},
    }
    helps: dict[str, list[float]] = {name: [] for name in commands}
    served: dict[str, list[Start]] = {name: [] for name in made}
    port = processes.free_port()
    broker = processes.broker(FOLDER / "broker", port)
    with processes.stopping([broker]):
        processes.start_broker(broker, port)
        for turn in range(TURNS):
            for name, command in commands.items():
                helps[name].append(processor_seconds(command))
            for name, environment in made.items():
                spec = sources[name] / "specs" / "sine.toml"
                served[name].append(serve(environment, spec, port, FOLDER / name / f"{turn}"))
    for name in made:
        starts = served[name]
        found[name] |= {
            "help_s": round(statistics.median(helps[name]), 3),
            "ready_s": round(statistics.median(start.ready for start in starts), 3),
            "ready_processor_s": round(statistics.median(one.processor for one in starts), 3),
            "rss_mb": round(statistics.median(start.resident for start in starts), 1),
        }
    return found | {
        "typer_help_s": round(statistics.median(helps["typer"]), 3),
        "turns": TURNS,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 1),
    }


def promised(figures: dict[str, Any]) -> dict[str, float]:
    """The figures that something was promised of."""
    now, before = figures["now"], figures.get("before")
    found = {
        "downloaded, MB": now["downloaded_mb"],
        "installed, MB": now["installed_mb"],
        "help / Typer alone": now["help_s"] / figures["typer_help_s"],
        "rss, MB": now["rss_mb"],
    }
    if before is not None:
        found["ready / before"] = now["ready_s"] / before["ready_s"]
    return found


def show(figures: dict[str, Any]) -> None:
    """Print the figures, and those that were promised beside what was promised."""
    names = [name for name in ("now", "before") if name in figures]
    table = Table("figure", *names, title="the plain install")
    for figure in figures["now"]:
        table.add_row(figure, *(f"{figures[name][figure]}" for name in names))
    console = Console()
    console.print(table)
    for name, value in promised(figures).items():
        console.print(f"{name}: {value:.2f} (at most {WANTED[name]})", highlight=False)


def main() -> None:
    """Measure, write and show."""
    parser = argparse.ArgumentParser(description="Measure the plain install.")
    parser.add_argument("--before", type=Path, help="a checkout of a former state")
    figures = measure(parser.parse_args().before)
    RESULT.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    show(figures)


if __name__ == "__main__":
    main()
