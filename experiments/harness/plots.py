"""Pictures of curves: readable in print without colour, and on a phone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axis import Axis

COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Distinct to colour-blind readers, too: Okabe and Ito, "Color Universal Design", 2008."""
MARKERS: Final = "osD^vPX"
DASHES: Final = ("-", "--", "-.", ":")
SIZE: Final = (6.4, 5.6)
"""Inches: a column of a page, or a phone held upright."""


@dataclass(frozen=True)
class Series:
    """A curve; two of the same length, and the half widths of its intervals, if known."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    ci95: Sequence[float] | None = None


@dataclass(frozen=True)
class Plot:
    """A picture; ``name`` is that of its files."""

    name: str
    title: str
    x: str
    y: str
    series: Sequence[Series]
    log_x: bool = False
    log_y: bool = False


def draw(plot: Plot, folder: Path) -> None:
    """Write a picture as PNG and as SVG."""
    from matplotlib import rc_context  # noqa: PLC0415 - slow to load
    from matplotlib.figure import Figure  # noqa: PLC0415

    # Text stays text in an SVG, and its ids do not change from run to run.
    with rc_context({"font.size": 12, "svg.fonttype": "none", "svg.hashsalt": plot.name}):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        for number, series in enumerate(plot.series):
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(
                series.x,
                series.y,
                color=colour,
                linestyle=DASHES[number // len(COLOURS) % len(DASHES)],
                marker=MARKERS[number % len(MARKERS)],
                markersize=5,
                label=series.name,
            )
            if series.ci95 is not None:
                low = [y - width for y, width in zip(series.y, series.ci95, strict=True)]
                high = [y + width for y, width in zip(series.y, series.ci95, strict=True)]
                axes.fill_between(series.x, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_title(plot.title, fontsize=13, loc="left")
        axes.set_xlabel(plot.x)
        axes.set_ylabel(plot.y)
        if plot.log_x:
            axes.set_xscale("log")
            _label(axes.xaxis)
        if plot.log_y:
            axes.set_yscale("log")
            _label(axes.yaxis)
        axes.grid(visible=True, alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
        for ending in ("png", "svg"):
            # Without a date the same figures give the same file.
            facts = {"Date": None} if ending == "svg" else {}
            figure.savefig(folder / f"{plot.name}.{ending}", dpi=160, metadata=facts)


def _label(axis: Axis) -> None:
    """Plain numbers on a logarithmic axis, close enough for one of less than a decade."""
    from matplotlib.ticker import (  # noqa: PLC0415
        FuncFormatter,
        LogLocator,
        MaxNLocator,
        NullLocator,
    )

    low, high = axis.get_view_interval()
    if high / low < 5:
        axis.set_major_locator(MaxNLocator(5))
    else:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1000 else (1,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
