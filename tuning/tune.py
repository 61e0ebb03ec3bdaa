"""What `tinymetafed tune` does: searches a spec's settings, compares, and writes what it found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from protocol.spec.spec import Spec
from tuning import evidence
from tuning.errors import TuningError
from tuning.pool import Pool
from tuning.runs import Data, SpecRun
from tuning.space import Space, Values, bytes_most, values_of
from tuning.spec_file import rewritten
from tuning.spec_search import Budget, search
from tuning.verdict import compare

if TYPE_CHECKING:
    from tuning.spec_search import Candidate, SearchResult
    from tuning.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is wanted of a search."""

    spec: Path
    """Where the search starts, a TOML file."""
    data: Path | None
    """None for sines."""
    bytes: int | None
    """That a board may send and receive in a whole run; None for what the given spec takes."""
    seconds: float
    """For the search; the comparison at its end is extra."""
    runs: int
    """At most, in the search."""
    fixed: tuple[str, ...]
    """Names of settings that stay."""
    boards: int | None
    """Of the simulated fleet; None for as many as a round invites."""
    seeds: int
    """Fresh runs of each spec in the comparison."""
    seed: int
    """Of the proposals and of the runs."""
    processes: int
    """Runs at a time."""
    out: Path
    """Where to write the spec; a CSV of the runs goes beside it."""
    command: str
    """As the evidence says how it was made."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of it."""

    search: SearchResult
    given: Spec
    chosen: Spec | None = None
    """The spec that was written; None if the search was stopped before the first run was over."""
    verdict: Verdict | None = None
    """None where there was nothing to compare, or no time."""
    evidence: tuple[str, ...] = ()
    """Lines at the head of the file."""
    was_interrupted: bool

    @property
    def values(self) -> Values:
        """Of the spec that was written, or of the given one."""
        return values_of(self.chosen or self.given)

    @property
    def keeps_given(self) -> bool:
        """Whether they are those of the given spec."""
        return self.values == values_of(self.given)


class Listener(Protocol):
    """Hears how a search goes on."""

    def begins(self, space: Space, budget: Budget) -> None:
        """The search begins."""

    def ended(self, candidate: Candidate) -> None:
        """A run has ended or was given up."""

    def compares(self, seeds: int) -> None:
        """So many fresh runs of each spec begin."""


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What the settings come to."""

    given: Spec
    space: Space
    data: Data
    boards: int
    budget: Budget

    @classmethod
    def of(cls, settings: Settings) -> _Task:
        given = Spec.from_file(settings.spec)
        return cls(
            given=given,
            space=Space(given, settings.fixed),
            data=Data(spec=given, path=settings.data),
            boards=settings.boards or given.rounds.invitations,
            budget=Budget(
                bytes=settings.bytes or bytes_most(given),
                seconds=settings.seconds,
                runs=settings.runs,
            ),
        )


def tune(settings: Settings, listener: Listener) -> Result:
    """Search, compare the best with the given spec, and write the better one with the evidence.

    Ctrl-C ends the search, and the best so far is written; before the first run is over, nothing.

    Raises:
        TuningError: the settings cannot be, no setting fits the budget, a process died, or no run
            was over in time.
        SpecError: the given spec is wrong.
        SimulationError: the data are not what they should be.
    """
    task = _Task.of(settings)
    _check(settings)
    with Pool(settings.processes) as pool:
        listener.begins(task.space, task.budget)
        found = search(
            pool,
            space=task.space,
            data=task.data,
            budget=task.budget,
            boards=task.boards,
            seed=settings.seed,
            ended=listener.ended,
        )
        if found.best is None:
            if found.was_interrupted:
                return Result(search=found, given=task.given, was_interrupted=True)
            raise TuningError("no run was over in time: give more --minutes, or fewer rounds")
        evidence.write_runs(settings.out.with_suffix(".runs.csv"), found.candidates)
        best, verdict, was_interrupted = found.best.spec, None, found.was_interrupted
        if not was_interrupted and values_of(best) != values_of(task.given):
            listener.compares(settings.seeds)
            try:
                verdict = _compare(pool, task, best, settings)
            except KeyboardInterrupt:
                was_interrupted = True
    result = Result(
        search=found,
        given=task.given,
        chosen=_chosen(task.given, best, verdict, was_interrupted=was_interrupted),
        verdict=verdict,
        was_interrupted=was_interrupted,
    )
    return _written(result, task, settings)


def _check(settings: Settings) -> None:
    out = settings.out
    if not out.resolve().parent.is_dir():
        raise TuningError(f"--out {out}: there is no folder {out.parent}; make it first")
    if out.resolve() == settings.spec.resolve():
        raise TuningError(f"--out {out}: is the given spec; name another file")


def _compare(pool: Pool, task: _Task, best: Spec, settings: Settings) -> Verdict:
    first = settings.seed + 1
    return compare(
        pool,
        SpecRun(
            spec=task.given,
            data=task.data,
            boards=task.boards,
            seed=first,
            query=task.space.query,
        ),
        best,
        seeds=range(first, first + settings.seeds),
        given_fits=bytes_most(task.given) <= task.budget.bytes,
    )


def _chosen(given: Spec, best: Spec, verdict: Verdict | None, *, was_interrupted: bool) -> Spec:
    """Which spec is written."""
    if verdict is None:
        return best if was_interrupted else given
    return given if verdict.keeps_given else best


def _written(result: Result, task: _Task, settings: Settings) -> Result:
    """Write the chosen spec with the evidence."""
    lines = evidence.searched(settings.command, task.space, task.budget, result.search)
    if result.verdict is not None:
        lines += evidence.compared(result.verdict)
    elif result.was_interrupted:
        lines.append("Stopped early: what was found was not compared on held-out tasks.")
    else:
        lines.append("Nothing did better than the given spec, which is kept.")
    header = "".join(f"# {line}\n" for line in lines)
    text = rewritten(settings.spec.read_text(encoding="utf-8"), result.values)
    settings.out.write_text(f"{header}\n{text}", encoding="utf-8")
    return replace(result, evidence=tuple(lines))
