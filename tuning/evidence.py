"""What a search leaves beside the spec: the lines at its head, and a CSV of all settings."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tuning.space import Space
    from tuning.spec_search import Budget, Candidate, SearchResult
    from tuning.verdict import Performance, Verdict


def searched(command: str, space: Space, budget: Budget, found: SearchResult) -> list[str]:
    """How the search was made, and what came of it."""
    runs = [each for each in found.candidates if not each.skipped]
    lines = [
        f"Written by `{command}` on {datetime.now(UTC):%Y-%m-%d}.",
        f"Searched: {', '.join(space.searched)}.",
        (
            f"{len(runs)} runs, {sum(each.is_finished for each in runs)} of them to the end; "
            f"{len(found.candidates) - len(runs)} settings skipped unrun. "
            f"At most {budget.bytes:,} bytes a board."
        ),
    ]
    if found.importances:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in found.importances.items())
        lines.append(f"What mattered: {shares}.")
    return lines


def compared(verdict: Verdict) -> list[str]:
    """What the test says of both specs, and which one is below."""
    lines = [
        "On held-out test tasks, mean and 95 % interval over fresh runs:",
        f"given: {_text(verdict.given)}",
        f"found: {_text(verdict.found)}",
        f"The found one's loss is lower by {verdict.gain.text('.4f')} (paired by run).",
    ]
    if verdict.keeps_given:
        lines.append("That is not beyond the interval: the given spec is kept.")
    elif verdict.given_fits:
        lines.append("That is beyond the interval: below is what was found.")
    else:
        lines.append("The given spec is beyond the budget of bytes: below is what was found.")
    return lines


def _text(one: Performance) -> str:
    accuracy = f", accuracy {one.accuracy.text('.1%')}" if one.accuracy else ""
    return (
        f"loss {one.loss.text('.4f')}{accuracy}, {one.bytes.mean:,.0f} bytes a board, heap "
        f"{one.heap:,.0f}"
    )


def row(candidate: Candidate) -> dict[str, Any]:
    """A setting and how its run did, as a line of the CSV and of ``--json``."""
    last = candidate.scores[-1] if candidate.scores else None
    state = "skipped" if candidate.skipped else "finished" if candidate.is_finished else "given up"
    return {
        "run": candidate.number,
        "state": state,
        **candidate.values,
        "round": last and last.round,
        "loss": last and last.loss,
        "accuracy": last and last.accuracy,
        "bytes": last and last.bytes,
        "reason": candidate.skipped,
    }


def write_runs(path: Path, candidates: Sequence[Candidate]) -> None:
    """Write a CSV with a line for each setting that was run or skipped."""
    rows = [row(each) for each in candidates]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
