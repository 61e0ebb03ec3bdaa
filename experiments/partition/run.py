"""Which layers should stay local: partial reconstruction beside full transmission, and a sweep."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from experiments.harness.scenario import Scenario
from experiments.methods.results import compare
from experiments.methods.settings import Setting, partitioned, tune
from experiments.partition.result import Partition, Sweep
from protocol.spec.model import Pool
from protocol.validation import reason_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from experiments.harness.request import Request
    from experiments.harness.study import Study
    from experiments.partition.result import Places
    from protocol.spec.spec import Spec


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is done for a network."""

    rounds: int
    tasks: int
    """Held-out tasks at the end of a run."""
    points: int
    """Of a run's curve."""
    most_seeds: int
    choices: Sequence[tuple[float, float]]
    """Factors of both of the spec's rates and of its step_max: each partition has its best."""


SINE_CHOICES: Final = [(rate, step) for rate in (0.5, 1.0, 2.0) for step in (0.1, 1 / 3, 1.0)]
FEW_CHOICES: Final = [(1.0, 1.0), (1.0, 1 / 3), (2.0, 1 / 3), (0.5, 1.0)]
QUICK_CHOICES: Final = FEW_CHOICES[:2]
FULL: Final = {
    "sine": Effort(rounds=300, tasks=1000, points=8, most_seeds=100, choices=SINE_CHOICES),
    "omniglot": Effort(rounds=80, tasks=300, points=8, most_seeds=3, choices=FEW_CHOICES),
    "keywords": Effort(rounds=150, tasks=300, points=8, most_seeds=3, choices=FEW_CHOICES),
}
"""Rounds: enough to distinguish partitions, and fewer than the specs' where these take long."""
QUICK: Final = {
    "sine": Effort(rounds=40, tasks=60, points=2, most_seeds=100, choices=QUICK_CHOICES),
    "omniglot": Effort(rounds=6, tasks=60, points=2, most_seeds=1, choices=QUICK_CHOICES),
    "keywords": Effort(rounds=6, tasks=60, points=2, most_seeds=1, choices=QUICK_CHOICES),
}


def run(request: Request, study: Study) -> list[Sweep]:
    """Sweep the partitions of sine, and of the networks for which data are given."""
    efforts = QUICK if request.quick else FULL
    sweeps = []
    for network in ("sine", *request.data):
        effort = efforts[network]
        scenario = Scenario(network=network, rounds=effort.rounds, data=request.data.get(network))
        sweeps.append(_sweep(study, scenario, effort, min(request.seeds, effort.most_seeds)))
    return sweeps


def _sweep(study: Study, scenario: Scenario, effort: Effort, seeds: int) -> Sweep:
    """Give each partition its best settings, and run it with every seed."""
    spec = scenario.spec
    own = tuple(place for place, layer in enumerate(spec.layers) if layer.local)
    valid, invalid = _checked(spec, _places(scenario.network, spec))
    base = Setting(scenario=scenario, tasks=effort.tasks, points=effort.points)
    # In pictures what sends all looks like what it is compared with, but for the dashes.
    kinds = [(local, False) for local in dict.fromkeys([(), own, *valid])]
    kinds += [(local, True) for local in ((), own)]
    settings = [
        replace(base, local=local, percent=100.0, percent_down=100.0)
        if all_sent
        else replace(base, local=local)
        for local, all_sent in kinds
    ]
    tuning_rounds = max(1, scenario.rounds // 2)
    tuned = tune(study, settings, effort.choices, tuning_rounds)
    results = compare(study, tuned, seeds, scenario.network)
    return Sweep(
        scenario=scenario,
        own=own,
        partitions=[
            Partition(local=local, all_sent=all_sent, result=result)
            for (local, all_sent), result in zip(kinds, results, strict=True)
        ],
        invalid=invalid,
        tasks=effort.tasks,
        seeds=seeds,
        choices=len(effort.choices),
        tuning_rounds=tuning_rounds,
    )


def _places(network: str, spec: Spec) -> list[Places]:
    """Every set of layers; of keywords only the last, the last two and the first."""
    places = [n for n, layer in enumerate(spec.model.layers) if not isinstance(layer, Pool)]
    if network == "keywords":
        return [(places[-1],), tuple(places[-2:]), (places[0],)]
    return [some for size in range(1, len(places) + 1) for some in combinations(places, size)]


def _checked(spec: Spec, sets: Sequence[Places]) -> tuple[list[Places], dict[Places, str]]:
    """The sets that may be local, and of the others why they may not."""
    valid, invalid = [], {}
    for local in sets:
        try:
            partitioned(spec, local)
        except ValidationError as error:
            invalid[local] = reason_of(error.errors()[0])
        else:
            valid.append(local)
    return valid, invalid
