"""The search of `tinymetafed tune`: which settings of a spec learn best within a byte budget.

Optuna proposes (Bergstra et al., "Algorithms for Hyper-Parameter Optimization", 2011: the TPE), and
a run that does worse than half of the others did after as many rounds is given up.
"""

from __future__ import annotations

import time
import warnings
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from tuning.errors import TuningError
from tuning.space import Space, Values, applied, bytes_most
from tuning.worker import Job, Score, Worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from optuna.trial import Trial, TrialState

    from protocol.spec.spec import Spec

_DRAWS: Final = 500
"""Settings in a row that cannot be tried, after which none is sought any more."""
_FREE: Final = 4
"""Runs that are finished before any is given up."""


@dataclass(frozen=True)
class Budget:
    """What a search may take, and a setting."""

    bytes: int
    """Up and down of a board in a whole run."""
    seconds: float
    trials: int


@dataclass
class Tried:
    """A setting, and how it did."""

    number: int
    given: Spec
    values: Values
    """All that may be changed in the given spec."""
    scores: list[Score] = field(default_factory=list)
    skipped: str = ""
    """Why it was not run; perhaps because there can be no such spec."""

    @property
    def spec(self) -> Spec:
        """The given one with this setting.

        Raises:
            ValidationError: it breaks a rule of a spec: it does not fit a board, perhaps.
        """
        return applied(self.given, self.values)

    @property
    def is_finished(self) -> bool:
        """Whether it was run to the end."""
        return bool(self.scores) and self.scores[-1].over


@dataclass
class Found:
    """What a search came to."""

    tried: list[Tried]
    mattered: dict[str, float]
    """The share of the differences that each setting explains; empty after too few runs."""
    was_interrupted: bool = False

    @property
    def best(self) -> Tried | None:
        """Of those within the budget that were run to the end; None if there is none."""
        finished = [tried for tried in self.tried if tried.is_finished]
        return min(finished, key=lambda tried: tried.scores[-1].loss, default=None)


class Search:
    """Proposes settings and learns from how they do.

    Args:
        space: what is searched.
        budget: what it may take.
        seed: of the proposals. Which run ends first depends on the machine, and with several
            processes what is proposed next depends on that.
    """

    def __init__(self, space: Space, budget: Budget, seed: int) -> None:
        import optuna  # noqa: PLC0415 - slow to load, and other commands do without

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, self.budget = space, budget
        self.tried: list[Tried] = []
        self._study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=seed),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_FREE, n_min_trials=_FREE),
        )
        self._study.enqueue_trial(space.start())
        self._seen: list[Values] = []
        self._states: type[TrialState] = optuna.trial.TrialState

    def propose(self) -> tuple[Trial, Tried] | None:
        """A setting that is worth a run; None if none is found."""
        for _ in range(_DRAWS):
            trial = self._study.ask()
            tried = Tried(trial.number, self.space.given, self.space.draw(trial))
            tried.skipped = self._problem(tried)
            if not tried.skipped and tried.values not in self._seen:
                self._seen.append(tried.values)
                self.tried.append(tried)
                return trial, tried
            # As pruned it would count as good to the sampler while no run is finished.
            self._study.tell(trial, state=self._states.FAIL)
            if tried.skipped:
                self.tried.append(tried)
        return None

    def _problem(self, tried: Tried) -> str:
        """Why a setting is not worth a run; nothing if it is."""
        try:
            size = bytes_most(tried.spec)
        except ValidationError as error:
            return error.errors()[0]["msg"].removeprefix("Value error, ")
        return f"up to {size:,} bytes" if size > self.budget.bytes else ""

    def heard(self, trial: Trial, tried: Tried, score: Score) -> bool:
        """Take in how a run does; whether it goes on."""
        tried.scores.append(score)
        if score.over:
            self._study.tell(trial, score.loss)
            return False
        trial.report(score.loss, score.round)
        if trial.should_prune():
            self._study.tell(trial, state=self._states.PRUNED)
            return False
        return True

    def mattered(self) -> dict[str, float]:
        """See :class:`Found`; by fANOVA's cheaper kin, PED-ANOVA (Watanabe et al., 2023)."""
        finished = [one for one in self._study.trials if one.state is self._states.COMPLETE]
        if len(finished) < 10 or len(self.space.searched) < 2:
            return {}
        import optuna  # noqa: PLC0415 - slow to load, and other commands do without

        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        with warnings.catch_warnings():
            # A step of an optimizer that few runs had is judged by few: little depends on it.
            warnings.filterwarnings("ignore", "Some regimes", UserWarning)
            shares = optuna.importance.get_param_importances(self._study, evaluator=evaluator)
        # A step is called after its optimizer: see Space.draw.
        return {name.partition(" of ")[0]: share for name, share in shares.items()}


