"""`tinymetafed experiment`: the paper's experiments, each with its rivals, in this process."""

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from cli.options import command_line
from experiments.errors import ExperimentError
from simulation.tasks.held_out import HOW, network_of

if TYPE_CHECKING:
    from experiments.catalogue import Experiment

FOLDER = Path("build") / "experiments"
SEEDS, QUICK_SEEDS = 5, 2


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
        typer.Option(
            min=1,
            max=100,
            help="Runs of each setting.",
            show_default=f"{SEEDS}; quick: {QUICK_SEEDS}",
        ),
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
    from experiments.catalogue import EXPERIMENTS  # noqa: PLC0415
    from experiments.harness import report  # noqa: PLC0415
    from experiments.harness.request import Request  # noqa: PLC0415
    from experiments.harness.study import Study  # noqa: PLC0415

    chosen = EXPERIMENTS.get(name)
    if chosen is None:
        known = "\n".join(f"  {name:10} {each.about}" for name, each in EXPERIMENTS.items())
        raise ExperimentError(f"there is no experiment {name!r}; there are\n{known}")
    request = Request(
        _data(name, chosen, data or []), seeds or (QUICK_SEEDS if quick else SEEDS), quick
    )
    folder = out / (f"{name}-quick" if quick else name)
    console = Console(stderr=True, highlight=False)
    start = time.monotonic()
    # Who ends this process means its runs, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Study(folder, processes or os.cpu_count() or 1, console, fresh=fresh) as study:
        try:
            done = chosen.make(request, study)
        except KeyboardInterrupt:
            typer.echo("experiment: stopped; the same command goes on from here", err=True)
            raise typer.Exit(130) from None
    made = {
        "command": f"`{command_line()}`",
        "seeds": str(request.seeds),
        "date": f"{study.started:%Y-%m-%d}",
        "commit": ", ".join([study.commit, *sorted(study.commits - {study.commit})]),
        "processor time": f"{study.processor_seconds / 60:.0f} minutes",
    }
    page = report.write(done, folder, made)
    head, lines = done.summary
    table = Table(title=done.title)
    for number, column in enumerate(head):
        table.add_column(column, justify="right" if number else "left")
    for line in lines:
        table.add_row(*line)
    Console().print(table)
    console.print(f"{page}  ({time.monotonic() - start:.0f} s)")


def _data(name: str, chosen: "Experiment", paths: list[Path]) -> dict[str, Path]:
    """Where each data set lies, by the spec that learns from it."""
    found = {network_of(path): path for path in paths}
    for network in found.keys() - {*chosen.needs, *chosen.may}:
        raise ExperimentError(f"{name} has no use for --data {found[network]} ({network})")
    for network in chosen.needs:
        if network not in found:
            raise ExperimentError(f"{name} needs --data PATH: {HOW[network]}")
    return found
