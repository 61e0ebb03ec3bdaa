"""One run of a method, and the search for its settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from experiments.harness.scenario import Scenario
from experiments.methods.catalogue import METHODS

if TYPE_CHECKING:
    import optuna

    from experiments.harness.study import Outcome
    from experiments.methods.catalogue import Learner, Range, Settings

AT_ONCE: Final = 100
"""Held-out tasks that are asked at a time; more take memory."""
ASKED: Final = 1
"""Seed of the held-out tasks; all are asked the same ones."""


@dataclass(frozen=True)
class Trial:
    """A method with its settings, once."""

    scenario: Scenario
    method: str
    settings: Settings
    seed: int
    tested: int
    """Held-out tasks after the last round; a multiple of AT_ONCE, or less."""
    points: int = 0
    """Of the curve, before the end ..."""
    asked: int = 0
    """... where so many of the tested tasks are asked."""
    real: bool = False
    """Whether fixed point may be left for speed."""


def play(trial: Trial) -> Outcome:
    """Play the rounds, and ask the held-out tasks.

    Returns:
        ``value`` of the last model, ``bytes_up``, ``bytes_down``, ``operations``, and ``curve``, a
        list of rounds, bytes up and down, operations and the value after them.
    """
    scenario = trial.scenario
    learned, _ = scenario.tasks()
    learner = METHODS[trial.method].learner(
        *(scenario.spec, trial.settings, learned, trial.seed, trial.real)
    )
    # Closer at the beginning, where most is learned.
    steps = np.linspace(0, 1, trial.points + 1)[1:] ** 2 * scenario.rounds
    points = {max(1, round(step)) for step in steps.tolist()} - {scenario.rounds}
    curve = []
    rounds = 0
    for rounds in learner.play():
        if rounds in points:
            value = _asked(learner, trial, trial.asked)
            curve.append([rounds, learner.bytes_up, learner.bytes_down, learner.operations, value])
    value = _asked(learner, trial, trial.tested)
    curve.append([rounds, learner.bytes_up, learner.bytes_down, learner.operations, value])
    return {
        "value": value,
        "rounds": rounds,
        "bytes_up": learner.bytes_up,
        "bytes_down": learner.bytes_down,
        "operations": learner.operations,
        "curve": curve,
    }


def _asked(learner: Learner, trial: Trial, count: int) -> float:
    """Mean over so many held-out tasks."""
    _, tested = trial.scenario.tasks()
    values = []
    for part in range(0, count, AT_ONCE):
        some = min(AT_ONCE, count - part)
        measured = learner.measure(tested, some, ASKED + part)
        values.append((some, trial.scenario.value(measured)))
    return sum(some * value for some, value in values) / count


@dataclass(frozen=True)
class Search:
    """For a method's settings: so many trials, in float64, of a scenario for choosing."""

    scenario: Scenario
    method: str
    trials: int
    tested: int
    runs: int = 1
    """Of a trial, each with another seed; their mean is what it is judged by."""
    seed: int = 1000
    """The first of them, in all trials; no run that is reported has one of these."""


def search(wanted: Search) -> Outcome:
    """The settings that ended best.

    The first trial is what the method starts from, the others are drawn by Optuna's tree-structured
    Parzen estimator (Bergstra et al., "Algorithms for Hyper-Parameter Optimization", 2011).

    Returns:
        ``settings``, their ``value``, and all ``trials`` as pairs of both.
    """
    import optuna  # noqa: PLC0415 - slow to load, and few need it

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    method, scenario = METHODS[wanted.method], wanted.scenario
    is_loss = scenario.metric == "loss"
    study = optuna.create_study(
        direction="minimize" if is_loss else "maximize",
        sampler=optuna.samplers.TPESampler(seed=wanted.seed, n_startup_trials=wanted.trials // 2),
    )
    study.enqueue_trial(method.first(scenario.spec))
    trials: list[tuple[Settings, float]] = []
    ranges = method.ranges(scenario.spec)
    for _ in range(wanted.trials):
        asked = study.ask()
        settings = {name: _drawn(asked, name, span) for name, span in ranges.items()}
        runs = [
            Trial(scenario, wanted.method, settings, wanted.seed + run, wanted.tested, real=True)
            for run in range(wanted.runs)
        ]
        value = float(np.mean([play(run)["value"] for run in runs]))
        if not np.isfinite(value):  # It diverged, which float64 does not stop.
            value = 1e9 if is_loss else 0.0
        study.tell(asked, value)
        trials.append((settings, value))
    best = min(trials, key=lambda trial: trial[1] if is_loss else -trial[1])
    return {"settings": best[0], "value": best[1], "trials": trials}


def _drawn(trial: optuna.Trial, name: str, span: Range) -> float:
    if span.whole:
        return float(trial.suggest_int(name, int(span.low), int(span.high), log=True))
    return float(f"{trial.suggest_float(name, span.low, span.high, log=True):.3g}")
