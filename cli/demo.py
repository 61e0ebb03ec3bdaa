"""``tinymetafed demo``: a fleet of real parts on this machine."""

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cli.extras import need
from localfleet import demo as fleet
from localfleet.processes import need_checkout
from protocol.progress import Progress as FleetProgress


def demo(
    boards: Annotated[int, typer.Option(min=1, max=100, help="MicroPython processes.")] = 8,
    rounds: Annotated[int, typer.Option(min=1, max=100_000, help="Rounds to train.")] = 300,
) -> None:
    """Train a fleet of real boards through a real broker on this machine.

    Exits with 0 only if the fleet has learned.
    """
    need_checkout()
    need("research")  # The picture is drawn at the end.
    console = Console()
    columns = (
        TextColumn("round {task.completed:.0f}/{task.total:.0f}"),
        BarColumn(),
        TextColumn("{task.fields[facts]}"),
        TimeElapsedColumn(),
    )
    try:
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("", total=rounds, facts="starting")

            def show(progress: FleetProgress) -> None:
                bar.update(task, completed=progress.version, facts=_facts(progress))

            summary, history = fleet.run(boards, rounds, show)
    except KeyboardInterrupt:
        typer.echo("demo: stopped; every program it started has ended", err=True)
        raise typer.Exit(130) from None
    picture = fleet.FOLDER / "learning-curve.png"
    fleet.draw(history, picture)
    console.print(_table(summary))
    console.print(f"learning curve {picture}\nsummary        {fleet.FOLDER / 'summary.json'}")
    if not summary.has_learned:
        typer.echo(
            f"demo: the fleet has not learned: loss_last is above {fleet.LEARNED} x loss_first",
            err=True,
        )
        sys.exit(1)


def _facts(progress: FleetProgress) -> str:
    loss = progress.loss
    kilobytes = (progress.bytes_up + progress.bytes_down) / 1000
    return (
        f"loss {'-' if loss is None else format(loss, '.3f')}  "
        f"boards {progress.awake}  {kilobytes:.0f} kB"
    )


def _table(summary: fleet.Summary) -> Table:
    table = Table(show_header=False)
    table.add_column(justify="left")
    table.add_column(justify="right")
    total = summary.bytes_up + summary.bytes_down
    for name, value in (
        ("boards", f"{summary.boards}, every other one with 32-bit MicroPython"),
        ("rounds", f"{summary.rounds}"),
        ("loss, first tenth", f"{summary.loss_first:.3f}"),
        ("loss, last tenth", f"{summary.loss_last:.3f}"),
        ("bytes up", f"{summary.bytes_up:,}"),
        ("bytes down", f"{summary.bytes_down:,}"),
        ("dense float32, both ways", f"{summary.bytes_dense:,}"),
        ("share of dense", f"{100 * total / summary.bytes_dense:.1f} %"),
        ("updates accepted", f"{summary.accepted}"),
        ("updates rejected", f"{summary.rejected}"),
        ("seconds", f"{summary.seconds:.1f}"),
    ):
        table.add_row(name, value)
    return table
