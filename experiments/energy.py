"""Modelled energy and time of TinyMetaFed beside three others: the experiment `energy`.

Bytes, operations and what was learned are from runs; joules and seconds are from a model
(experiments/power.py), by rounds that are equal and by what is learned that is equal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from experiments import energy_page as page
from experiments.power import CHIPS, LINK, Work, total
from experiments.report import Estimate, Report
from experiments.scenario import Scenario
from experiments.trials import Search, Trial, play, search

if TYPE_CHECKING:
    from collections.abc import Sequence

    from experiments.catalogue import Request
    from experiments.methods import Settings
    from experiments.power import Chip, Cost, Link
    from experiments.report import Row
    from experiments.study import Outcome, Study

OURS: Final = "tinymetafed"
METHODS: Final = (OURS, "tinymetafed/no-top-p", "tinyreptile", "fedavg")
MESSAGES: Final = {OURS: 4, "tinymetafed/no-top-p": 4, "tinyreptile": 2, "fedavg": 2}
"""MQTT packets of a board's round each way.

TinyMetaFed's bring an announcement, a delta, a receipt and an acknowledgement; an update and what
it acknowledges are taken to be as many. Rivals' are a model and an acknowledgement, both ways.
"""


@dataclass(frozen=True)
class Effort:
    """How much is done for a network."""

    rounds: int
    trials: int
    """Of the search for each method's settings."""
    trial_rounds: int
    tested: int
    """Held-out tasks."""
    points: int
    """Of the curve."""


FULL: Final = {
    "sine": Effort(300, 10, 100, 500, 24),
    "omniglot": Effort(100, 4, 40, 200, 8),
    "keywords": Effort(100, 4, 40, 200, 8),
}
QUICK: Final = {
    "sine": Effort(100, 2, 30, 200, 8),
    "omniglot": Effort(20, 1, 10, 100, 4),
    "keywords": Effort(20, 1, 10, 100, 4),
}
SEEDS_MOST: Final = {"sine": 100, "omniglot": 3, "keywords": 3}
"""Pictures and sounds take a while."""


@dataclass(frozen=True)
class Point:
    """A method after some rounds: means over seeds."""

    rounds: int
    bytes_up: float
    """Of all boards."""
    bytes_down: float
    operations: float
    value: float


@dataclass(frozen=True)
class Played:
    """What came of a method's runs on a network."""

    scenario: Scenario
    method: str
    settings: Settings
    runs: Sequence[Outcome]
    """One a seed."""

    @property
    def value(self) -> Estimate:
        """Of the last models."""
        return Estimate.of([run["value"] for run in self.runs])

    @property
    def curve(self) -> list[Point]:
        """From the first rounds to the end."""
        curves = np.array([run["curve"] for run in self.runs]).mean(axis=0)
        return [Point(round(point[0]), *point[1:]) for point in curves.tolist()]

    def first(self, target: float) -> Point | None:
        """The first point of the curve that is as good as the target."""
        is_loss = self.scenario.metric == "loss"
        good = (p for p in self.curve if (p.value <= target if is_loss else p.value >= target))
        return next(good, None)

    def work(self, point: Point) -> Work:
        """What a board does in a round until then, on average."""
        rounds = point.rounds * self.scenario.spec.rounds.cohort
        return Work(
            *(point.bytes_up / rounds, point.bytes_down / rounds, point.operations / rounds),
            MESSAGES[self.method],
        )

    def cost(self, point: Point, chip: Chip, link: Link = LINK) -> Cost:
        """Modelled seconds and joules of a board in all rounds until then."""
        return total(chip, link, self.work(point)) * point.rounds


def make(request: Request, study: Study) -> Report:
    """Search each method's settings, run each with every seed, and model what it takes."""
    efforts = QUICK if request.quick else FULL
    played = [
        each
        for network in ("sine", *request.data)
        for each in _played(network, efforts[network], request, study)
    ]
    return Report(
        "Energy, time and bytes, modelled",
        results={f"{each.scenario.network}/{each.method}": _result(each) for each in played},
        tables={"modelled": _rows(played)},
        plots=page.plots(played),
        summary=page.summary(played),
        findings=page.findings(played),
        protocol=page.protocol(played, efforts),
    )


def _played(network: str, effort: Effort, request: Request, study: Study) -> list[Played]:
    """Every method on a network, TinyMetaFed first."""
    scenario = Scenario(network, effort.rounds, request.data.get(network))
    choosing = replace(scenario, rounds=effort.trial_rounds, choosing=True)
    found = study.run(
        search,
        [Search(choosing, method, effort.trials, effort.tested) for method in METHODS],
        f"{network}: settings",
    )
    seeds = range(min(request.seeds, SEEDS_MOST[network]))
    outcomes = study.run(
        play,
        [
            Trial(
                *(scenario, method, best["settings"], seed, effort.tested),
                points=effort.points,
                asked=effort.tested,
            )
            for method, best in zip(METHODS, found, strict=True)
            for seed in seeds
        ],
        f"{network}: runs",
    )
    return [
        Played(
            *(scenario, method, best["settings"]),
            outcomes[at * len(seeds) : (at + 1) * len(seeds)],
        )
        for at, (method, best) in enumerate(zip(METHODS, found, strict=True))
    ]


def _result(each: Played) -> dict[str, Any]:
    """As in other experiments, and what is modelled: of a board over the whole run."""
    end, value = each.curve[-1], each.value
    modelled = {}
    for chip in CHIPS:
        for name, link in page.LINKS.items():
            cost = each.cost(end, chip, link)
            modelled[f"{chip.name}, {name}"] = {"seconds": cost.seconds, "joules": cost.joules}
    return {
        each.scenario.metric: {"mean": value.mean, "ci95": value.ci95},
        "bytes_up": round(end.bytes_up),
        "bytes_down": round(end.bytes_down),
        "operations": round(end.operations),
        "rounds": end.rounds,
        "curve": [[p.rounds, round(p.bytes_up + p.bytes_down), p.value] for p in each.curve],
        "modelled": modelled,
    }


def _rows(played: Sequence[Played]) -> list[Row]:
    return [
        {
            "network": each.scenario.network,
            "method": each.method,
            "board": chip.name,
            "connecting": name,
            "rounds": point.rounds,
            "bytes": point.bytes_up + point.bytes_down,
            "operations": point.operations,
            each.scenario.metric: point.value,
            "modelled_seconds": (cost := each.cost(point, chip, link)).seconds,
            "modelled_joules": cost.joules,
        }
        for each in played
        for chip in CHIPS
        for name, link in page.LINKS.items()
        for point in each.curve
    ]
