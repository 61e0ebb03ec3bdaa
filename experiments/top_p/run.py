"""How much a board should send: P, how it chooses, feedback, widths, and what it reveals."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, get_args

from experiments.harness.scenario import Scenario
from experiments.methods.results import compare
from experiments.methods.selections import Baseline
from experiments.methods.settings import Setting, tune
from experiments.top_p import observer
from experiments.top_p.result import Comparison, Entry, TargetCost, TopPResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from experiments.harness.request import Request
    from experiments.harness.study import Study
    from experiments.methods.results import SettingResult

BASELINES: Final[tuple[Baseline, ...]] = get_args(Baseline)
MARGIN: Final = 0.1
"""The target is what P = 100 ends at, with this share more loss, or less accuracy."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is done for a network."""

    rounds: int
    tasks: int
    """Held-out tasks at the end of a run."""
    points: int
    """Of a run's curve."""
    most_seeds: int
    percents: tuple[int, ...]
    """Every P; 100 is among them."""
    baseline_percents: tuple[int, ...]
    """Those of them at which the baselines are run."""
    steps: tuple[float, ...] = ()
    """Factors of the server's step, of which each setting has its best; none: the spec's step."""
    combined: bool = False
    """Whether baselines are run with feedback, too, and Top-P with other widths and more down."""


STEPS: Final = (1 / 3, 1.0, 3.0, 10.0)
FULL: Final = {
    "sine": Effort(
        rounds=200,
        tasks=1000,
        points=15,
        most_seeds=100,
        percents=(1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100),
        baseline_percents=(2, 10),
        steps=STEPS,
        combined=True,
    ),
    "omniglot": Effort(
        rounds=60,
        tasks=300,
        points=8,
        most_seeds=3,
        percents=(2, 10, 100),
        baseline_percents=(10,),
    ),
}
QUICK: Final = {
    "sine": Effort(
        rounds=40,
        tasks=60,
        points=4,
        most_seeds=100,
        percents=(1, 10, 100),
        baseline_percents=(10,),
        steps=STEPS[:2],
        combined=True,
    ),
    "omniglot": Effort(
        rounds=10,
        tasks=60,
        points=4,
        most_seeds=1,
        percents=(1, 10, 100),
        baseline_percents=(10,),
    ),
}


def run(request: Request, study: Study) -> TopPResult:
    """Run all settings on sines, and some on characters where there are any."""
    efforts = QUICK if request.quick else FULL
    seeds = {name: min(request.seeds, effort.most_seeds) for name, effort in efforts.items()}
    comparisons = []
    for network in ("sine", *request.data):
        effort = efforts[network]
        scenario = Scenario(network=network, rounds=effort.rounds, data=request.data.get(network))
        settings = _settings(scenario, effort)
        if effort.steps:
            choices = [(1.0, step) for step in effort.steps]
            settings = tune(study, settings, choices, effort.rounds // 2)
        results = compare(study, settings, seeds[network], network)
        comparisons.append(comparison_of(results, effort))
    return TopPResult(comparisons=comparisons, observer=observer.observe(request, study, seeds))


def _settings(scenario: Scenario, effort: Effort) -> list[Setting]:
    base = Setting(scenario=scenario, tasks=effort.tasks, points=effort.points)
    settings = [replace(base, percent=float(percent)) for percent in effort.percents]
    for percent in effort.baseline_percents:
        top = replace(base, percent=float(percent))
        settings.append(replace(top, feedback=True))
        for baseline in BASELINES:
            settings.append(replace(top, baseline=baseline))
            if effort.combined:
                settings.append(replace(top, baseline=baseline, feedback=True))
    if effort.combined:
        settings.append(replace(base, percent=100.0, percent_down=100.0))
        settings += [
            replace(base, percent=10.0, bits=bits, feedback=feedback)
            for bits in (4, 16)
            for feedback in (False, True)
        ]
    return settings


def comparison_of(results: Sequence[SettingResult], effort: Effort) -> Comparison:
    """The settings of one network beside each other; P = 100 is among them."""
    scenario = results[0].setting.scenario
    is_loss = scenario.metric == "loss"
    full = next(result for result in results if result.setting.percent == 100.0)
    target = full.value.mean * (1 + MARGIN if is_loss else 1 - MARGIN)
    return Comparison(
        scenario=scenario,
        entries=[
            Entry(result=result, to_target=_to_target(result, target, is_loss=is_loss))
            for result in results
        ],
        target=target,
        margin=MARGIN,
        tasks=effort.tasks,
        points=effort.points,
        seeds=len(full.runs),
        is_tuned=bool(effort.steps),
    )


def _to_target(result: SettingResult, target: float, *, is_loss: bool) -> TargetCost:
    """By the first point of each seed's curve that is as good as the target."""
    firsts = [
        next(
            (
                point
                for point in run.curve
                if (point.value <= target if is_loss else point.value >= target)
            ),
            None,
        )
        for run in result.runs
    ]
    reached = [first for first in firsts if first is not None]
    if not reached:
        return TargetCost(rounds=None, bytes=None, seeds=0)
    return TargetCost(
        rounds=sum(point.rounds for point in reached) / len(reached),
        bytes=sum(point.bytes for point in reached) / len(reached),
        seeds=len(reached),
    )
