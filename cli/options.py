"""What several commands share: flags, some of which say what a setting says of itself."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cli.settings import OperatorSettings
from runtime.settings import Connection


def flag(settings: type[Connection], name: str) -> Any:  # noqa: ANN401 - what typer wants in Annotated
    """The flag of a setting."""
    field = settings.model_fields[name]
    default = field.get_default()  # Shown where it says something.
    shown = (
        f" Default: {default}."
        if isinstance(default, str | tuple | Path) or type(default) is int
        else ""
    )
    return typer.Option(
        f"--{name.replace('_', '-')}", help=f"{field.description}{shown}", show_default=False
    )


Broker = Annotated[str | None, flag(OperatorSettings, "broker")]
Username = Annotated[str | None, flag(OperatorSettings, "username")]
Fleet = Annotated[str | None, flag(OperatorSettings, "fleet")]
SpecFile = Annotated[Path | None, flag(OperatorSettings, "spec")]
State = Annotated[Path | None, flag(OperatorSettings, "state")]

STEERING_SECONDS: Final = 10.0
CHANGING_SECONDS: Final = 600.0
Wait = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for the answer.")]
NoWait = Annotated[
    bool, typer.Option("--no-wait", help="Hand the command to the broker and do not wait.")
]

Data = Annotated[
    Path | None,
    typer.Option(
        help="Omniglot or Speech Commands as published, or a log of your own: CSV or .npy. "
        "Without it, boards learn sines.",
        show_default=False,
    ),
]


def command_line() -> str:
    """The command as it was given, without the machine's paths."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return shlex.join(["tinymetafed", *words])
