"""What `tinymetafed experiment` does: makes one of the experiments and writes what it came to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from experiments.catalogue import EXPERIMENTS
from experiments.errors import ExperimentError
from experiments.harness import report
from experiments.harness.request import Request
from experiments.harness.study import Study
from simulation.tasks.held_out import HOW, network_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from experiments.catalogue import Experiment
    from experiments.harness.report import Report

SEEDS: Final = 5
QUICK_SEEDS: Final = 2


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is wanted of an experiment."""

    name: str
    data: tuple[Path, ...]
    """Data sets as published."""
    seeds: int | None
    """None for SEEDS, or of a quick one QUICK_SEEDS."""
    quick: bool
    """Whether to do less of all, for a first look."""
    fresh: bool
    """Whether runs are made anew that were kept before."""
    out: Path
    """The folder for all experiments' folders."""
    processes: int
    """Runs at a time."""
    command: str
    """As the page says how it was made."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What it came to."""

    report: Report
    page: Path


def make(settings: Settings, console: Console) -> Result:
    """Make an experiment and write its results, pictures and page.

    Runs are kept: what Ctrl-C interrupts goes on where it was.

    Args:
        settings: of it.
        console: where progress is shown.

    Raises:
        ExperimentError: there is no such experiment, data are missing or of no use, or a process
            died.
        SimulationError: the data are not what they should be.
    """
    experiment = EXPERIMENTS.get(settings.name)
    if experiment is None:
        known = "\n".join(f"  {name:10} {each.about}" for name, each in EXPERIMENTS.items())
        raise ExperimentError(f"there is no experiment {settings.name!r}; there are\n{known}")
    request = Request(
        data=_data(settings.name, experiment, settings.data),
        seeds=settings.seeds or (QUICK_SEEDS if settings.quick else SEEDS),
        quick=settings.quick,
    )
    folder = settings.out / (f"{settings.name}-quick" if settings.quick else settings.name)
    with Study(folder, settings.processes, console, fresh=settings.fresh) as study:
        made = experiment.make(request, study)
    facts = {
        "command": f"`{settings.command}`",
        "seeds": str(request.seeds),
        "date": f"{study.started:%Y-%m-%d}",
        "commit": ", ".join([study.commit, *sorted(study.commits - {study.commit})]),
        "processor time": f"{study.processor_seconds / 60:.0f} minutes",
    }
    return Result(report=made, page=report.write(made, folder, facts))


def _data(name: str, experiment: Experiment[Any], paths: Sequence[Path]) -> dict[str, Path]:
    """Where each data set lies, by the spec that learns from it."""
    found = {network_of(path): path for path in paths}
    for network in found.keys() - {*experiment.needs, *experiment.may}:
        raise ExperimentError(f"{name} has no use for --data {found[network]} ({network})")
    for network in experiment.needs:
        if network not in found:
            raise ExperimentError(f"{name} needs --data PATH: {HOW[network]}")
    return found
