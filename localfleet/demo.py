"""The demo: a whole fleet of real parts on this machine learns the paper's sine task."""

import contextlib
import fcntl
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from aggregator.history import RoundFacts
from aggregator.store.store import read_history
from localfleet.errors import ProcessError
from localfleet.parts import Bits
from localfleet.processes import (
    PROJECT,
    Program,
    aggregator,
    board,
    broker,
    free_port,
    start_broker,
    stopping,
)
from protocol.progress import Progress
from protocol.spec.spec import Spec
from protocol.topics import Topics
from runtime.watcher import Watcher

SPEC: Final = PROJECT / "specs" / "sine.toml"
MAIN: Final = PROJECT / "micropython_client" / "examples" / "sine" / "main.py"
FOLDER: Final = PROJECT / "build" / "demo"
LEARNED: Final = 0.6
"""The fleet has learned if its last losses are at most this share of its first ones."""
SILENCE: Final = 120.0
"""Seconds without any progress after which the demo gives up."""


@dataclass(frozen=True)
class Summary:
    """What came out; ``summary.json`` holds it under these names."""

    boards: int
    rounds: int
    loss_first: float
    """Mean query loss after reconstruction, over the first tenth of the rounds."""
    loss_last: float
    """The same over the last tenth."""
    bytes_up: int
    """MQTT bytes that all boards sent: updates, acknowledgements, presence."""
    bytes_down: int
    """MQTT bytes that all boards received: models, rounds, receipts."""
    bytes_dense: int
    """What sending all global parameters as float32 would take, up and down, in every round."""
    accepted: int
    rejected: int
    seconds: float

    @property
    def has_learned(self) -> bool:
        """Whether the fleet is clearly better at the end."""
        return self.loss_last <= LEARNED * self.loss_first


def write_spec(path: Path, boards: int, rounds: int) -> Spec:
    """Write the sine task's spec for so many boards and rounds."""
    text = SPEC.read_text(encoding="utf-8")
    text = re.sub(r"(?m)^count = \d+", f"count = {rounds}", text)
    text = re.sub(r"(?m)^cohort = \d+", f"cohort = {boards}", text)
    path.write_text(text, encoding="utf-8")
    return Spec.from_file(path)


def run(
    boards: int, rounds: int, show: Callable[[Progress], None]
) -> tuple[Summary, list[RoundFacts]]:
    """Start every part, wait until the fleet is done, and end every part.

    Args:
        boards: how many, the even ones with 64-bit and the odd ones with 32-bit MicroPython.
        rounds: how many.
        show: is given each progress message.

    Raises:
        PartsError: a program is missing; says how to get it.
        ProcessError: a program ended by itself, nothing happened for two minutes, or another demo
            is running.
    """
    with _alone():
        return _run(boards, rounds, show)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Keep another demo from taking the folder away under this one."""
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with (FOLDER.parent / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ProcessError(f"another demo is writing to {FOLDER}; wait for it") from error
        yield


def _run(
    boards: int, rounds: int, show: Callable[[Progress], None]
) -> tuple[Summary, list[RoundFacts]]:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    spec_file = FOLDER / "spec.toml"
    spec = write_spec(spec_file, boards, rounds)
    port = free_port()
    settings: dict[str, object] = {"broker": f"mqtt://127.0.0.1:{port}", "fleet": spec.fleet}
    start = time.monotonic()
    with stopping([]) as programs:
        mosquitto = broker(FOLDER / "broker", port)
        programs.append(mosquitto)
        start_broker(mosquitto, port)
        with Watcher(port, Topics(spec.fleet)) as watcher:
            programs.append(aggregator(FOLDER, spec_file, port))
            for i in range(boards):
                name = f"board-{i:02d}"
                bits: Bits = 32 if i % 2 else 64
                programs.append(board(FOLDER / name, name, bits, settings, MAIN))
            for program in programs[1:]:
                program.start()
            progress = _watch(watcher, programs, show)
    seconds = time.monotonic() - start
    history = read_history(FOLDER / "state")
    summary = summarise(spec, boards, history, progress, seconds)
    text = json.dumps(asdict(summary), indent=2)
    (FOLDER / "summary.json").write_text(text + "\n", encoding="utf-8")
    return summary, history


def _watch(watcher: Watcher, programs: list[Program], show: Callable[[Progress], None]) -> Progress:
    """Follow the fleet until it is done; its last word."""
    last_news = time.monotonic()
    while True:
        progress = watcher.next(seconds=1)
        if progress is not None:
            last_news = time.monotonic()
            show(progress)
            if progress.state == "done":
                return progress
        for program in programs:
            program.check()
        if time.monotonic() - last_news > SILENCE:
            raise ProcessError(f"no progress for {SILENCE:.0f} s; see the logs in {FOLDER}")


def summarise(
    spec: Spec, boards: int, history: list[RoundFacts], progress: Progress, seconds: float
) -> Summary:
    """Sum up a fleet's closed rounds; ``progress`` is its last word."""
    tenth = max(1, len(history) // 10)
    losses = [facts.loss for facts in history]
    accepted = sum(facts.accepted for facts in history)
    return Summary(
        boards=boards,
        rounds=len(history),
        loss_first=sum(losses[:tenth]) / tenth,
        loss_last=sum(losses[-tenth:]) / tenth,
        bytes_up=progress.bytes_up,
        bytes_down=progress.bytes_down,
        bytes_dense=2 * 4 * spec.global_count * accepted,
        accepted=accepted,
        rejected=sum(progress.rejected.values()),
        seconds=round(seconds, 1),
    )


def draw(history: list[RoundFacts], path: Path) -> None:
    """Draw the learning curve as a PNG."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to load

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    rounds = [facts.round + 1 for facts in history]
    window = max(1, len(history) // 15)
    for name, colour, losses in (
        ("during reconstruction", "#9a9a9a", [facts.support_loss for facts in history]),
        ("after reconstruction", "#0b6e99", [facts.loss for facts in history]),
    ):
        axes.plot(rounds, losses, color=colour, alpha=0.3, linewidth=1)
        axes.plot(rounds, _smooth(losses, window), color=colour, linewidth=2, label=name)
    axes.set(
        title="A fleet learns to learn sines",
        xlabel="round",
        ylabel="mean squared error on new tasks",
        xlim=(1, max(2, len(history))),
        ylim=(0, None),
    )
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def _smooth(values: list[float], window: int) -> list[float]:
    """The mean of the last ``window`` values at each place."""
    return [
        sum(values[max(0, i + 1 - window) : i + 1]) / min(i + 1, window) for i in range(len(values))
    ]
