"""TinyMetaFed beside its rivals: the experiments `sine`, `omniglot` and `keywords`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from experiments.comparison import page
from experiments.harness.report import Estimate, Report
from experiments.harness.scenario import Scenario
from experiments.methods.catalogue import METHODS, for_spec
from experiments.methods.trials import Search, Trial, play, search

if TYPE_CHECKING:
    from collections.abc import Sequence

    from experiments.harness.report import Row
    from experiments.harness.request import Request
    from experiments.harness.study import Outcome, Study
    from experiments.methods.catalogue import Settings

CORE: Final = tuple(name for name in METHODS if "/" not in name)


@dataclass(frozen=True)
class Effort:
    """How much is done."""

    rounds: int
    trials: int
    """Of the search for each method's settings."""
    trial_rounds: int
    judged: int
    """Held-out tasks that judge a trial."""
    tested: int
    """Held-out tasks that judge a run at its end."""
    asked: int
    """Those of them that are asked at the curve's points."""
    points: int = 12
    trial_runs: int = 1
    """Of each trial, with seeds of their own."""


@dataclass(frozen=True)
class Again:
    """Some methods once more, with other samples or rounds; settings are searched anew."""

    suffix: str
    """Of the methods' names in results.json."""
    methods: tuple[str, ...]
    shots: int | None = None
    rounds: int | None = None
    """Of runs and of trials."""


@dataclass(frozen=True)
class Comparison:
    """One of the three experiments."""

    network: str
    title: str
    full: Effort
    quick: Effort
    again: Again | None = None
    """Not made in a quick one."""


SINE: Final = Comparison(
    "sine",
    "Sines from 32 samples",
    Effort(300, 12, 300, 200, tested=1000, asked=500, points=24, trial_runs=2),
    Effort(150, 3, 75, 100, tested=200, asked=200),
    Again("1000-rounds", ("tinymetafed", "tinyreptile", "tinyreptile/serial"), rounds=1000),
)
OMNIGLOT: Final = Comparison(
    "omniglot",
    "Characters: 5 ways, 5 shots and 1",
    Effort(300, 8, 100, 200, tested=1000, asked=100),
    Effort(40, 2, 20, 100, tested=200, asked=100, points=4),
    Again("1-shot", CORE, shots=1),
)
KEYWORDS: Final = Comparison(
    "keywords",
    "Keywords of speakers never met",
    Effort(400, 8, 150, 200, tested=1000, asked=100),
    Effort(40, 2, 20, 100, tested=200, asked=100, points=4),
)


@dataclass(frozen=True)
class Point:
    """A method after some rounds: means over seeds."""

    rounds: int
    bytes_up: float
    """Of all boards."""
    bytes_down: float
    operations: float
    value: Estimate

    @property
    def bytes(self) -> float:
        """Both ways."""
        return self.bytes_up + self.bytes_down


@dataclass(frozen=True)
class Compared:
    """What came of a method's runs."""

    name: str
    """As results.json has it."""
    method: str
    settings: Settings
    trials: Sequence[tuple[Settings, float]]
    runs: Sequence[Outcome]
    """One a seed."""
    scenario: Scenario

    @property
    def value(self) -> Estimate:
        """Of the last models."""
        return Estimate.of([run["value"] for run in self.runs])

    def mean(self, what: str) -> float:
        """Of a figure of the runs."""
        return float(np.mean([run[what] for run in self.runs]))

    @property
    def curve(self) -> list[Point]:
        """From the first rounds to the end."""
        curve = []
        for points in zip(*(run["curve"] for run in self.runs), strict=True):
            up, down, operations = (float(np.mean([p[at] for p in points])) for at in (1, 2, 3))
            value = Estimate.of([point[4] for point in points])
            curve.append(Point(points[0][0], up, down, operations, value))
        return curve

    def first(self, target: float) -> Point | None:
        """The first point of the curve that is as good as the target."""
        is_loss = self.scenario.metric == "loss"
        good = (
            point
            for point in self.curve
            if (point.value.mean <= target if is_loss else point.value.mean >= target)
        )
        return next(good, None)


