"""The page and the picture of `make numerics`."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FIXED: Final = "fixed point"
FLOAT: Final = "float64"
STUDENT: Final = {2: 12.706, 5: 2.776, 20: 2.093}
"""Quantile of 97.5 % of Student's t for the mean of so many differences."""
CONTRACT: Final = 5
"""Seeds that every network is run with."""


@dataclass
class Outcome:
    """What came of one run of one engine; held-out tasks are asked after their support samples."""

    network: str
    engine: str
    seed: int
    rounds: int
    is_classes: bool
    loss: float = 0.0
    """At the end: mean squared error, or cross-entropy in nats."""
    accuracy: float = 0.0
    """At the end, of classes: share of samples told right."""
    curve: list[tuple[int, float]] = field(default_factory=list)
    """Rounds, and the loss after them."""
    saturated: dict[str, int] = field(default_factory=dict)
    """In training, by what; of fixed point."""
    largest_errors: tuple[float, float] = (0.0, 0.0)
    """Of a parameter after a round of either engine from the first and from the last model."""


@dataclass(frozen=True)
class Compared:
    """Fixed point less float64, seed by seed."""

    fixed: float
    """Mean over the seeds."""
    real: float
    """The same of float64."""
    apart: float
    """Mean of the differences."""
    doubt: float
    """Half of the 95 % interval of that mean."""

    @classmethod
    def of(cls, fixed: Sequence[float], real: Sequence[float]) -> Compared:
        """Pairs of the same seed."""
        apart = np.subtract(fixed, real)
        doubt = STUDENT[len(apart)] * apart.std(ddof=1) / math.sqrt(len(apart))
        return cls(float(np.mean(fixed)), float(np.mean(real)), float(apart.mean()), float(doubt))


def page(outcomes: list[Outcome], *, tested: int, versions: int, minutes: float) -> str:
    """The report; outcomes are sorted by network, engine and seed."""
    rows, errors = [], []
    for network, group in itertools.groupby(outcomes, lambda outcome: outcome.network):
        runs = list(group)
        fixed, real = ([o for o in runs if o.engine == engine] for engine in (FIXED, FLOAT))
        for count in sorted({min(CONTRACT, len(fixed)), len(fixed)}):
            rows += _rows(network, fixed[:count], real[:count])
        samples = " | ".join(
            f"{sum(outcome.saturated[what] for outcome in fixed):,}"
            for what in ("activations", "errors", "weights")
        )
        first, last = np.max([outcome.largest_errors for outcome in fixed], axis=0)
        errors.append(f"| {network} | {len(fixed)} | {first:.4f} | {last:.4f} | {samples} |")
    return TEXT.format(
        rows="\n".join(rows),
        errors="\n".join(errors),
        tested=f"{tested:,}",
        versions=versions,
        minutes=f"{minutes:.0f}",
    )


def _rows(network: str, fixed: list[Outcome], real: list[Outcome]) -> list[str]:
    """A row for the loss, and one for the accuracy of classes."""
    start = f"| {network} | {fixed[0].rounds} | {len(fixed)} |"
    loss = Compared.of([o.loss for o in fixed], [o.loss for o in real])
    apart, doubt = 100 * loss.apart / loss.real, 100 * loss.doubt / loss.real
    rows = [f"{start} loss | {loss.fixed:.4f} | {loss.real:.4f} | {apart:+.2f} % ± {doubt:.2f} |"]
    if fixed[0].is_classes:
        share = Compared.of([100 * o.accuracy for o in fixed], [100 * o.accuracy for o in real])
        rows.append(
            f"{start} accuracy | {share.fixed:.2f} % | {share.real:.2f} % | "
            f"{share.apart:+.2f} points ± {share.doubt:.2f} |"
        )
    return rows


TEXT: Final = """# Fixed point against float64

Boards train in 32-bit fixed point. What that costs is measured here against the same training in
float64, on the three networks of `specs/`. This page is written by

    make numerics OMNIGLOT=PATH SPEECH=PATH

which took {minutes} minutes; `PATH` is each data set as it is published.

| network | rounds | seeds | measure | fixed point | float64 | difference |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

The difference is fixed point less float64, the mean over pairs of the same seed, with its 95 %
interval (Student's t); of a loss, relative to float64's. Loss is the mean squared error (sine) or
the cross-entropy in nats.

![loss on held-out tasks over the rounds](numerics.png)

Thin lines are single seeds, thick ones their means.

## How it is measured

- A run is the whole plan of its spec: all rounds, cohort, support and query samples. A seed gives
  both engines the same tasks in the same order; start, codec, aggregation and the server's steps
  are the same code. Only the boards' arithmetic differs, and fixed point draws its stochastic
  rounding besides. Float64 neither rounds, saturates nor clips.
- Held-out tasks are of characters and speakers that no board has learned from: a fifth of each data
  set, chosen by a hash of the name. Sines are drawn anew.
- At the end {tested} held-out tasks are asked, the same for every model: each board starts from the
  seeded local parameters, learns from the support samples in its engine, and is asked the query
  samples. This is done with {versions} models, evenly spaced over the last tenth of the rounds, and
  averaged.
- Two runs of one seed part ways within a few rounds: a rounded bit changes what is sent, and that
  changes what all learn. So a pair differs as two seeds do, either way, and the interval tells what
  five pairs can tell. Sine's runs are short, so more of them are made.

## Errors and saturation

| network | seeds | first model | last model | activations | errors | weights |
| --- | --- | --- | --- | --- | --- | --- |
{errors}

The models' columns are the largest error of a parameter: the difference between the engines after
one round of eight boards that starts from the run's first or last model, over all parameters, local
and global, and all seeds. Weights reach from -8 to 8. The last three columns count values that left
their range in all runs' training and were brought back.

Formats and bounds stand in [engine.md](engine.md#numbers). Nothing wraps, whatever the data: tests
drive every kernel to its extremes. Gradients are clipped where the error format ends, or at the
spec's `clip`.
"""


def draw(outcomes: list[Outcome], path: Path) -> None:
    """Draw the losses over the rounds, a panel a network."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to load

    networks = list(dict.fromkeys(outcome.network for outcome in outcomes))
    figure = Figure(figsize=(4 * len(networks), 3.4), layout="constrained")
    panels = figure.subplots(1, len(networks), squeeze=False)[0]
    for axes, network in zip(panels, networks, strict=True):
        for engine, colour in ((FLOAT, "#e07b39"), (FIXED, "#0b6e99")):
            curves = [o.curve for o in outcomes if (o.network, o.engine) == (network, engine)]
            rounds = [at for at, _ in curves[0]]
            losses = np.array([[loss for _, loss in curve] for curve in curves])
            axes.plot(rounds, losses.T, color=colour, alpha=0.25, linewidth=0.8)
            axes.plot(rounds, losses.mean(axis=0), color=colour, linewidth=2, label=engine)
        axes.set(title=network, xlabel="round", ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("loss on held-out tasks")
    panels[0].legend(frameon=False)
    figure.savefig(path, dpi=110)
