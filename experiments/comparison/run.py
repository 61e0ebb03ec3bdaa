"""TinyMetaFed beside its baselines: the experiments `sine`, `omniglot` and `keywords`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from experiments.comparison.result import (
    Comparison,
    ComparisonResult,
    Effort,
    MethodResult,
    Point,
    Repeat,
    SearchRun,
)
from experiments.harness.scenario import Scenario
from experiments.methods.catalogue import METHODS, for_spec
from experiments.methods.runs import MethodRun, MethodSearch, play, search
from simulation.statistics import Estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from experiments.harness.request import Request
    from experiments.harness.study import Outcome, Study

CORE: Final = tuple(name for name, method in METHODS.items() if method.variant_of is None)

SINE: Final = Comparison(
    network="sine",
    title="Sines from 32 samples",
    full=Effort(
        rounds=300,
        search_runs=12,
        search_rounds=300,
        search_repeats=2,
        validation_tasks=200,
        test_tasks=1000,
        curve_tasks=500,
        points=24,
    ),
    quick=Effort(
        rounds=150,
        search_runs=3,
        search_rounds=75,
        validation_tasks=100,
        test_tasks=200,
        curve_tasks=200,
    ),
    repeat=Repeat(
        name="1000-rounds",
        methods=("tinymetafed", "tinyreptile", "tinyreptile/serial"),
        rounds=1000,
    ),
)
_FEW: Final = Effort(
    rounds=40,
    search_runs=2,
    search_rounds=20,
    validation_tasks=100,
    test_tasks=200,
    curve_tasks=100,
    points=4,
)
"""Pictures and sounds take a while."""
OMNIGLOT: Final = Comparison(
    network="omniglot",
    title="Characters: 5 ways, 5 shots and 1",
    full=Effort(
        rounds=300,
        search_runs=8,
        search_rounds=100,
        validation_tasks=200,
        test_tasks=1000,
        curve_tasks=100,
    ),
    quick=_FEW,
    repeat=Repeat(name="1-shot", methods=CORE, shots=1),
)
KEYWORDS: Final = Comparison(
    network="keywords",
    title="Keywords of speakers never met",
    full=Effort(
        rounds=400,
        search_runs=8,
        search_rounds=150,
        validation_tasks=200,
        test_tasks=1000,
        curve_tasks=100,
    ),
    quick=_FEW,
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A method that is to be compared."""

    method: str
    scenario: Scenario
    search_rounds: int
    repeat: str = ""
    """The name of the repeat that it is a part of."""


def run(comparison: Comparison, request: Request, study: Study) -> ComparisonResult:
    """Search each method's settings, and run each with every seed."""
    effort = comparison.quick if request.quick else comparison.full
    scenario = Scenario(comparison.network, effort.rounds, request.data.get(comparison.network))
    entries = [
        Entry(method=name, scenario=scenario, search_rounds=effort.search_rounds)
        for name in for_spec(scenario.spec)
    ]
    if comparison.repeat is not None and not request.quick:
        repeat = comparison.repeat
        other = replace(scenario, shots=repeat.shots, rounds=repeat.rounds or effort.rounds)
        rounds = repeat.rounds or effort.search_rounds
        entries += [
            Entry(method=name, scenario=other, search_rounds=rounds, repeat=repeat.name)
            for name in repeat.methods
        ]
    methods = run_all(study, entries, effort, request.seeds)
    return ComparisonResult(
        comparison=comparison, effort=effort, seeds=request.seeds, methods=tuple(methods)
    )


def run_all(
    study: Study, entries: Sequence[Entry], effort: Effort, seeds: int, title: str = ""
) -> list[MethodResult]:
    """Search each method's settings, and run it with every seed.

    Args:
        study: runs them.
        entries: in the order of what is returned.
        effort: how much is done; an entry says itself how many rounds its runs have.
        seeds: runs of each, with the seeds from 0.
        title: before that of each progress bar.
    """
    found = _searched(study, entries, effort, title)
    runs = [
        MethodRun(
            scenario=entry.scenario,
            method=entry.method,
            settings=best["settings"],
            seed=seed,
            test_tasks=effort.test_tasks,
            points=effort.points,
            curve_tasks=effort.curve_tasks,
        )
        for entry, best in zip(entries, found, strict=True)
        for seed in range(seeds)
    ]
    outcomes = study.run(play, runs, f"{title}runs")
    return [
        MethodResult(
            method=entry.method,
            repeat=entry.repeat,
            scenario=entry.scenario,
            settings=best["settings"],
            search=tuple(SearchRun(**tried) for tried in best["runs"]),
            finals=tuple(outcome["value"] for outcome in outcomes[at : at + seeds]),
            curve=_mean_curve(outcomes[at : at + seeds]),
        )
        for at, entry, best in zip(range(0, len(runs), seeds), entries, found, strict=True)
    ]


def _searched(study: Study, entries: Sequence[Entry], effort: Effort, title: str) -> list[Outcome]:
    """What the search for each entry's settings came to."""
    searches = [
        MethodSearch(
            scenario=replace(entry.scenario, rounds=entry.search_rounds, choosing=True),
            method=entry.method,
            runs=effort.search_runs,
            validation_tasks=effort.validation_tasks,
            repeats=effort.search_repeats,
        )
        for entry in entries
    ]
    # The longest first: at the end nobody waits long for the last.
    order = sorted(range(len(entries)), key=lambda at: -searches[at].scenario.rounds)
    found = study.run(search, [searches[at] for at in order], f"{title}settings")
    by_entry = dict(zip(order, found, strict=True))
    return [by_entry[at] for at in range(len(entries))]


def _mean_curve(runs: Sequence[Outcome]) -> tuple[Point, ...]:
    """Point by point over the seeds."""
    return tuple(
        Point(
            rounds=points[0]["rounds"],
            bytes_up=float(np.mean([point["bytes_up"] for point in points])),
            bytes_down=float(np.mean([point["bytes_down"] for point in points])),
            operations=float(np.mean([point["operations"] for point in points])),
            value=Estimate.of([point["value"] for point in points]),
        )
        for points in zip(*(run["curve"] for run in runs), strict=True)
    )
