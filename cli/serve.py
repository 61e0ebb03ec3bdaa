"""`tinymetafed serve`: run a fleet's aggregator."""

import logging
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler

from aggregator.journal import Journal
from aggregator.service import Service
from aggregator.settings import Settings, load
from aggregator.transport import Transport
from cli.options import flag
from protocol.spec import Spec
from protocol.topics import Topics


def serve(  # noqa: PLR0913 - one argument a setting
    *,
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file with settings, or TMF_CONFIG.")
    ] = None,
    spec: Annotated[Path | None, flag(Settings, "spec")] = None,
    broker: Annotated[str | None, flag(Settings, "broker")] = None,
    username: Annotated[str | None, flag(Settings, "username")] = None,
    state: Annotated[Path | None, flag(Settings, "state")] = None,
    keep_rounds: Annotated[int | None, flag(Settings, "keep_rounds")] = None,
    keep_versions: Annotated[int | None, flag(Settings, "keep_versions")] = None,
    exit_when_done: Annotated[bool | None, flag(Settings, "exit_when_done")] = None,
    log_level: Annotated[str | None, flag(Settings, "log_level")] = None,
) -> None:
    """Run a fleet's aggregator until it is stopped.

    Each setting may also come from the environment, as TMF_ and its name in capitals, or from the
    TOML file; flags win over the environment, which wins over the file.
    """
    given = {
        "spec": spec,
        "broker": broker,
        "username": username,
        "state": state,
        "keep_rounds": keep_rounds,
        "keep_versions": keep_versions,
        "exit_when_done": exit_when_done,
        "log_level": log_level,
    }
    flags = {name: value for name, value in given.items() if value is not None}
    settings = load(config, flags)
    _log_to_stderr(settings.log_level)
    run(settings)


def run(settings: Settings) -> None:
    """Run an aggregator in this process until SIGTERM or SIGINT.

    Raises:
        SpecError: the spec cannot be used.
        JournalError: the journal cannot be used.
    """
    spec = Spec.from_file(settings.spec)
    topics = Topics(spec.fleet)
    journal = Journal(settings.state, settings.keep_rounds, settings.keep_versions)
    transport = Transport(
        settings.broker,
        f"tmf-aggregator-{spec.fleet}",
        [topics.all_updates, topics.all_states, topics.command],
        settings.username,
        settings.password.get_secret_value() if settings.password else None,
    )
    try:
        service = Service(journal.start(spec), journal, transport)
        for stopper in (signal.SIGTERM, signal.SIGINT):
            signal.signal(stopper, lambda *_: service.stop())
        service.run(exit_when_done=settings.exit_when_done)
    finally:
        transport.close()
        journal.close()


def _log_to_stderr(level: str) -> None:
    handler: logging.Handler
    if sys.stderr.isatty():
        handler = RichHandler(console=Console(stderr=True), show_path=False)
        line = "%(message)s"
    else:
        handler = logging.StreamHandler()
        line = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=level.upper(), handlers=[handler], format=line)
