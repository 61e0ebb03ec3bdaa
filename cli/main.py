"""The `tinymetafed` command: a table of its subcommands, each imported when it is run."""

import sys
from importlib import import_module
from typing import Any, Final, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from cli.extras import explained, need


class Row(NamedTuple):
    """A subcommand of the table."""

    module: str
    attribute: str
    """A function, or a Typer application with subcommands of its own."""
    about: str
    """What `--help` lists: the first line of its docstring, which would take an import to read."""
    extra: str | None = None
    """Without which it cannot run."""


COMMANDS: Final = {
    "serve": Row("cli.serve", "serve", "Run a fleet's aggregator until it is stopped."),
    "fleet": Row(
        "cli.fleet",
        "fleet",
        "Pause, resume or stop a fleet, apply a spec, ask how it is doing.",
    ),
    "model": Row(
        "cli.model",
        "model",
        "Every version of the model: look at them, export, import, roll back.",
    ),
    "board": Row("cli.board", "board", "What a board needs: the compiled client and boot.py."),
    "spec": Row("cli.spec", "spec", "Print one of the specs that come with the project."),
    "load": Row(
        "cli.load",
        "load",
        "Play boards that answer at once, without training, and count what comes back.",
    ),
    "simulate": Row(
        "cli.simulate",
        "simulate",
        "Simulate a fleet, bit for bit as boards compute and as the aggregator decides.",
    ),
    "experiment": Row(
        "cli.experiment",
        "experiment",
        "Make one of the experiments and write its results, pictures and page.",
        extra="research",
    ),
    "tune": Row(
        "cli.tune",
        "tune",
        "Search a spec's settings and write the spec found, with the evidence.",
        extra="research",
    ),
    "demo": Row(
        "cli.demo",
        "demo",
        "Train a fleet of real boards through a real broker on this machine.",
    ),
}


class LazyGroup(TyperGroup):
    """Lists the table; imports a subcommand once it is the one to run."""

    def __init__(self, **attributes: Any) -> None:  # noqa: ANN401 - Typer's own
        super().__init__(**attributes)
        # What `--help` and the suggestion after a typing error need: names and lines.
        self.commands = {name: TyperCommand(name, help=row.about) for name, row in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - as above
        """The subcommand that the first word names, its name, and the words left."""
        name, found, words = super().resolve_command(ctx, args)
        if name is not None and found is not None:
            extra = COMMANDS[name].extra
            if extra is not None and not set(words) & set(ctx.help_option_names):
                need(extra)
            found = loaded(name)
        return name, found, words


commands = typer.Typer(cls=LazyGroup, no_args_is_help=True, add_completion=False)


@commands.callback()
def tinymetafed() -> None:
    """Federated meta-learning for microcontrollers."""


def loaded(name: str) -> Any:  # noqa: ANN401 - a command, or a group of them
    """The subcommand itself, imported."""
    row = COMMANDS[name]
    found = getattr(import_module(row.module), row.attribute)
    if not isinstance(found, typer.Typer):
        alone = typer.Typer(add_completion=False)
        alone.command(name)(found)
        found = alone
    return typer.main.get_command(found)


def app() -> None:
    """Run the command. Errors of ours are one line on stderr and exit code 2, without traceback."""
    try:
        # Not above: where another project's package is found in place of ours, that is said below.
        from protocol.errors import TinyMetaFedError  # noqa: PLC0415

        try:
            commands()
        except TinyMetaFedError as error:
            _fail(str(error))
    except ImportError as error:
        problem = explained(error)
        if problem is None:
            raise
        _fail(problem)


def _fail(problem: str) -> None:
    print(f"tinymetafed: {problem}", file=sys.stderr)
    sys.exit(2)
