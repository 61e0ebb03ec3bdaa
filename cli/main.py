"""The `tinymetafed` command: one file beside this one per subcommand."""

import sys

import typer

from aggregator.errors import AggregatorError
from cli.demo import demo
from cli.experiment import experiment
from cli.fleet import fleet
from cli.load import load
from cli.model import model
from cli.serve import serve
from cli.simulate import simulate
from cli.tune import tune
from experiments.errors import ExperimentError
from localfleet.errors import LocalFleetError
from protocol.errors import ProtocolError
from runtime.errors import ServiceError
from simulation.errors import SimulationError
from tuning.errors import TuningError

commands = typer.Typer(
    help="Federated meta-learning for microcontrollers.",
    no_args_is_help=True,
    add_completion=False,
)
commands.command()(serve)
commands.command()(demo)
commands.command()(simulate)
commands.command()(experiment)
commands.command()(tune)
commands.command()(load)
commands.add_typer(fleet, name="fleet")
commands.add_typer(model, name="model")


def app() -> None:
    """Run the command. Errors of ours are one line on stderr and exit code 2, without traceback."""
    try:
        commands()
    except (
        *(AggregatorError, ExperimentError, LocalFleetError, ProtocolError),
        *(ServiceError, SimulationError, TuningError),
    ) as error:
        print(f"tinymetafed: {error}", file=sys.stderr)
        sys.exit(2)
