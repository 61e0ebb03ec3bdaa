"""`tinymetafed tune`: which settings of a spec learn best from these data within a byte budget."""

import csv
import json
import os
import signal
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cli.options import Data, command_line
from experiments.harness.report import Estimate
from protocol.spec.spec import Spec
from tuning.errors import TuningError
from tuning.search import Budget, Found, Tried, compared, search
from tuning.space import Space, bytes_most, values_of
from tuning.spec_file import rewritten
from tuning.worker import Job

_SHOWN = 5


def tune(  # noqa: PLR0913 - one argument a flag
    *,
    spec: Annotated[Path, typer.Option(help="The spec to start from, a TOML file.")],
    data: Data = None,
    bytes_: Annotated[
        int | None,
        typer.Option(
            "--bytes",
            min=1,
            help="That a board may send and receive in the whole run.",
            show_default="what the given spec takes",
        ),
    ] = None,
    minutes: Annotated[
        float, typer.Option(min=0.01, help="For the search; the comparison at its end is extra.")
    ] = 10,
    trials: Annotated[int, typer.Option(min=1, help="Runs at most.")] = 200,
    fix: Annotated[
        str,
        typer.Option(
            help="What stays as it is, with commas between: percent, percent_down, rate_local, "
            "rate_global, step_max, support, query, local, optimizer.",
        ),
    ] = "support",
    boards: Annotated[
        int | None,
        typer.Option(min=1, help="Boards of the fleet.", show_default="as a round asks"),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=2, max=100, help="Fresh runs of each spec in the comparison.")
    ] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Of the proposals and of the runs.")] = 0,
    processes: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Runs at a time.", show_default="one a core"),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where to write the spec.")] = Path("found.toml"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON a run, and a summary.")
    ] = False,
) -> None:
    """Search a spec's settings and write the spec found, with the evidence.

    Ctrl-C or SIGTERM ends the search and writes the best so far.
    """
    # Who ends this process means its runs, too, and wants what they found.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    given = Spec.from_file(spec)
    text = spec.read_text(encoding="utf-8")
    _check(out, spec)
    space = Space(given, [name.strip() for name in fix.split(",") if name.strip()])
    budget = Budget(bytes_ or bytes_most(given), 60 * minutes, trials)
    fleet, workers = boards or given.rounds.invitations, processes or os.cpu_count() or 1
    console = Console(stderr=True, highlight=False)
    console.print(
        f"{', '.join(space.searched)} are searched; a board takes {space.samples} samples a round "
        f"and at most {budget.bytes:,} bytes in {given.rounds.count:,} rounds."
    )
    with _Shown(console, trials, as_json=as_json) as shown:
        found = search(
            *(space, data, budget),
            boards=fleet,
            seed=seed,
            processes=workers,
            told=shown.told,
        )
    best = found.best
    if best is None and found.was_interrupted:
        typer.echo("tune: stopped before the first run was over; nothing is written", err=True)
        raise typer.Exit(130)
    if best is None:
        raise TuningError("no run was over in time: give more --minutes, or fewer rounds")
    _write_trials(out.with_suffix(".trials.csv"), found)
    facts: dict[str, Estimate] = {}
    if not found.was_interrupted and values_of(best.spec) != values_of(given):
        console.print(f"comparing both specs on held-out tasks, {seeds} fresh runs each")
        try:
            facts = _compare(given, best.spec, space, data, fleet, seed, seeds, workers)
        except KeyboardInterrupt:
            found.was_interrupted = True
    verdict, chosen = _decide(
        given, best.spec, facts, budget, was_interrupted=found.was_interrupted
    )
    evidence = _evidence(space, budget, found) + verdict
    values = values_of(chosen)
    header = "".join(f"# {line}\n" for line in evidence)
    out.write_text(f"{header}\n{rewritten(text, values)}", encoding="utf-8")
    if as_json:
        kept = values == values_of(given)
        summary = {"kept_given": kept, "values": values, "mattered": found.mattered}
        estimates = {name: asdict(fact) for name, fact in facts.items()}
        typer.echo(json.dumps({"summary": summary | estimates}))
    else:
        Console().print(_table(found))
        typer.echo("\n".join(evidence[2:]))
    console.print(str(out))
    if found.was_interrupted:
        raise typer.Exit(130)


class _Shown:
    """A bar of the runs and the best loss; with JSON, a line a run, too."""

    def __init__(self, console: Console, trials: int, *, as_json: bool) -> None:
        facts = TextColumn("{task.fields[best]}")
        columns = (TextColumn("{task.completed} runs"), BarColumn(), facts, TimeElapsedColumn())
        self._bar = Progress(*columns, console=console)
        self._task = self._bar.add_task("", total=trials, best="")
        self._lowest = float("inf")
        self._as_json = as_json

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def told(self, tried: Tried) -> None:
        """A run has ended."""
        if tried.is_finished:
            self._lowest = min(self._lowest, tried.scores[-1].loss)
        self._bar.update(self._task, advance=1, best=f"best loss {self._lowest:.4f}")
        if self._as_json:
            typer.echo(json.dumps(_row(tried)))


