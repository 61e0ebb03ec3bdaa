"""The experiments by name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from experiments.comparison import page as comparison_page
from experiments.comparison import run as comparison
from experiments.energy import page as energy_page
from experiments.energy import run as energy
from experiments.online import run as online
from experiments.partition import run as partition
from experiments.top_p import run as top_p

if TYPE_CHECKING:
    from collections.abc import Callable

    from experiments.comparison.result import Comparison
    from experiments.harness.report import Report
    from experiments.harness.request import Request
    from experiments.harness.study import Study


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One that can be made."""

    about: str
    """In a line."""
    make: Callable[[Request, Study], Report]
    needs: tuple[str, ...] = ()
    """Data without which there is nothing to do."""
    may: tuple[str, ...] = ()
    """Data with which there is more to do."""


def compare(setup: Comparison, request: Request, study: Study) -> Report:
    """Make a comparison."""
    return comparison_page.report(comparison.run(setup, request, study))


def model_energy(request: Request, study: Study) -> Report:
    """Make the experiment `energy`."""
    return energy_page.report(energy.run(request, study))


EXPERIMENTS: Final[dict[str, Experiment]] = {
    "sine": Experiment(
        about="TinyMetaFed and its baselines on sines", make=partial(compare, comparison.SINE)
    ),
    "omniglot": Experiment(
        about="TinyMetaFed and its baselines on characters, five drawings of each and one",
        make=partial(compare, comparison.OMNIGLOT),
        needs=("omniglot",),
    ),
    "keywords": Experiment(
        about="TinyMetaFed and its baselines on keywords of speakers never met",
        make=partial(compare, comparison.KEYWORDS),
        needs=("keywords",),
    ),
    "partition": Experiment(
        about="which layers stay local, beside full transmission",
        make=partition.make,
        may=("omniglot", "keywords"),
    ),
    "top-p": Experiment(
        about="how much to send, how to choose it, and what an observer learns from it",
        make=top_p.make,
        may=("omniglot",),
    ),
    "energy": Experiment(
        about="modelled energy, time and bytes beside the savings that are claimed",
        make=model_energy,
        may=("omniglot", "keywords"),
    ),
    "online": Experiment(
        about="each sample used once beside stored batches: streams that stay, drift and switch; "
        "memory",
        make=online.make,
        may=("omniglot",),
    ),
}
