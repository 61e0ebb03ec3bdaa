"""Modelled energy and time of TinyMetaFed beside three others: the experiment `energy`.

Bytes, operations and what was learned are from runs; joules and seconds are from a model
(experiments/energy/power.py), by rounds that are equal and by what is learned that is equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from experiments.comparison.run import Compared, Effort, Plan, play_all, result_of
from experiments.energy import page
from experiments.energy.power import CHIPS, LINK, Work, total
from experiments.harness.report import Report
from experiments.harness.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Sequence

    from experiments.comparison.run import Point
    from experiments.energy.power import Chip, Cost, Link
    from experiments.harness.report import Row
    from experiments.harness.request import Request
    from experiments.harness.study import Study

OURS: Final = "tinymetafed"
METHODS: Final = (OURS, "tinymetafed/no-top-p", "tinyreptile", "fedavg")
MESSAGES: Final = {OURS: 4, "tinymetafed/no-top-p": 4, "tinyreptile": 2, "fedavg": 2}
"""MQTT packets of a board's round each way.

TinyMetaFed's bring an announcement, a delta, a receipt and an acknowledgement; an update and what
it acknowledges are taken to be as many. Rivals' are a model and an acknowledgement, both ways.
"""


FULL: Final = {
    "sine": Effort(300, 10, 100, 500, tested=500, asked=500, points=24),
    "omniglot": Effort(100, 4, 40, 200, tested=200, asked=200, points=8),
    "keywords": Effort(100, 4, 40, 200, tested=200, asked=200, points=8),
}
QUICK: Final = {
    "sine": Effort(100, 2, 30, 200, tested=200, asked=200, points=8),
    "omniglot": Effort(20, 1, 10, 100, tested=100, asked=100, points=4),
    "keywords": Effort(20, 1, 10, 100, tested=100, asked=100, points=4),
}
SEEDS_MOST: Final = {"sine": 100, "omniglot": 3, "keywords": 3}
"""Pictures and sounds take a while."""


@dataclass(frozen=True)
class Played(Compared):
    """What came of a method's runs on a network, and what it takes by the model."""

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
    plans = [Plan(method, method, scenario, effort.trial_rounds) for method in METHODS]
    seeds = min(request.seeds, SEEDS_MOST[network])
    return [Played(**vars(each)) for each in play_all(study, plans, effort, seeds, f"{network}: ")]


def _result(each: Played) -> dict[str, Any]:
    """As in other experiments, and what is modelled: of a board over the whole run."""
    end = each.curve[-1]
    modelled = {}
    for chip in CHIPS:
        for name, link in page.LINKS.items():
            cost = each.cost(end, chip, link)
            modelled[f"{chip.name}, {name}"] = {"seconds": cost.seconds, "joules": cost.joules}
    return result_of(each) | {"modelled": modelled}


def _rows(played: Sequence[Played]) -> list[Row]:
    return [
        {
            "network": each.scenario.network,
            "method": each.method,
            "board": chip.name,
            "connecting": name,
            "rounds": point.rounds,
            "bytes": point.bytes,
            "operations": point.operations,
            each.scenario.metric: point.value.mean,
            "modelled_seconds": (cost := each.cost(point, chip, link)).seconds,
            "modelled_joules": cost.joules,
        }
        for each in played
        for chip in CHIPS
        for name, link in page.LINKS.items()
        for point in each.curve
    ]
