"""The runs of an experiment: on all cores, and each kept as soon as it is done.

A job is a frozen dataclass that says all that decides its outcome, so a kept outcome is found again
by what the job says. Who stops an experiment and starts it again loses the runs under way only.
"""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import asdict
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from experiments.errors import ExperimentError
from localfleet.processes import PROJECT
from tuning.errors import ProcessDiedError
from tuning.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from dataclasses import Field

    from rich.console import Console

Outcome = dict[str, Any]
"""What a run came to, as JSON holds it."""


class Job(Protocol):
    """A dataclass of texts, numbers, paths and further such dataclasses."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


class Study:
    """Runs jobs and keeps what they came to.

    Args:
        folder: for what is kept.
        processes: at work at a time.
        console: where progress is shown.
        fresh: whether to run again what was kept.
    """

    def __init__(
        self, folder: Path, processes: int, console: Console, *, fresh: bool = False
    ) -> None:
        self.console = console
        self.commit: Final = commit()
        self.commits: Final = {self.commit}
        """From which the runs are, those from before included."""
        self.started: Final = datetime.now(UTC)
        self.processor_seconds = 0.0
        """That the runs took, those from before included."""
        self._runs = folder / "runs"
        self._runs.mkdir(parents=True, exist_ok=True)
        if fresh:
            for kept in self._runs.glob("*.json"):
                kept.unlink()
        self._pool = Pool(processes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def run(self, work: Callable[[Any], Outcome], jobs: Sequence[Job], title: str) -> list[Outcome]:
        """What each job comes to, in their order.

        Args:
            work: a function of a module, which another process can find.
            jobs: no two are equal.
            title: of the progress bar.

        Raises:
            ExperimentError: a process has died.
        """
        outcomes: dict[int, Outcome] = {}
        for number, job in enumerate(jobs):
            kept = self._read(self._file(work, job))
            if kept is not None:
                outcomes[number] = kept
        if outcomes:
            self.console.print(
                f"{title}: {len(outcomes)} of {len(jobs)} runs were made before "
                "(--fresh makes all anew)"
            )
        left = [number for number in range(len(jobs)) if number not in outcomes]
        if left:
            self._make(work, jobs, left, outcomes, title)
        return [outcomes[number] for number in range(len(jobs))]

    def _make(
        self,
        work: Callable[[Any], Outcome],
        jobs: Sequence[Job],
        left: Sequence[int],
        outcomes: dict[int, Outcome],
        title: str,
    ) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )

        def heard(at: int, made: tuple[Outcome, float]) -> bool:
            number, (outcome, seconds) = left[at], made
            self._keep(self._file(work, jobs[number]), jobs[number], outcome, seconds)
            self.processor_seconds += seconds
            outcomes[number] = outcome
            bar.update(task, completed=len(outcomes))
            return True

        try:
            with Progress(*columns, console=self.console) as bar:
                task = bar.add_task(title, total=len(jobs), completed=len(outcomes))
                self._pool.run(_timed, [(work, jobs[number]) for number in left], heard)
        except ProcessDiedError as error:
            raise ExperimentError(
                "a process of the experiment has died, perhaps for want of memory: the same "
                "command goes on where it stopped; --processes 1 takes less"
            ) from error

    def _file(self, work: Callable[[Any], Outcome], job: Job) -> Path:
        said = json.dumps([work.__module__, work.__qualname__, asdict(job)], default=str)
        return self._runs / f"{blake2b(said.encode(), digest_size=12).hexdigest()}.json"

    def _read(self, file: Path) -> Outcome | None:
        try:
            kept = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:  # Cut off: it is made again.
            return None
        self.processor_seconds += kept["seconds"]
        self.commits.add(kept["commit"])
        outcome: Outcome = kept["outcome"]
        return outcome

    def _keep(self, file: Path, job: Job, outcome: Outcome, seconds: float) -> None:
        kept = {
            "job": asdict(job),
            "commit": self.commit,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 2),
            "outcome": outcome,
        }
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps(kept, default=str), encoding="utf-8")
        fresh.replace(file)


def commit() -> str:
    """What is checked out, with a ``+`` where files differ from it; ``unknown`` outside of git."""
    if not (PROJECT / ".git").exists():  # Installed: what git finds above would be another project.
        return "unknown"
    try:
        head = _git("rev-parse", "--short=10", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*words: str) -> str:
    command = ["git", "-C", str(PROJECT), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _timed(task: tuple[Callable[[Any], Outcome], Job]) -> Iterator[tuple[Outcome, float]]:
    """In a process of the pool."""
    work, job = task
    start = time.process_time()
    outcome = work(job)
    # As it will be read again: a list where there was a tuple.
    yield json.loads(json.dumps(outcome)), time.process_time() - start
