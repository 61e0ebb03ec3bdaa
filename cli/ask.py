"""Bring a command to a fleet's aggregator, wait for its answer, and say what came of it."""

import secrets
from contextlib import nullcontext
from pathlib import Path

import typer
from rich.console import Console

from cli.settings import OperatorSettings
from protocol.commands import AtOnce, Command
from protocol.progress import Progress
from protocol.spec.spec import Spec
from runtime.errors import RemoteError, SettingsError
from runtime.remote import Remote
from runtime.settings import gather


def settings_of(
    broker: str | None = None,
    username: str | None = None,
    fleet: str | None = None,
    spec: Path | None = None,
    state: Path | None = None,
) -> OperatorSettings:
    """The settings, these flags among them.

    Raises:
        SettingsError: one is unusable.
        SpecError: the spec's file is.
    """
    if fleet is None and spec is not None:  # Else a fleet of the environment would win.
        fleet = Spec.from_file(spec).fleet
    flags = {"broker": broker, "username": username, "fleet": fleet, "spec": spec, "state": state}
    return gather(OperatorSettings, None, flags)


def fleet_of(settings: OperatorSettings) -> str:
    """Which fleet is meant.

    Raises:
        SettingsError: nothing says.
        SpecError: the spec that should cannot be used.
    """
    if settings.fleet is not None:
        return settings.fleet
    if settings.spec is not None:
        return Spec.from_file(settings.spec).fleet
    raise SettingsError("fleet: is missing; give --fleet or --spec, or set TMF_FLEET or TMF_SPEC")


def new_id() -> str:
    """By which a command's answer is known."""
    return secrets.token_hex(8)


def ask(remote: Remote, command: Command, *, seconds: float, wait: bool = True) -> None:
    """Bring a command, wait, print the answer.

    Raises:
        RemoteError: it does not arrive, or no answer comes in time.
        typer.Exit: 0 where it was not waited for; 1 where the aggregator refuses.
    """
    remote.tell(command)
    if not wait:
        typer.echo(
            f"{command.command}: the broker has it; the aggregator carries it out when it can"
        )
        return
    console = Console(stderr=True)
    is_slow = not isinstance(command, AtOnce)
    status = console.status(_waiting(command)) if is_slow and console.is_terminal else None

    def show(progress: Progress) -> None:
        if status is not None:
            status.update(_waiting(command, progress))

    try:
        with status or nullcontext():
            answer = remote.answer(command, seconds, show if is_slow else None)
    except KeyboardInterrupt:
        typer.echo(f"{command.command}: not waited for; the command stays on its way", err=True)
        raise typer.Exit(130) from None
    if answer is None:
        raise RemoteError(_unanswered(remote, command, seconds))
    if not answer.ok:
        typer.echo(f"tinymetafed: {answer.detail}", err=True)
        raise typer.Exit(1)
    typer.echo(answer.detail)


def _waiting(command: Command, progress: Progress | None = None) -> str:
    """What is waited for, as the aggregator says it."""
    text = f"{command.command}: waits until no round is open"
    if progress is None or progress.state != "collecting":
        return text
    return (
        f"{text}; round {progress.round + 1} of {progress.rounds}: "
        f"{progress.answered} of {progress.invited} boards have answered"
    )


def _unanswered(remote: Remote, command: Command, seconds: float) -> str:
    text = (
        f"{command.command}: the broker has the command, but no answer came within {seconds:g} s: "
        f"is the aggregator of fleet {remote.fleet!r} running? It stays queued for it"
    )
    if isinstance(command, AtOnce):
        return text
    return f"{text}, and is carried out once no round is open; --wait gives it more time"
