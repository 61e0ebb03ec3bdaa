"""One run of a method, and the search for its settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from experiments.harness.scenario import Scenario
from experiments.methods.catalogue import METHODS
from tuning.search import Search, best

if TYPE_CHECKING:
    from experiments.harness.study import Outcome
    from experiments.methods.catalogue import Learner, Settings
    from experiments.methods.tinymetafed import Arithmetic

AT_ONCE: Final = 100
"""Held-out tasks that a learner is evaluated on at a time; more take memory."""
TASKS_SEED: Final = 1
"""Of the held-out tasks; all runs have the same ones."""


@dataclass(frozen=True, kw_only=True)
class MethodRun:
    """A method with its settings, once."""

    scenario: Scenario
    method: str
    settings: Settings
    seed: int
    test_tasks: int
    """Held-out tasks after the last round; a multiple of AT_ONCE, or less."""
    points: int = 0
    """Of the curve, before the end ..."""
    curve_tasks: int = 0
    """... where so many of the test tasks are taken."""
    arithmetic: Arithmetic = "fixed"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A learner after some rounds."""

    rounds: int
    bytes_up: int
    """Of all boards so far."""
    bytes_down: int
    operations: int
    value: float
    """Loss or accuracy, the mean over held-out tasks."""


def play(run: MethodRun) -> Outcome:
    """Play the rounds, and evaluate on held-out tasks.

    Returns:
        What :class:`Measurement` says of the last model, and ``curve``, a list of the same at some
        points, the end included.
    """
    scenario = run.scenario
    learned, _ = scenario.tasks()
    learner = METHODS[run.method].learner(
        spec=scenario.spec,
        settings=run.settings,
        tasks=learned,
        seed=run.seed,
        arithmetic=run.arithmetic,
    )
    # Closer at the beginning, where most is learned.
    steps = np.linspace(0, 1, run.points + 1)[1:] ** 2 * scenario.rounds
    points = {max(1, round(step)) for step in steps.tolist()} - {scenario.rounds}
    curve = []
    rounds = 0
    for rounds in learner.play():
        if rounds in points:
            curve.append(_measured(learner, run, rounds, run.curve_tasks))
    curve.append(_measured(learner, run, rounds, run.test_tasks))
    return curve[-1] | {"curve": curve}


def _measured(learner: Learner, run: MethodRun, rounds: int, count: int) -> Outcome:
    """By so many held-out tasks."""
    _, held_out = run.scenario.tasks()
    total = 0.0
    for part in range(0, count, AT_ONCE):
        some = min(AT_ONCE, count - part)
        total += some * run.scenario.value(learner.measure(held_out, some, TASKS_SEED + part))
    measurement = Measurement(
        rounds=rounds,
        bytes_up=learner.bytes_up,
        bytes_down=learner.bytes_down,
        operations=learner.operations,
        value=total / count,
    )
    return asdict(measurement)


@dataclass(frozen=True, kw_only=True)
class MethodSearch:
    """For a method's settings, by runs in float64 of a scenario for choosing."""

    scenario: Scenario
    method: str
    runs: int
    """Each with other settings."""
    validation_tasks: int
    repeats: int = 1
    """Of a run, each with another seed; their mean is the value of the settings."""
    seed: int = 1000
    """The first of them, in all runs; no run that is reported has one of these."""


def search(wanted: MethodSearch) -> Outcome:
    """The settings that ended best.

    The first run has what the method starts from; the others' are proposed by the search.

    Returns:
        ``settings``, their ``value``, and all ``runs``, a list of such settings and values.
    """
    method, scenario = METHODS[wanted.method], wanted.scenario
    is_loss = scenario.metric == "loss"
    ranges = method.ranges(scenario.spec)
    sought = Search(
        lambda trial: {name: span.draw(trial, name) for name, span in ranges.items()},
        start=method.first(scenario.spec),
        seed=wanted.seed,
        minimise=is_loss,
        random=wanted.runs // 2,
    )
    runs: list[Outcome] = []
    for _ in range(wanted.runs):
        number, drawn = sought.propose()
        settings = {name: float(value) for name, value in drawn.items()}
        value = float(np.mean([_repeat(wanted, settings, at) for at in range(wanted.repeats)]))
        if not np.isfinite(value):  # It diverged, which float64 does not stop.
            value = 1e9 if is_loss else 0.0
        sought.finish(number, value)
        runs.append({"settings": settings, "value": value})
    return best(runs, [run["value"] for run in runs], minimise=is_loss) | {"runs": runs}


def _repeat(wanted: MethodSearch, settings: Settings, at: int) -> float:
    run = MethodRun(
        scenario=wanted.scenario,
        method=wanted.method,
        settings=settings,
        seed=wanted.seed + at,
        test_tasks=wanted.validation_tasks,
        arithmetic="float64",
    )
    return float(play(run)["value"])