def search(  # noqa: PLR0913 - each is a choice of the user's
    space: Space,
    data: Path | None,
    budget: Budget,
    *,
    boards: int,
    seed: int,
    processes: int,
    told: Callable[[Tried], None],
) -> Found:
    """Search until the budget is spent, or until Ctrl-C.

    Args:
        space: what is searched.
        data: to learn from; None for sines.
        budget: what it may take.
        boards: of the simulated fleet.
        seed: of the proposals and of every run: they meet the same tasks.
        processes: runs at a time.
        told: hears of each run that has ended or was given up.

    Raises:
        TuningError: a process died, or no setting was found within the budget of bytes.
        SimulationError: the data are not what they should be.
    """
    sought, until = Search(space, budget, seed), time.monotonic() + budget.seconds
    was_interrupted, begun = False, 0
    with ExitStack() as stack:
        try:
            idle = [stack.enter_context(Worker(space.given, data)) for _ in range(processes)]
            busy: dict[object, tuple[Worker, Trial, Tried]] = {}
            while (left := until - time.monotonic()) > 0:
                while idle and begun < budget.trials and (proposed := sought.propose()):
                    worker, begun = idle.pop(), begun + 1
                    worker.begin(Job(proposed[1].spec, boards, seed, space.asked))
                    busy[worker.pipe] = worker, *proposed
                if not busy:
                    break
                for pipe in wait([worker.pipe for worker, _, _ in busy.values()], left):
                    worker, trial, tried = busy[pipe]
                    score = worker.score()
                    goes_on = sought.heard(trial, tried, score)
                    if not score.over:
                        worker.answer(go_on=goes_on)
                    if not goes_on:
                        del busy[pipe]
                        idle.append(worker)
                        told(tried)
        except KeyboardInterrupt:
            was_interrupted = True
    if not begun and not was_interrupted:
        raise TuningError(
            f"no setting of {len(sought.tried)} takes at most {budget.bytes:,} bytes and fits a "
            f"board; the given one takes up to {bytes_most(space.given):,}: allow more bytes, or "
            f"ask for fewer rounds"
        )
    return Found(sought.tried, sought.mattered(), was_interrupted)


def compared(data: Path | None, jobs: list[Job], processes: int) -> list[Score]:
    """How runs end, by the held-out test tasks; in the order of the jobs."""
    scores: dict[int, Score] = {}
    with ExitStack() as stack:
        workers = min(processes, len(jobs))
        idle = [stack.enter_context(Worker(jobs[0].spec, data)) for _ in range(workers)]
        left, busy = list(enumerate(jobs)), dict[object, tuple[Worker, int]]()
        while left or busy:
            while idle and left:
                worker, (number, job) = idle.pop(), left.pop(0)
                worker.begin(job)
                busy[worker.pipe] = worker, number
            for pipe in wait([worker.pipe for worker, _ in busy.values()]):
                worker, number = busy.pop(pipe)
                scores[number] = worker.score()
                idle.append(worker)
    return [scores[number] for number in range(len(jobs))]
