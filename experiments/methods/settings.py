"""One setting of a fleet, played: the job that the experiments on partition and Top-P share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from experiments.methods.selections import Baseline, baseline
from experiments.methods.tinymetafed import Recipe, TinyMetaFed, rebuilt, with_rates, without_local
from protocol.spec.model import Pool
from protocol.spec.spec import Spec
from tuning.search import best

if TYPE_CHECKING:
    from collections.abc import Sequence

    from experiments.harness.scenario import Scenario
    from experiments.harness.study import Outcome, Study
    from experiments.methods.tinymetafed import Arithmetic

TUNING_SEED: Final = 1_000
"""No run that counts has it."""
TUNING_TASKS: Final = 200
HELD_OUT_SEED: Final = 10_000
"""Seed 0's held-out tasks, and so on."""
CURVE_TASKS: Final = {"sine": 200, "omniglot": 60, "keywords": 60}
"""Held-out tasks on the way: fewer than at the end."""


@dataclass(frozen=True)
class Setting:
    """All that decides a run."""

    scenario: Scenario
    tasks: int
    """Held-out tasks on which the model is evaluated in the end."""
    points: int
    """Of the curve, the end included."""
    local: tuple[int, ...] | None = None
    """Places of the layers that stay on the board; none at all, or None for the spec's."""
    percent: float | None = None
    """P; None for the spec's, as below."""
    percent_down: float | None = None
    bits: int | None = None
    feedback: bool = False
    baseline: Baseline | None = None
    """What is sent instead of the largest P %."""
    rate: float = 1.0
    """Factor of both of the spec's rates ..."""
    step: float = 1.0
    """... and of the server's step."""
    seed: int = 0


def partitioned(spec: Spec, local: Sequence[int]) -> Spec:
    """The same network with other layers local.

    Raises:
        ValidationError: a spec file could not say this; but nothing local is played anyway.
    """
    if not local:
        return without_local(spec)
    layers = tuple(
        layer.model_dump() | ({} if isinstance(layer, Pool) else {"local": place in local})
        for place, layer in enumerate(spec.model.layers)
    )
    fields = spec.model_dump()
    return Spec.model_validate(fields | {"model": fields["model"] | {"layers": layers}})


def spec_of(setting: Setting) -> Spec:
    """The spec of a setting."""
    spec = setting.scenario.spec
    if setting.local is not None:
        spec = partitioned(spec, setting.local)
    training, rounds = spec.training, spec.rounds
    rates = (min(0.5, rate * setting.rate) for rate in (training.rate_local, training.rate_global))
    spec = with_rates(spec, *rates)
    changes = {
        "percent": setting.percent or training.percent,
        "value_bits": setting.bits or training.value_bits,
        "error_feedback": setting.feedback,
    }
    plan = {
        "step_max": rounds.step_max * setting.step,
        "percent_down": setting.percent_down or rounds.percent_down,
    }
    return rebuilt(
        spec,
        training=spec.training.model_copy(update=changes),
        rounds=rounds.model_copy(update=plan),
    )


def play(setting: Setting) -> Outcome:
    """Play a setting: its curve of rounds, bytes of the fleet both ways, and loss or accuracy."""
    spec = spec_of(setting)
    sends = None
    if setting.baseline is not None:
        sends = baseline(setting.baseline, spec.training.percent, setting.seed)
    scenario = setting.scenario
    learned, held_out = scenario.tasks()
    # Choices are made in float64, which is quicker.
    arithmetic: Arithmetic = "float64" if scenario.choosing else "fixed"
    fleet = TinyMetaFed(Recipe(spec, sends=sends), learned, setting.seed, arithmetic=arithmetic)
    seed, few = HELD_OUT_SEED + setting.seed, min(setting.tasks, CURVE_TASKS[scenario.network])
    every = -(-scenario.rounds // setting.points)
    curve: list[list[float]] = []
    with np.errstate(all="ignore"):  # In float64 a setting that is no good may diverge.
        for rounds in fleet.play():
            is_last = rounds == scenario.rounds
            if is_last or rounds % every == 0:
                found = fleet.measure(held_out, setting.tasks if is_last else few, seed)
                value = scenario.value(found)
                curve.append([rounds, fleet.bytes_up + fleet.bytes_down, value])
    return {
        "value": curve[-1][2],
        "bytes_up": fleet.bytes_up,
        "bytes_down": fleet.bytes_down,
        "operations": fleet.operations,
        "curve": curve,
    }


def tune(
    study: Study,
    settings: Sequence[Setting],
    choices: Sequence[tuple[float, float]],
    rounds: int,
) -> list[Setting]:
    """Each setting with the choice that does best for it, by tasks that are not those of the test.

    Args:
        study: runs them.
        settings: no two are equal.
        choices: of ``rate`` and ``step``, to be tried.
        rounds: of such a run.
    """
    jobs = [
        replace(
            setting,
            rate=rate,
            step=step,
            scenario=replace(setting.scenario, rounds=rounds, choosing=True),
            tasks=min(setting.tasks, TUNING_TASKS),
            points=1,
            seed=TUNING_SEED,
        )
        for setting in settings
        for rate, step in choices
    ]
    outcomes = iter(study.run(play, jobs, "tuning"))
    tuned = []
    for setting in settings:
        values = [next(outcomes)["value"] for _ in choices]
        rate, step = best(choices, values, minimise=setting.scenario.metric == "loss")
        tuned.append(replace(setting, rate=rate, step=step))
    return tuned
