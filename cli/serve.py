"""`tinymetafed serve`: run a fleet's aggregator."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from aggregator import drops
from aggregator.journal.journal import Journal
from aggregator.journal.schema import JOURNAL
from aggregator.metrics import Metrics
from aggregator.service import Service
from aggregator.settings import Settings
from cli.options import flag
from protocol.spec.spec import Spec
from protocol.topics import Topics
from runtime import logs
from runtime.settings import gather
from runtime.status import serving
from runtime.transport import Transport


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
    log_format: Annotated[str | None, flag(Settings, "log_format")] = None,
    metrics: Annotated[str | None, flag(Settings, "metrics")] = None,
) -> None:
    """Run a fleet's aggregator until it is stopped.

    Each setting may also come from the environment, as TMF_ and its name in capitals, or from the
    TOML file; flags win over the environment, which wins over the file.
    """
    flags = {
        "spec": spec,
        "broker": broker,
        "username": username,
        "state": state,
        "keep_rounds": keep_rounds,
        "keep_versions": keep_versions,
        "exit_when_done": exit_when_done,
        "log_level": log_level,
        "log_format": log_format,
        "metrics": metrics,
    }
    run(gather(Settings, config, flags))


def run(settings: Settings) -> None:
    """Run an aggregator in this process until SIGTERM or SIGINT.

    Raises:
        SpecError: the spec cannot be used.
        StateError: the journal cannot be used.
        SettingsError: nobody can listen on the address for metrics.
    """
    spec = Spec.from_file(settings.spec)
    logs.to_stderr(settings.log_level, settings.log_format, spec.fleet)
    metrics = Metrics(spec)
    with serving(settings.metrics, metrics, settings.state / JOURNAL.file):
        _run(settings, spec, metrics)


def _run(settings: Settings, spec: Spec, metrics: Metrics) -> None:
    topics = Topics(spec.fleet)
    journal = Journal(
        settings.state, settings.keep_rounds, settings.keep_versions, metrics.committed
    )
    transport = Transport(
        settings,
        f"tmf-aggregator-{spec.fleet}",
        [topics.all_updates, topics.all_states, topics.command],
        [drops.TOPIC],
    )
    try:
        service = Service(journal.start(spec), journal, transport, metrics)
        for stopper in (signal.SIGTERM, signal.SIGINT):
            signal.signal(stopper, lambda *_: service.stop())
        service.run(exit_when_done=settings.exit_when_done)
    finally:
        transport.close()
        journal.close()
