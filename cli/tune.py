"""`tinymetafed tune`: which settings of a spec learn best from these data within a byte budget."""

import json
import os
import signal
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cli.options import Data, command_line

if TYPE_CHECKING:
    from tuning.space import Space
    from tuning.spec_search import Budget, Candidate, SearchResult
    from tuning.tune import Result

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
    runs: Annotated[int, typer.Option(min=1, help="Runs at most, each with other settings.")] = 200,
    fix: Annotated[
        str,
        typer.Option(
            help="What stays as it is, with commas between: percent, percent_down, rate_local, "
            "rate_global, step_max, support, query, local, optimizer.",
        ),
    ] = "support",
    boards: Annotated[
        int | None,
        typer.Option(min=1, help="Boards of the fleet.", show_default="as a round invites"),
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
    from tuning import tune as tuning  # noqa: PLC0415 - other commands do without

    # Who ends this process means its runs, too, and wants what they found.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settings = tuning.Settings(
        spec=spec,
        data=data,
        bytes=bytes_,
        seconds=60 * minutes,
        runs=runs,
        fixed=tuple(name.strip() for name in fix.split(",") if name.strip()),
        boards=boards,
        seeds=seeds,
        seed=seed,
        processes=processes or os.cpu_count() or 1,
        out=out,
        command=command_line(),
    )
    console = Console(stderr=True, highlight=False)
    with _Display(console, as_json=as_json) as display:
        result = tuning.tune(settings, display)
    if result.chosen is None:
        typer.echo("tune: stopped before the first run was over; nothing is written", err=True)
        raise typer.Exit(130)
    if as_json:
        typer.echo(json.dumps({"summary": _summary(result)}))
    else:
        Console().print(_table(result.search))
        typer.echo("\n".join(result.evidence[2:]))
    console.print(str(out))
    if result.was_interrupted:
        raise typer.Exit(130)


class _Display:
    """A bar of the runs and the best loss; with JSON, a line a run, too."""

    def __init__(self, console: Console, *, as_json: bool) -> None:
        facts = TextColumn("{task.fields[best]}")
        columns = (TextColumn("{task.completed} runs"), BarColumn(), facts, TimeElapsedColumn())
        self._console = console
        self._bar = Progress(*columns, console=console)
        self._task = self._bar.add_task("", total=None, best="")
        self._lowest = float("inf")
        self._as_json = as_json

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begins(self, space: "Space", budget: "Budget") -> None:
        """The search begins."""
        self._console.print(
            f"{', '.join(space.searched)} are searched; a board takes {space.samples} samples a "
            f"round and at most {budget.bytes:,} bytes in {space.given.rounds.count:,} rounds."
        )
        self._bar.update(self._task, total=budget.runs)
        self._bar.start()

    def ended(self, candidate: "Candidate") -> None:
        """A run has ended or was given up."""
        from tuning.evidence import row  # noqa: PLC0415 - other commands do without

        if candidate.is_finished:
            self._lowest = min(self._lowest, candidate.scores[-1].loss)
        self._bar.update(self._task, advance=1, best=f"best loss {self._lowest:.4f}")
        if self._as_json:
            typer.echo(json.dumps(row(candidate)))

    def compares(self, seeds: int) -> None:
        """So many fresh runs of each spec begin."""
        self._bar.stop()
        self._console.print(f"comparing both specs on held-out tasks, {seeds} fresh runs each")


def _summary(result: "Result") -> dict[str, Any]:
    """The last line of JSON."""
    summary: dict[str, Any] = {
        "kept_given": result.keeps_given,
        "values": result.values,
        "importances": result.search.importances,
    }
    if result.verdict is not None:
        summary["gain"] = asdict(result.verdict.gain)
        summary["given"] = asdict(result.verdict.given)
        summary["found"] = asdict(result.verdict.found)
    return summary


def _table(found: "SearchResult") -> Table:
    finished = sorted(
        (each for each in found.candidates if each.is_finished),
        key=lambda each: each.scores[-1].loss,
    )
    # A column a run: with one a setting, a terminal of 80 characters would cut the numbers short.
    table = Table(title="The best, by the validation tasks")
    table.add_column("run")
    for each in finished[:_SHOWN]:
        table.add_column(str(each.number), justify="right")
    for name in finished[0].values:
        table.add_row(name, *(str(each.values[name]) for each in finished[:_SHOWN]))
    last = [each.scores[-1] for each in finished[:_SHOWN]]
    table.add_row("loss", *(f"{score.loss:.4f}" for score in last))
    table.add_row("bytes", *(f"{score.bytes:,.0f}" for score in last))
    return table
