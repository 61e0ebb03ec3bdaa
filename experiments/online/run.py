"""The experiment `online`: each sample used once, beside samples stored and learned in batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, get_args

import numpy as np

from experiments.harness.report import Report
from experiments.harness.scenario import Scenario
from experiments.online import board_memory, page, streams
from experiments.online.board_memory import Stored
from experiments.online.following import (
    Beginning,
    Choice,
    Following,
    Learner,
    begin,
    choose,
    follow,
)
from experiments.online.streams import Kind
from simulation.statistics import Estimate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from experiments.harness.report import Row
    from experiments.harness.request import Request
    from experiments.harness.study import Outcome, Study

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
AS_SHIPPED: Final = "online"
"""At the spec's rate; of all others the rate is searched."""
STORED: Final = {
    AS_SHIPPED: 1,
    "online-searched": 1,
    "batch-8": 8,
    "batch-8-epochs": 8,
    "batch-32": 32,
    "batch-32-epochs": 32,
}
"""Samples that each way of learning waits for."""
RATES: Final = tuple(float(f"{rate:.2g}") for rate in np.geomspace(0.001, 0.5, 12))
FEW_RATES: Final = RATES[4::2]
EPOCHS: Final = (2, 8, 32)
"""Where they are searched, too, with a quarter of as many rates less one: as many trials."""
CHOOSING: Final = 1000
"""Seed of what settings are chosen by; no run that is reported has it."""
POINT: Final = 12
"""Samples that a point of a curve is the mean of."""
WINDOW: Final = 8
"""Likewise where the samples to adapt are counted."""
NEAR: Final = 1.1
"""Who has adapted errs at most so many times as much as at the end."""


@dataclass(frozen=True)
class Effort:
    """How much is done for a network."""

    rounds: int
    """In which the fleet learns the start."""
    boards: int
    """On a stream each, in every run."""


FULL: Final = {"sine": Effort(300, 200), "omniglot": Effort(300, 40)}
QUICK: Final = {"sine": Effort(100, 50), "omniglot": Effort(20, 10)}


