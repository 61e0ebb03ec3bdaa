"""Runs of TinyMetaFed beside three others: the experiment `energy`.

Bytes, operations and what was learned are from runs; joules and seconds are from a model
(experiments/energy/power.py), by rounds that are equal and by what is learned that is equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from experiments.comparison.result import Effort
from experiments.comparison.run import Entry, run_all
from experiments.energy.result import METHODS, NetworkResult
from experiments.harness.scenario import Scenario

if TYPE_CHECKING:
    from experiments.harness.request import Request
    from experiments.harness.study import Study

_SINE: Final = Effort(
    rounds=300,
    search_runs=10,
    search_rounds=100,
    validation_tasks=500,
    test_tasks=500,
    curve_tasks=500,
    points=24,
)
_DATA: Final = Effort(
    rounds=100,
    search_runs=4,
    search_rounds=40,
    validation_tasks=200,
    test_tasks=200,
    curve_tasks=200,
    points=8,
)
_QUICK_SINE: Final = Effort(
    rounds=100,
    search_runs=2,
    search_rounds=30,
    validation_tasks=200,
    test_tasks=200,
    curve_tasks=200,
    points=8,
)
_QUICK_DATA: Final = Effort(
    rounds=20,
    search_runs=1,
    search_rounds=10,
    validation_tasks=100,
    test_tasks=100,
    curve_tasks=100,
    points=4,
)
FULL: Final = {"sine": _SINE, "omniglot": _DATA, "keywords": _DATA}
QUICK: Final = {"sine": _QUICK_SINE, "omniglot": _QUICK_DATA, "keywords": _QUICK_DATA}
SEEDS_MOST: Final = {"sine": 100, "omniglot": 3, "keywords": 3}
"""Pictures and sounds take a while."""


def run(request: Request, study: Study) -> list[NetworkResult]:
    """Search each method's settings, and run each with every seed."""
    efforts = QUICK if request.quick else FULL
    return [_run(network, efforts[network], request, study) for network in ("sine", *request.data)]


def _run(network: str, effort: Effort, request: Request, study: Study) -> NetworkResult:
    scenario = Scenario(network, effort.rounds, request.data.get(network))
    entries = [
        Entry(method=method, scenario=scenario, search_rounds=effort.search_rounds)
        for method in METHODS
    ]
    seeds = min(request.seeds, SEEDS_MOST[network])
    methods = run_all(study, entries, effort, seeds, f"{network}: ")
    return NetworkResult(network=network, effort=effort, methods=methods)
