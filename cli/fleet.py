"""`tinymetafed fleet`: tell a fleet's aggregator what to do, and ask how it is doing."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from cli.ask import ask, fleet_of, new_id, settings_of
from cli.options import (
    CHANGING_SECONDS,
    STEERING_SECONDS,
    Broker,
    Fleet,
    NoWait,
    SpecFile,
    Username,
    Wait,
)
from protocol.commands import Apply, Pause, Resume, Stop
from protocol.progress import Progress
from protocol.spec.spec import Spec
from runtime.remote import Remote

fleet = typer.Typer(
    help="Pause, resume or stop a fleet, apply a spec, ask how it is doing.\n\n"
    "Exits with 0 if the aggregator has done it, with 1 if it refuses, and with 2 if it cannot be "
    "reached. The broker keeps a command for an aggregator that is away.",
    no_args_is_help=True,
    add_completion=False,
)


def _steering(kind: type[Pause | Resume | Stop]) -> Callable[..., None]:
    def steer(  # noqa: PLR0913 - one argument a flag
        broker: Broker = None,
        name: Fleet = None,
        spec: SpecFile = None,
        username: Username = None,
        wait: Wait = STEERING_SECONDS,
        *,
        no_wait: NoWait = False,
    ) -> None:
        settings = settings_of(broker, username, name, spec)
        with Remote(settings, fleet_of(settings)) as remote:
            ask(remote, kind(id=new_id()), seconds=wait, wait=not no_wait)

    return steer


for command in (Pause, Resume, Stop):
    fleet.command(command.model_fields["command"].default, help=command.__doc__)(_steering(command))


@fleet.command()
def apply(
    file: Annotated[Path, typer.Argument(metavar="SPEC_FILE", help="The spec to go on by.")],
    broker: Broker = None,
    username: Username = None,
    wait: Wait = CHANGING_SECONDS,
    *,
    no_wait: NoWait = False,
) -> None:
    """Go on by another spec of the same fleet, once no round is open.

    It stays in force until the aggregator is started with a changed spec file.

    A spec with another model or seed begins a lineage of its own.
    """
    fleet_name = Spec.from_file(file).fleet
    settings = settings_of(broker, username, fleet_name)
    command = Apply(id=new_id(), spec=file.read_text(encoding="utf-8"))
    with Remote(settings, fleet_name) as remote:
        ask(remote, command, seconds=wait, wait=not no_wait)


@fleet.command()
def status(
    broker: Broker = None, name: Fleet = None, spec: SpecFile = None, username: Username = None
) -> None:
    """What the aggregator last said of the fleet, which the broker keeps."""
    settings = settings_of(broker, username, name, spec)
    with Remote(settings, fleet_of(settings)) as remote:
        rows = _rows(remote.progress())
    table = Table(show_header=False, title=f"fleet {remote.fleet}")
    table.add_column()
    table.add_column(justify="right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


_NONE: Final = "-"


def _rows(progress: Progress) -> list[tuple[str, str]]:
    """The progress message for people."""
    rejected = progress.rejected
    reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(rejected.items()))
    return [
        ("state", progress.state),
        ("rounds over", f"{progress.round} of {progress.rounds}"),
        ("lineage", progress.lineage),
        ("version", f"{progress.version}"),
        (
            "canary version",
            _NONE if progress.canary_version is None else f"{progress.canary_version}",
        ),
        ("loss of the last round", _real(progress.loss)),
        ("while reconstructing", _real(progress.support_loss)),
        ("accuracy", _real(progress.accuracy)),
        ("boards awake", f"{progress.awake}"),
        ("invited, and answered", f"{progress.invited}, {progress.answered}"),
        ("updates accepted", f"{progress.accepted:,}"),
        ("rejected", reasons or _NONE),
        ("bytes up", f"{progress.bytes_up:,}"),
        ("bytes down", f"{progress.bytes_down:,}"),
        ("deadlines without an answer", f"{progress.empty_deadlines}"),
        ("rounds with drops", f"{progress.degraded_rounds}"),
    ]


def _real(value: float | None) -> str:
    return _NONE if value is None else f"{value:.4g}"
