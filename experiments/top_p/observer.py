"""What an observer infers at each P: the runs of :mod:`experiments.top_p.attack`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from experiments.harness.scenario import Scenario
from experiments.top_p.attack import NEAREST, Attack, attack
from experiments.top_p.result import Inference, ObserverResult, Situation
from simulation.statistics import Estimate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from experiments.harness.request import Request
    from experiments.harness.study import Outcome, Study

PERCENTS: Final = {
    "sine": (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0),
    "omniglot": (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0),
}
BITS: Final = (4, 8, 16)
MOST_SEEDS: Final = 3
FULL_STEP: Final = 1 / 3
"""Factor of the server's step where nothing is local: the whole one is too far."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is done for a network."""

    rounds: int
    """After which boards are observed, beside those of the first round; half of a run."""
    boards: int
    """Observed in each run."""
    own: int
    """Boards that the observer simulates, on sines."""


FULL: Final = {
    "sine": Effort(rounds=100, boards=400, own=4000),
    "omniglot": Effort(rounds=50, boards=200, own=4000),
}
QUICK: Final = {
    "sine": Effort(rounds=10, boards=50, own=500),
    "omniglot": Effort(rounds=4, boards=50, own=500),
}


def observe(request: Request, study: Study, seeds: Mapping[str, int]) -> ObserverResult:
    """Attack sine's boards, and those of characters where there are any.

    Args:
        request: what is wanted.
        study: runs the attacks.
        seeds: of each network's runs; at most MOST_SEEDS are attacked.
    """
    efforts = QUICK if request.quick else FULL
    jobs: dict[Situation, list[Attack]] = {}
    for network in ("sine", *request.data):
        scenario = Scenario(
            network=network,
            rounds=2 * efforts[network].rounds,
            data=request.data.get(network),
        )
        count = min(seeds[network], MOST_SEEDS)
        for situation, job in _attacks(scenario, efforts[network]).items():
            jobs[situation] = [replace(job, seed=seed) for seed in range(count)]
    all_jobs = [job for some in jobs.values() for job in some]
    outcomes = iter(study.run(attack, all_jobs, "observer"))
    return ObserverResult(
        inferences=[
            inference
            for situation, some in jobs.items()
            for inference in _inferences(situation, [next(outcomes) for _ in some])
        ],
        boards={network: efforts[network].boards for network in ("sine", *request.data)},
        own=efforts["sine"].own,
        nearest=NEAREST,
        seeds=min(seeds["sine"], MOST_SEEDS),
    )


def _attacks(scenario: Scenario, effort: Effort) -> dict[Situation, Attack]:
    """One of each partition in the first round, and in the middle of a run."""
    base = Attack(
        scenario=scenario,
        local=None,
        rounds=0,
        boards=effort.boards,
        own=effort.own,
        percents=PERCENTS[scenario.network],
        bits=BITS,
    )
    jobs = {}
    for rounds in (0, effort.rounds):
        situation = Situation(network=scenario.network, partition="partial", rounds=rounds)
        jobs[situation] = replace(base, rounds=rounds)
    for rounds in (0, effort.rounds):
        situation = Situation(network=scenario.network, partition="full", rounds=rounds)
        jobs[situation] = replace(base, local=(), step=FULL_STEP, rounds=rounds)
    return jobs


def _inferences(situation: Situation, outcomes: Sequence[Outcome]) -> list[Inference]:
    """Means over the seeds' attacks, which all list the same figures."""
    listed = [outcome["inferences"] for outcome in outcomes]
    return [
        Inference(
            situation=situation,
            percent=same[0]["percent"],
            value_bits=same[0]["value_bits"],
            secret=same[0]["secret"],
            local_known=same[0]["local_known"],
            value=Estimate.of([each["value"] for each in same]),
        )
        for same in zip(*listed, strict=True)
    ]
