"""The search for settings: proposes, and learns from how runs with them do.

Optuna's tree-structured Parzen estimator proposes (Bergstra et al., "Algorithms for Hyper-Parameter
Optimization", 2011).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from optuna.trial import Trial, TrialState

    Value = float | int | str
    Draw = Callable[[Trial], Mapping[str, Value]]
    """Makes a setting of what Optuna suggests for each name."""
    T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """A setting's values, on a logarithmic scale."""

    low: float
    high: float
    whole: bool = False
    """Whether they are whole numbers."""

    def draw(self, trial: Trial, name: str) -> float:
        """The next value to try, with three digits."""
        if self.whole:
            return float(trial.suggest_int(name, int(self.low), int(self.high), log=True))
        return float(f"{trial.suggest_float(name, self.low, self.high, log=True):.3g}")


class Search:
    """A search for the setting with the best score.

    Args:
        draw: makes a setting.
        start: what Optuna suggests first, by name.
        seed: of the proposals.
        minimise: whether a low score is good.
        random: proposals before the first that learns from the scores.
        free: runs that are finished before any is given up for doing worse than half of the others
            did after as many rounds.
    """

    def __init__(  # noqa: PLR0913 - by keyword
        self,
        draw: Draw,
        *,
        start: Mapping[str, Value],
        seed: int,
        minimise: bool = True,
        random: int = 10,
        free: int = 4,
    ) -> None:
        import optuna  # noqa: PLC0415 - slow to load, and few need it

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._draw = draw
        self._study = optuna.create_study(
            direction="minimize" if minimise else "maximize",
            sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=random),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=free, n_min_trials=free),
        )
        self._study.enqueue_trial(dict(start))
        self._open: dict[int, Trial] = {}
        self._states: type[TrialState] = optuna.trial.TrialState

    def propose(self) -> tuple[int, dict[str, Value]]:
        """The number of a new proposal, and the setting."""
        trial = self._study.ask()
        self._open[trial.number] = trial
        return trial.number, dict(self._draw(trial))

    def discard(self, number: int) -> None:
        """A proposal is not worth a run."""
        # As pruned it would count as good to the sampler while no run is finished.
        self._study.tell(self._open.pop(number), state=self._states.FAIL)

    def report(self, number: int, score: float, round_: int) -> bool:
        """Take in the score of a run that is not over; whether it goes on."""
        trial = self._open[number]
        trial.report(score, round_)
        if not trial.should_prune():
            return True
        self._study.tell(self._open.pop(number), state=self._states.PRUNED)
        return False

    def finish(self, number: int, score: float) -> None:
        """Take in the score at the end of a run."""
        self._study.tell(self._open.pop(number), score)

    def importances(self) -> dict[str, float]:
        """The share of the scores' differences that each name explains; empty after few runs.

        By fANOVA's cheaper kin, PED-ANOVA (Watanabe et al., 2023).
        """
        finished = [one for one in self._study.trials if one.state is self._states.COMPLETE]
        if len(finished) < 10:
            return {}
        import optuna  # noqa: PLC0415 - slow to load, and few need it

        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        with warnings.catch_warnings():
            # A name that is suggested in few runs is weighed by few: little depends on it.
            warnings.filterwarnings("ignore", "Some regimes", UserWarning)
            shares = optuna.importance.get_param_importances(self._study, evaluator=evaluator)
        return dict(shares)


def best(tried: Sequence[T], scores: Sequence[float], *, minimise: bool) -> T:
    """The first of those with the best score; a score that is not finite is the worst."""
    worst = math.inf if minimise else -math.inf
    finite = [score if math.isfinite(score) else worst for score in scores]
    return tried[finite.index(min(finite) if minimise else max(finite))]
