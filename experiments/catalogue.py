"""The experiments by name: each is run, and its result is drawn by its page."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from experiments.comparison import page as comparison_page
from experiments.comparison import run as comparison
from experiments.energy import page as energy_page
from experiments.energy import run as energy
from experiments.online import page as online_page
from experiments.online import run as online
from experiments.partition import page as partition_page
from experiments.partition import run as partition
from experiments.top_p import page as top_p_page
from experiments.top_p import run as top_p

if TYPE_CHECKING:
    from collections.abc import Callable

    from experiments.harness.report import Report
    from experiments.harness.request import Request
    from experiments.harness.study import Study

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Experiment(Generic[Result]):
    """One that can be made."""

    about: str
    """In a line."""
    run: Callable[[Request, Study], Result]
    report: Callable[[Result], Report]
    needs: tuple[str, ...] = ()
    """Data without which there is nothing to do."""
    may: tuple[str, ...] = ()
    """Data with which there is more to do."""

    def make(self, request: Request, study: Study) -> Report:
        """Run it, and draw what came of it."""
        return self.report(self.run(request, study))


EXPERIMENTS: Final[dict[str, Experiment[Any]]] = {
    "sine": Experiment(
        about="TinyMetaFed and its baselines on sines",
        run=partial(comparison.run, comparison.SINE),
        report=comparison_page.report,
    ),
    "omniglot": Experiment(
        about="TinyMetaFed and its baselines on characters, five drawings of each and one",
        run=partial(comparison.run, comparison.OMNIGLOT),
        report=comparison_page.report,
        needs=("omniglot",),
    ),
    "keywords": Experiment(
        about="TinyMetaFed and its baselines on keywords of speakers never met",
        run=partial(comparison.run, comparison.KEYWORDS),
        report=comparison_page.report,
        needs=("keywords",),
    ),
    "partition": Experiment(
        about="which layers stay local, beside full transmission",
        run=partition.run,
        report=partition_page.report,
        may=("omniglot", "keywords"),
    ),
    "top-p": Experiment(
        about="how much to send, how to choose it, and what an observer learns from it",
        run=top_p.run,
        report=top_p_page.report,
        may=("omniglot",),
    ),
    "energy": Experiment(
        about="modelled energy, time and bytes beside the savings that are claimed",
        run=energy.run,
        report=energy_page.report,
        may=("omniglot", "keywords"),
    ),
    "online": Experiment(
        about="each sample used once beside stored batches: streams that stay, drift and switch; "
        "memory",
        run=online.run,
        report=online_page.report,
        may=("omniglot",),
    ),
}