@dataclass(frozen=True)
class Plan:
    """A method that is to be compared."""

    name: str
    """As results.json has it."""
    method: str
    scenario: Scenario
    trial_rounds: int


def play_all(
    study: Study, plans: Sequence[Plan], effort: Effort, seeds: int, title: str = ""
) -> list[Compared]:
    """Search each method's settings, and run it with every seed."""
    searches = [
        Search(
            replace(plan.scenario, rounds=plan.trial_rounds, choosing=True),
            *(plan.method, effort.trials, effort.judged, effort.trial_runs),
        )
        for plan in plans
    ]
    # The longest first: at the end nobody waits long for the last.
    order = sorted(range(len(plans)), key=lambda at: -searches[at].scenario.rounds)
    made = study.run(search, [searches[at] for at in order], f"{title}settings")
    found = [made[order.index(at)] for at in range(len(plans))]
    trials = [
        Trial(
            *(plan.scenario, plan.method, best["settings"], seed),
            *(effort.tested, effort.points, effort.asked),
        )
        for plan, best in zip(plans, found, strict=True)
        for seed in range(seeds)
    ]
    outcomes = study.run(play, trials, f"{title}runs")
    return [
        Compared(
            *(plan.name, plan.method, best["settings"], best["trials"]),
            outcomes[at * seeds : (at + 1) * seeds],
            plan.scenario,
        )
        for at, (plan, best) in enumerate(zip(plans, found, strict=True))
    ]


def make(comparison: Comparison, request: Request, study: Study) -> Report:
    """Search each method's settings, run each with every seed, and sum it up."""
    effort = comparison.quick if request.quick else comparison.full
    scenario = Scenario(comparison.network, effort.rounds, request.data.get(comparison.network))
    plans = [Plan(name, name, scenario, effort.trial_rounds) for name in for_spec(scenario.spec)]
    if comparison.again and not request.quick:
        again = comparison.again
        other = replace(scenario, shots=again.shots, rounds=again.rounds or effort.rounds)
        plans += [
            Plan(f"{name}/{again.suffix}", name, other, again.rounds or effort.trial_rounds)
            for name in again.methods
        ]
    compared = play_all(study, plans, effort, request.seeds)
    return Report(
        comparison.title,
        results={each.name: result_of(each) for each in compared},
        tables=_tables(compared),
        plots=page.plots(compared),
        summary=page.summary(compared),
        findings=page.findings(compared),
        protocol=page.protocol(comparison, effort, request.seeds, compared),
    )


def result_of(compared: Compared) -> dict[str, Any]:
    """In the form of results.json."""
    value = compared.value
    return {
        compared.scenario.metric: {"mean": value.mean, "ci95": value.ci95},
        "bytes_up": round(compared.mean("bytes_up")),
        "bytes_down": round(compared.mean("bytes_down")),
        "operations": round(compared.mean("operations")),
        "rounds": compared.runs[0]["rounds"],
        "curve": [[p.rounds, round(p.bytes), p.value.mean] for p in compared.curve],
    }


def _tables(compared: Sequence[Compared]) -> dict[str, list[Row]]:
    results: list[Row] = []
    curves: list[Row] = []
    runs: list[Row] = []
    trials: list[Row] = []
    for each in compared:
        metric, value = each.scenario.metric, each.value
        costs = {name: round(each.mean(name)) for name in page.COSTS}
        results.append({"method": each.name, metric: value.mean, "ci95": value.ci95, **costs})
        curves += [
            {
                "method": each.name,
                "rounds": p.rounds,
                "bytes_up": p.bytes_up,
                "bytes_down": p.bytes_down,
                "operations": p.operations,
                metric: p.value.mean,
                "ci95": p.value.ci95,
            }
            for p in each.curve
        ]
        runs += [
            {"method": each.name, "seed": seed, metric: run["value"]}
            for seed, run in enumerate(each.runs)
        ]
        trials += [
            {"method": each.name, metric: judged, **settings} for settings, judged in each.trials
        ]
    return {"results": results, "curves": curves, "runs": runs, "trials": trials}
