"""`tinymetafed board`: what boards need before they are members of a fleet."""

from pathlib import Path
from typing import Annotated

import typer

from provision import files

board = typer.Typer(
    help="What a board needs: the compiled client and boot.py.",
    no_args_is_help=True,
    add_completion=False,
)


@board.callback()
def _group() -> None:
    """Make Typer keep the name of an only subcommand."""


@board.command("files")
def files_(
    *,
    arch: Annotated[
        str,
        typer.Option(
            help="The processor's architecture: armv6m (RP2040), armv7m (RP2350), xtensawin "
            "(ESP32, ESP32-S2, ESP32-S3) or rv32imc (ESP32-C3, ESP32-C6); x64 or x86 for "
            "MicroPython's unix port."
        ),
    ],
    to: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where to write them; made if need be.")
    ],
) -> None:
    """Write the compiled client and boot.py into a folder, as they will lie on a board.

    A boot.py that is there stays.
    """
    for path in files.write(arch, to):
        typer.echo(f"{path}")
