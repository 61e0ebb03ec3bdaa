"""`tinymetafed experiment`: the paper's experiments, each with its baselines, in this process."""

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from cli.options import command_line

if TYPE_CHECKING:
    from experiments.harness.report import Report

FOLDER = Path("build") / "experiments"


def experiment(  # noqa: PLR0913 - one argument a flag
    *,
    name: Annotated[
        str,
        typer.Argument(
            help="sine, omniglot, keywords, partition, top-p, online or energy; any other word "
            "says what each of them is."
        ),
    ],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="A data set as published, Omniglot or Speech Commands; may be given twice.",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, max=100, help="Runs of each setting.", show_default="5; quick: 2"),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Less of all, for a first look.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Make runs anew that were kept before.")
    ] = False,
    out: Annotated[Path, typer.Option(help="The folder for all experiments' folders.")] = FOLDER,
    processes: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Runs at a time.", show_default="one a core"),
    ] = None,
) -> None:
    """Make one of the experiments and write its results, pictures and page.

    It can be stopped by Ctrl-C; the same command goes on.
    """
    # Only here are all experiments needed: the service starts without them.
    from experiments.experiment import Settings, make  # noqa: PLC0415

    settings = Settings(
        name=name,
        data=tuple(data or ()),
        seeds=seeds,
        quick=quick,
        fresh=fresh,
        out=out,
        processes=processes or os.cpu_count() or 1,
        command=command_line(),
    )
    console = Console(stderr=True, highlight=False)
    start = time.monotonic()
    # Who ends this process means its runs, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        result = make(settings, console)
    except KeyboardInterrupt:
        typer.echo("experiment: stopped; the same command goes on from here", err=True)
        raise typer.Exit(130) from None
    Console().print(_table(result.report))
    console.print(f"{result.page}  ({time.monotonic() - start:.0f} s)")


def _table(report: "Report") -> Table:
    head, lines = report.summary
    table = Table(title=report.title)
    for number, column in enumerate(head):
        table.add_column(column, justify="right" if number else "left")
    for line in lines:
        table.add_row(*line)
    return table
