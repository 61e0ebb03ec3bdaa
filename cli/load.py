"""`tinymetafed load`: many boards on one machine, to size a broker and an aggregator."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from localfleet import load as fleet
from runtime.errors import SettingsError
from runtime.settings import MQTT_PORT, Address, parse_address


def load(  # noqa: PLR0913 - one argument a flag
    *,
    boards: Annotated[int, typer.Option(min=1, max=100_000, help="Boards to play.")] = 100,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds to take part in.")] = 1,
    fleet_name: Annotated[str, typer.Option("--fleet", help="The fleet's name.")] = "demo",
    broker: Annotated[
        str, typer.Option(help="The MQTT broker: mqtt://HOST:PORT, HOST:PORT or HOST.")
    ] = str(Address("localhost", MQTT_PORT)),
    connections: Annotated[
        int | None,
        typer.Option(min=1, help="Connections that the boards share.", show_default="one each"),
    ] = None,
    reconnect: Annotated[
        bool,
        typer.Option(
            "--reconnect",
            help="Cut all connections at once when the broker has all of a round's updates.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Play boards that answer at once, without training, and count what comes back.

    A running broker and aggregator are needed. The updates are random: never point this at a fleet
    that is to learn something.
    """
    try:
        address = parse_address(broker)
    except ValueError as error:
        raise SettingsError(f"--broker: {error}") from error
    result = fleet.run(
        address, fleet_name, boards, rounds, connections=connections, reconnect=reconnect
    )
    if as_json:
        typer.echo(result.to_json())
    else:
        Console().print(table(result))


def table(result: fleet.Load) -> Table:
    """What a person reads."""
    shown = Table(show_header=False)
    shown.add_column(justify="left")
    shown.add_column(justify="right")
    for name, value in (
        ("boards", f"{result.boards:,}"),
        ("connections", f"{result.connections:,}"),
        ("rounds", f"{result.rounds:,}"),
        ("updates sent", f"{result.sent:,}"),
        ("acknowledged by the broker", f"{result.acknowledged:,}"),
        ("receipts", f"{result.receipted:,}"),
        ("sent again", f"{result.resent:,}"),
        ("reconnected", f"{result.reconnected:,}"),
        ("seconds", f"{result.seconds:.2f}"),
        ("receipts a second", f"{result.per_second:,.0f}"),
    ):
        shown.add_row(name, value)
    return shown