def _check(out: Path, spec: Path) -> None:
    if not out.resolve().parent.is_dir():
        raise TuningError(f"--out {out}: there is no folder {out.parent}; make it first")
    if out.resolve() == spec.resolve():
        raise TuningError(f"--out {out}: is the given spec; name another file")


def _decide(
    given: Spec, best: Spec, facts: dict[str, Estimate], budget: Budget, *, was_interrupted: bool
) -> tuple[list[str], Spec]:
    """What is said of both specs, and which one is written."""
    if facts:
        fits = bytes_most(given) <= budget.bytes
        keeps = fits and facts["gain"].mean <= facts["gain"].ci95
        return _told(facts, keeps=keeps, fits=fits), given if keeps else best
    if was_interrupted:
        return ["Stopped early: what was found was not compared on held-out tasks."], best
    return ["Nothing did better than the given spec, which is kept."], given


def _compare(  # noqa: PLR0913, PLR0917 - all of them make a run
    given: Spec,
    best: Spec,
    space: Space,
    data: Path | None,
    boards: int,
    seed: int,
    seeds: int,
    processes: int,
) -> dict[str, Estimate]:
    """Losses and accuracies of both, on the same test tasks, and what is gained."""
    fresh = range(seed + 1, seed + 1 + seeds)
    jobs = [Job(one, boards, s, space.asked, final=True) for one in (given, best) for s in fresh]
    scores = compared(data, jobs, processes)
    first, second = scores[:seeds], scores[seeds:]
    gains = [a.loss - b.loss for a, b in zip(first, second, strict=True)]
    facts = {"gain": Estimate.of(gains)}
    for name, those in (("given", first), ("found", second)):
        facts[f"{name}_loss"] = Estimate.of([score.loss for score in those])
        facts[f"{name}_bytes"] = Estimate.of([score.bytes for score in those])
        if given.is_classifier:
            facts[f"{name}_accuracy"] = Estimate.of([score.accuracy for score in those])
    for name, one in (("given", given), ("found", best)):
        heap = one.heap_needed
        facts[f"{name}_heap"] = Estimate(heap, 0.0)
    return facts


def _told(facts: dict[str, Estimate], *, keeps: bool, fits: bool) -> list[str]:
    lines = ["On held-out test tasks, mean and 95 % interval over fresh runs:"]
    for name in ("given", "found"):
        right = facts.get(f"{name}_accuracy")
        told = f", accuracy {right.text('.1%')}" if right else ""
        lines.append(
            f"{name}: loss {facts[f'{name}_loss'].text('.4f')}{told}, "
            f"{facts[f'{name}_bytes'].mean:,.0f} bytes a board, heap "
            f"{facts[f'{name}_heap'].mean:,.0f}"
        )
    lines.append(f"The found one's loss is lower by {facts['gain'].text('.4f')} (paired by run).")
    if keeps:
        lines.append("That is not beyond the interval: the given spec is kept.")
    elif fits:
        lines.append("That is beyond the interval: below is what was found.")
    else:
        lines.append("The given spec is beyond the budget of bytes: below is what was found.")
    return lines


def _evidence(space: Space, budget: Budget, found: Found) -> list[str]:
    runs = [tried for tried in found.tried if not tried.skipped]
    lines = [
        f"Written by `{command_line()}` on {datetime.now(UTC):%Y-%m-%d}.",
        f"Searched: {', '.join(space.searched)}.",
        (
            f"{len(runs)} runs, {sum(tried.is_finished for tried in runs)} of them to the end; "
            f"{len(found.tried) - len(runs)} settings skipped unrun. "
            f"At most {budget.bytes:,} bytes a board."
        ),
    ]
    if found.mattered:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in found.mattered.items())
        lines.append(f"What mattered: {shares}.")
    return lines


def _row(tried: Tried) -> dict[str, Any]:
    last = tried.scores[-1] if tried.scores else None
    state = "skipped" if tried.skipped else "finished" if tried.is_finished else "given up"
    return {
        "trial": tried.number,
        "state": state,
        **tried.values,
        "round": last and last.round,
        "loss": last and last.loss,
        "accuracy": last and last.accuracy,
        "bytes": last and last.bytes,
        "reason": tried.skipped,
    }


def _write_trials(path: Path, found: Found) -> None:
    rows = [_row(tried) for tried in found.tried]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _table(found: Found) -> Table:
    finished = sorted(
        (tried for tried in found.tried if tried.is_finished), key=lambda one: one.scores[-1].loss
    )
    # A column a run: with one a setting, a terminal of 80 characters would cut the numbers short.
    table = Table(title="The best, by tasks to choose by")
    table.add_column("trial")
    for tried in finished[:_SHOWN]:
        table.add_column(str(tried.number), justify="right")
    for name in finished[0].values:
        table.add_row(name, *(str(tried.values[name]) for tried in finished[:_SHOWN]))
    last = [tried.scores[-1] for tried in finished[:_SHOWN]]
    table.add_row("loss", *(f"{score.loss:.4f}" for score in last))
    table.add_row("bytes", *(f"{score.bytes:,.0f}" for score in last))
    return table