@dataclass(frozen=True)
class Followed:
    """What came of a way of learning on a kind of stream."""

    scenario: Scenario
    name: str
    kind: Kind
    learner: Learner
    trials: Sequence[tuple[float, int, float]]
    """Rates, epochs and errors; none as shipped."""
    runs: Sequence[Outcome]
    """One a seed."""

    @property
    def alongs(self) -> list[float]:
        """Each seed's error of samples before they were learned from, all along the stream."""
        return [float(np.mean(run["errors"])) for run in self.runs]

    @property
    def along(self) -> Estimate:
        """Their mean."""
        return Estimate.of(self.alongs)

    @property
    def finals(self) -> list[float]:
        """Each seed's error of other samples of the last task, after the stream."""
        return [run["final"] for run in self.runs]

    @property
    def final(self) -> Estimate:
        """Their mean."""
        return Estimate.of(self.finals)

    @property
    def operations(self) -> int:
        """Multiply-accumulates of one board's learning."""
        return int(self.runs[0]["operations"])

    def curve(self) -> list[tuple[int, Estimate]]:
        """Samples seen, and the error of the last POINT of them."""
        errors = np.array([run["errors"] for run in self.runs])
        means = errors.reshape(len(errors), -1, POINT).mean(axis=2)
        return [((at + 1) * POINT, Estimate.of(part.tolist())) for at, part in enumerate(means.T)]

    def after_switch(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The error of each sample after a switch, but for the first WINDOW - 1 smoothed."""
        errors = np.mean([run["errors"] for run in self.runs], axis=0)
        mean = errors.reshape(streams.TASKS, streams.EVERY)[1:].mean(axis=0)
        return np.convolve(mean, np.full(WINDOW, 1 / WINDOW), "valid")

    def settled(self) -> float:
        """The error in the last quarter of a task."""
        return float(self.after_switch()[-streams.EVERY // 4 + WINDOW - 1 :].mean())

    def adapts_in(self, level: float) -> int | None:
        """Samples after a switch until the error is near this level; None where it never is."""
        near = np.flatnonzero(self.after_switch() <= NEAR * level)
        return int(near[0]) + WINDOW if len(near) else None


def make(request: Request, study: Study) -> Report:
    """Learn the starts, search settings, follow the streams, and measure boards' memory."""
    efforts = QUICK if request.quick else FULL
    scenarios = {
        name: Scenario(name, effort.rounds, request.data.get(name))
        for name, effort in efforts.items()
        if name == "sine" or name in request.data
    }
    followed = [
        each
        for name, scenario in scenarios.items()
        for each in _follow(study, scenario, efforts[name].boards, request.seeds)
    ]
    wanted = [
        Stored(network, samples)
        for network in board_memory.NETWORKS
        for samples in (8, 32, board_memory.rounds_samples(network))
    ]
    taken = dict(zip(wanted, study.run(board_memory.measure, wanted, "memory"), strict=True))
    return Report(
        "Online beside batch",
        results={_key(each): _result(each, taken) for each in followed},
        tables=_tables(followed, taken),
        plots=page.plots(followed),
        summary=page.summary(followed),
        findings=page.findings(followed, taken),
        protocol=page.protocol(followed, {name: efforts[name] for name in scenarios}),
    )


def _follow(study: Study, scenario: Scenario, boards: int, seeds: int) -> list[Followed]:
    """All ways of learning on all kinds of streams."""
    chosen_by = replace(scenario, choosing=True)
    jobs = [Beginning(chosen_by, CHOOSING), *(Beginning(scenario, seed) for seed in range(seeds))]
    begun = study.run(begin, jobs, f"{scenario.network}: starts")
    first, *starts = [tuple(each["published"]) for each in begun]
    plans = [(name, kind) for kind in KINDS for name in STORED]
    choices = [
        Choice(
            Following(chosen_by, kind, Learner(STORED[name], 0), first, boards, CHOOSING),
            *((FEW_RATES, EPOCHS) if name.endswith("epochs") else (RATES, (1,))),
        )
        for name, kind in plans
        if name != AS_SHIPPED
    ]
    found = iter(study.run(choose, choices, f"{scenario.network}: settings"))
    learners: list[Learner] = []
    trials: list[Sequence[tuple[float, int, float]]] = []
    for name, _ in plans:
        if name == AS_SHIPPED:
            learners.append(Learner(STORED[name], scenario.spec.training.rate_local))
            trials.append([])
        else:
            best = next(found)
            learners.append(Learner(STORED[name], best["rate"], best["epochs"]))
            trials.append(best["trials"])
    runs = [
        Following(scenario, kind, learner, start, boards, seed)
        for (_, kind), learner in zip(plans, learners, strict=True)
        for seed, start in enumerate(starts)
    ]
    # What was found may be the spec's rate.
    different = list(dict.fromkeys(runs))
    outcomes = dict(
        zip(different, study.run(follow, different, f"{scenario.network}: runs"), strict=True)
    )
    return [
        Followed(
            *(scenario, name, kind, learners[at], trials[at]),
            [outcomes[run] for run in runs[at * seeds : (at + 1) * seeds]],
        )
        for at, (name, kind) in enumerate(plans)
    ]


def _key(each: Followed) -> str:
    """As results.json names it; of sines without the network's name."""
    network = each.scenario.network
    return f"{each.name}/{each.kind}" + ("" if network == "sine" else f"/{network}")


def _result(each: Followed, taken: Mapping[Stored, Outcome]) -> dict[str, Any]:
    is_loss = each.scenario.metric == "loss"
    along, final = each.along, each.final
    result = {
        each.scenario.metric: _estimate(along, is_loss=is_loss),
        "final": _estimate(final, is_loss=is_loss),
        "operations": each.operations,
        "memory": page.heap(each, taken),
        "curve": [
            [samples, 0, value.mean if is_loss else 1 - value.mean]
            for samples, value in each.curve()
        ],
    }
    if each.kind == "switching":
        result["adapts_in"] = each.adapts_in(each.settled())
    return result


def _estimate(error: Estimate, *, is_loss: bool) -> dict[str, float]:
    return {"mean": error.mean if is_loss else 1 - error.mean, "ci95": error.ci95}


def _tables(followed: Sequence[Followed], taken: Mapping[Stored, Outcome]) -> dict[str, list[Row]]:
    names = [
        {"network": each.scenario.network, "stream": each.kind, "learner": each.name}
        for each in followed
    ]
    both = list(zip(names, followed, strict=True))
    return {
        "runs": [
            {**name, "seed": seed, "error": float(np.mean(run["errors"])), "final": run["final"]}
            for name, each in both
            for seed, run in enumerate(each.runs)
        ],
        "curves": [
            {**name, "samples": samples, "error": error.mean, "ci95": error.ci95}
            for name, each in both
            for samples, error in each.curve()
        ],
        "trials": [
            {**name, "rate": rate, "epochs": epochs, "error": error}
            for name, each in both
            for rate, epochs, error in each.trials
        ],
        "memory": [
            {"network": stored.network, "stored": stored.samples, **outcome}
            for stored, outcome in taken.items()
        ],
    }
