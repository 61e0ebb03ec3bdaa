"""The experiments by name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from experiments.comparison import run as compare
from experiments.energy import run as energy
from experiments.online import run as online
from experiments.partition import run as partition
from experiments.top_p import run as top_p

if TYPE_CHECKING:
    from collections.abc import Callable

    from experiments.harness.report import Report
    from experiments.harness.request import Request
    from experiments.harness.study import Study


@dataclass(frozen=True)
class Experiment:
    """One that can be made."""

    about: str
    """In a line."""
    make: Callable[[Request, Study], Report]
    needs: tuple[str, ...] = ()
    """Data without which there is nothing to do."""
    may: tuple[str, ...] = ()
    """Data with which there is more to do."""


EXPERIMENTS: Final[dict[str, Experiment]] = {
    "sine": Experiment(
        "TinyMetaFed and its rivals follow sines", partial(compare.make, compare.SINE)
    ),
    "omniglot": Experiment(
        "TinyMetaFed and its rivals tell characters apart, from five drawings of each and from one",
        partial(compare.make, compare.OMNIGLOT),
        needs=("omniglot",),
    ),
    "keywords": Experiment(
        "TinyMetaFed and its rivals tell keywords of speakers never met",
        partial(compare.make, compare.KEYWORDS),
        needs=("keywords",),
    ),
    "partition": Experiment(
        "which layers stay local, beside full transmission",
        partition.make,
        may=("omniglot", "keywords"),
    ),
    "top-p": Experiment(
        "how much to send, how to choose it, and what an observer learns from it",
        top_p.make,
        may=("omniglot",),
    ),
    "energy": Experiment(
        "modelled energy, time and bytes beside the savings that are claimed",
        energy.make,
        may=("omniglot", "keywords"),
    ),
    "online": Experiment(
        "each sample used once beside stored batches: streams that stay, drift and switch; memory",
        online.make,
        may=("omniglot",),
    ),
}
