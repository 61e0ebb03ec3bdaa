"""The experiment `online`: each sample used once, beside samples stored and learned in batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, get_args

import numpy as np

from experiments.harness.scenario import Scenario
from experiments.online import board_memory
from experiments.online.learners import (
    Learner,
    Pretraining,
    Search,
    StreamRun,
    StreamSet,
    learn,
    pretrain,
    search,
)
from experiments.online.result import (
    BatchMemory,
    Candidate,
    Effort,
    LearnerResult,
    LearnerRun,
    Method,
    OnlineResult,
)
from experiments.online.streams import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from experiments.harness.request import Request
    from experiments.harness.study import Study

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
METHODS: Final = (
    Method(stored=1, is_searched=False),
    Method(stored=1),
    Method(stored=8),
    Method(stored=8, repeats=True),
    Method(stored=32),
    Method(stored=32, repeats=True),
)
RATES: Final = tuple(float(f"{rate:.2g}") for rate in np.geomspace(0.001, 0.5, 12))
FEW_RATES: Final = RATES[4::2]
EPOCHS: Final = (2, 8, 32)
"""Where they are searched, too, with a third of as many rates: as many candidates."""
SEARCH_SEED: Final = 1000
"""Of what settings are chosen by; no run that is reported has it."""
FULL: Final = {
    "sine": Effort(rounds=300, boards=200),
    "omniglot": Effort(rounds=300, boards=40),
}
QUICK: Final = {
    "sine": Effort(rounds=100, boards=50),
    "omniglot": Effort(rounds=20, boards=10),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A way of learning on a kind of stream, with its settings."""

    kind: Kind
    method: Method
    learner: Learner
    candidates: Sequence[Candidate]


def run(request: Request, study: Study) -> OnlineResult:
    """Learn the starts, search settings, follow the streams, and measure boards' memory."""
    efforts = {
        name: effort
        for name, effort in (QUICK if request.quick else FULL).items()
        if name == "sine" or name in request.data
    }
    learners = []
    for name, effort in efforts.items():
        scenario = Scenario(network=name, rounds=effort.rounds, data=request.data.get(name))
        learners += _learners(study, scenario, effort.boards, request.seeds)
    jobs = board_memory.jobs()
    outcomes = study.run(board_memory.measure, jobs, "memory")
    memory = [
        BatchMemory.of(job.network, job.stored, outcome)
        for job, outcome in zip(jobs, outcomes, strict=True)
    ]
    return OnlineResult(learners=learners, memory=memory, efforts=efforts)


def _learners(study: Study, scenario: Scenario, boards: int, seeds: int) -> list[LearnerResult]:
    """All ways of learning on all kinds of streams."""
    chosen_by = replace(scenario, choosing=True)
    jobs = [Pretraining(scenario=chosen_by, seed=SEARCH_SEED)]
    jobs += [Pretraining(scenario=scenario, seed=seed) for seed in range(seeds)]
    pretrained = study.run(pretrain, jobs, f"{scenario.network}: starts")
    first, *starts = [tuple(each["published"]) for each in pretrained]
    searched = StreamSet(
        scenario=chosen_by, kind=KINDS[0], published=first, boards=boards, seed=SEARCH_SEED
    )
    cases = _cases(study, searched)
    runs = [
        StreamRun(
            streams=StreamSet(
                scenario=scenario, kind=case.kind, published=start, boards=boards, seed=seed
            ),
            learner=case.learner,
        )
        for case in cases
        for seed, start in enumerate(starts)
    ]
    # What was found may be the spec's rate.
    different = list(dict.fromkeys(runs))
    outcomes = dict(
        zip(different, study.run(learn, different, f"{scenario.network}: runs"), strict=True)
    )
    return [
        LearnerResult(
            scenario=scenario,
            kind=case.kind,
            method=case.method,
            learner=case.learner,
            candidates=case.candidates,
            runs=[LearnerRun.of(outcomes[each]) for each in runs[at * seeds : (at + 1) * seeds]],
        )
        for at, case in enumerate(cases)
    ]


def _cases(study: Study, searched: StreamSet) -> list[Case]:
    """Search the settings of each way of learning for each kind of stream.

    Args:
        study: runs the searches.
        searched: the streams; of another kind, too.
    """
    cases = [(kind, method) for kind in KINDS for method in METHODS]
    jobs = [
        Search(
            streams=replace(searched, kind=kind),
            stored=method.stored,
            rates=FEW_RATES if method.repeats else RATES,
            epochs=EPOCHS if method.repeats else (1,),
        )
        for kind, method in cases
        if method.is_searched
    ]
    scenario = searched.scenario
    found = iter(study.run(search, jobs, f"{scenario.network}: settings"))
    made = []
    for kind, method in cases:
        if method.is_searched:
            best = next(found)
            learner = Learner(stored=method.stored, rate=best["rate"], epochs=best["epochs"])
            candidates = [
                Candidate(rate=rate, epochs=epochs, error=error)
                for rate, epochs, error in best["candidates"]
            ]
        else:
            rate = scenario.spec.training.rate_local
            learner, candidates = Learner(stored=method.stored, rate=rate), []
        made.append(Case(kind=kind, method=method, learner=learner, candidates=candidates))
    return made
