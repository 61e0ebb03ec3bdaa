"""The page and the picture of `make numerics`."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from simulation.statistics import Estimate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FIXED: Final = "fixed point"
FLOAT: Final = "float64"
CONTRACT: Final = 5
"""Seeds that every network is run with."""


@dataclass(frozen=True)
class Score:
    """Means over held-out tasks, each evaluated after its support samples."""

    loss: float = 0.0
    """Mean squared error, or cross-entropy in nats."""
    accuracy: float = 0.0
    """Share of samples predicted correctly; of classes."""

    @classmethod
    def mean(cls, scores: Sequence[Score]) -> Score:
        """Of each."""
        losses, shares = [score.loss for score in scores], [score.accuracy for score in scores]
        return cls(float(np.mean(losses)), float(np.mean(shares)))


@dataclass
class Outcome:
    """What came of one run of one engine."""

    network: str
    engine: str
    seed: int
    rounds: int
    is_classes: bool
    end: Score = Score()
    """Over the models at the end."""
    curve: list[tuple[int, float]] = field(default_factory=list)
    """Rounds, and the loss after them."""
    last: Score = Score()
    """Of the last model; this and what follows of fixed point only."""
    last_in_float64: Score = Score()
    """Of the same model, reconstructed and asked in float64."""
    saturated: dict[str, int] = field(default_factory=dict)
    """In training, by what."""
    largest_errors: tuple[float, float] = (0.0, 0.0)
    """Of a parameter after a round of either engine from the first and from the last model."""


@dataclass(frozen=True)
class Compared:
    """Fixed point less float64, seed by seed."""

    fixed: float
    """Mean over the seeds."""
    real: float
    """The same of float64."""
    apart: Estimate
    """Of the differences."""

    @classmethod
    def of(cls, fixed: Sequence[float], real: Sequence[float]) -> Compared:
        """Pairs of the same seed."""
        apart = Estimate.of(np.subtract(fixed, real).tolist())
        return cls(float(np.mean(fixed)), float(np.mean(real)), apart)


def page(outcomes: list[Outcome], *, tested: int, versions: int, minutes: float) -> str:
    """The report; outcomes are sorted by network, engine and seed."""
    rows, same, errors = [], [], []
    for network, group in itertools.groupby(outcomes, lambda outcome: outcome.network):
        runs = list(group)
        fixed, real = ([o for o in runs if o.engine == engine] for engine in (FIXED, FLOAT))
        for count in sorted({min(CONTRACT, len(fixed)), len(fixed)}):
            start = f"| {network} | {fixed[0].rounds} | {count} |"
            pairs = [o.end for o in fixed[:count]], [o.end for o in real[:count]]
            rows += _rows(start, *pairs, is_classes=fixed[0].is_classes)
        pairs = [o.last for o in fixed], [o.last_in_float64 for o in fixed]
        start = f"| {network} | {len(fixed)} |"
        same += _rows(start, *pairs, is_classes=fixed[0].is_classes)
        samples = " | ".join(
            f"{sum(outcome.saturated[what] for outcome in fixed):,}"
            for what in ("activations", "errors", "weights")
        )
        first, last = np.max([outcome.largest_errors for outcome in fixed], axis=0)
        errors.append(f"| {network} | {len(fixed)} | {first:.4f} | {last:.4f} | {samples} |")
    return TEXT.format(
        rows="\n".join(rows),
        same="\n".join(same),
        errors="\n".join(errors),
        tested=f"{tested:,}",
        versions=versions,
        minutes=f"{minutes:.0f}",
        cores=os.cpu_count(),
    )


def _rows(
    start: str, fixed: Sequence[Score], real: Sequence[Score], *, is_classes: bool
) -> list[str]:
    """A row for the loss, and one for the accuracy of classes."""
    loss = Compared.of([score.loss for score in fixed], [score.loss for score in real])
    apart, doubt = (100 * part / loss.real for part in (loss.apart.mean, loss.apart.ci95))
    rows = [f"{start} loss | {loss.fixed:.4f} | {loss.real:.4f} | {apart:+.2f} % ± {doubt:.2f} |"]
    if is_classes:
        shares = [[100 * score.accuracy for score in scores] for scores in (fixed, real)]
        share = Compared.of(*shares)
        rows.append(
            f"{start} accuracy | {share.fixed:.2f} % | {share.real:.2f} % | "
            f"{share.apart.mean:+.2f} points ± {share.apart.ci95:.2f} |"
        )
    return rows


TEXT: Final = """# Fixed point against float64

Boards train in 32-bit fixed point. What that costs is measured here against the same training in
float64, on the three networks of `specs/`. This page is written by

    make numerics OMNIGLOT=PATH SPEECH=PATH

which took {minutes} minutes on {cores} cores, shared with other work if there was any; `PATH` is
each data set as it is published.

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
  rounding besides. Float64 neither rounds nor saturates; both
  clip errors where the spec says.
- Held-out tasks are of characters and speakers that no board has learned from: a fifth of each data
  set, chosen by a hash of the name. Sines are drawn anew.
- At the end {tested} held-out tasks are asked, the same for every model: each board starts from the
  seeded local parameters, learns from the support samples in its engine, and is asked the query
  samples. This is done with {versions} models, evenly spaced over the last tenth of the rounds, and
  averaged.
- Two runs of one seed part ways within a few rounds: a rounded bit changes what is sent, and that
  changes what all learn. So a pair differs as two seeds do, either way, and the interval tells what
  five pairs can tell. Sine's runs are short, so more of them are made.

## The same model in either arithmetic

| network | seeds | measure | fixed point | float64 | difference |
| --- | --- | --- | --- | --- | --- |
{same}

Here nothing parts ways: the last model of each fixed-point run is asked the same {tested} tasks by
boards that reconstruct and predict in fixed point, and by others that do so in float64.

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
