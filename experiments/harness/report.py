"""What an experiment leaves in its folder: results.json, a CSV, pictures, and a page."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from experiments.harness import plots

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from experiments.harness.plots import Plot

Row = dict[str, str | float]
"""A line of a CSV, by column."""


@dataclass
class Report:
    """All of it, before it is written."""

    title: str
    results: dict[str, Any] = field(default_factory=dict)
    """What results.json holds."""
    tables: dict[str, list[Row]] = field(default_factory=dict)
    """A CSV each, by name without ending."""
    plots: list[Plot] = field(default_factory=list)
    summary: tuple[Sequence[str], Sequence[Sequence[str]]] = ((), ())
    """Head and lines of the table that the terminal shows, too; Markdown is left as it is."""
    findings: str = ""
    """Markdown behind the summary and before the pictures: the question, and what was found."""
    protocol: str = ""
    """Markdown behind the pictures: how it was done, in full."""


def write(report: Report, folder: Path, made: Mapping[str, str]) -> Path:
    """Write a report's files, each picture as PNG and SVG.

    Args:
        report: to be written.
        folder: that exists.
        made: facts of how, such as the command and the seeds, in order.

    Returns:
        The page.
    """
    text = json.dumps(report.results, indent=1)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    for name, rows in report.tables.items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    for plot in report.plots:
        plots.draw(plot, folder)
    page = folder / "README.md"
    page.write_text(_page(report, made), encoding="utf-8")
    return page


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table; the first column is text, the others are numbers."""
    ruler = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ruler, *lines])


def _page(report: Report, made: Mapping[str, str]) -> str:
    parts = [f"# {report.title}", "\n".join(f"- {name}: {fact}" for name, fact in made.items())]
    if report.summary[0]:
        parts.append(markdown(*report.summary))
    parts.append(report.findings)
    parts += [f"![{plot.title}]({plot.name}.png)" for plot in report.plots]
    if report.protocol:
        parts.append("## How it was done\n\n" + report.protocol)
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"
