"""One setting of a fleet, played: the job that the experiments on partition and Top-P share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from experiments.fleet import Fleet, Recipe, with_rates, without_local
from experiments.report import Estimate
from experiments.selections import Rival, rival
from localfleet.processes import PROJECT
from protocol.network import Pool
from protocol.spec import Spec
from simulation.held_out import tasks_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from experiments.study import Outcome, Study
    from simulation.tasks import Tasks

TUNING_SEED: Final = 1_000
"""No run that counts has it."""
TUNING_TASKS: Final = 200
CURVE_TASKS: Final = {"sine": 200, "omniglot": 60, "keywords": 60}
"""Held-out tasks asked on the way: fewer than at the end."""


@dataclass(frozen=True)
class Setting:
    """All that decides a run."""

    network: str
    """A shipped spec, by name."""
    data: Path | None
    rounds: int
    tasks: int
    """Held-out tasks that the model is asked in the end."""
    points: int
    """Of the curve, the end included."""
    local: tuple[int, ...] | None = None
    """Places of the layers that stay on the board; none at all, or None for the spec's."""
    percent: float | None = None
    """P; None for the spec's, as below."""
    percent_down: float | None = None
    bits: int | None = None
    feedback: bool = False
    rival: Rival | None = None
    """What is sent instead of the largest P %."""
    rate: float = 1.0
    """Factor of both of the spec's rates ..."""
    step: float = 1.0
    """... and of the server's step."""
    seed: int = 0
    is_tuning: bool = False
    """In float64 and asked about training tasks: to choose what the runs that count are given."""


def read(network: str) -> Spec:
    """A shipped spec."""
    return Spec.from_file(PROJECT / "specs" / f"{network}.toml")


def metric(spec: Spec) -> str:
    """What tells how good a model is."""
    return "loss" if spec.model.loss == "mse" else "accuracy"


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
    spec = read(setting.network)
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
        "count": setting.rounds,
        "step_max": rounds.step_max * setting.step,
        "percent_down": setting.percent_down or rounds.percent_down,
    }
    return spec.model_copy(
        update={
            "training": spec.training.model_copy(update=changes),
            "rounds": rounds.model_copy(update=plan),
        }
    )


@cache
def tasks_of(network: str, data: Path | None) -> tuple[Tasks, Tasks]:
    """To learn from, and held out; a process reads its data once."""
    learned, held_out = tasks_for(read(network), data)
    assert held_out is not None  # noqa: S101 - it was asked for
    return learned, held_out


def play(setting: Setting) -> Outcome:
    """Play a setting: its curve of rounds, bytes of the fleet both ways, and loss or accuracy."""
    spec = spec_of(setting)
    sends = None
    if setting.rival is not None:
        sends = rival(setting.rival, spec.training.percent, setting.seed)
    learned, held_out = tasks_of(setting.network, setting.data)
    asked = learned if setting.is_tuning else held_out
    fleet = Fleet(Recipe(spec, sends=sends), learned, setting.seed, real=setting.is_tuning)
    what, seed = metric(spec), TUNING_SEED + setting.seed
    few = min(setting.tasks, CURVE_TASKS[setting.network])
    curve: list[list[float]] = []
    with np.errstate(all="ignore"):  # In float64 a setting that is no good may diverge.
        for rounds in fleet.play():
            is_last = rounds == setting.rounds
            if is_last or rounds % -(-setting.rounds // setting.points) == 0:
                found = fleet.measure(asked, setting.tasks if is_last else few, seed)
                value = float(getattr(found, what).mean())
                curve.append([rounds, fleet.bytes_up + fleet.bytes_down, value])
    return {
        what: curve[-1][2],
        "bytes_up": fleet.bytes_up,
        "bytes_down": fleet.bytes_down,
        "operations": fleet.operations,
        "curve": curve,
    }


def tune(
    study: Study,
    settings: Mapping[str, Setting],
    choices: Sequence[Mapping[str, float]],
    rounds: int,
) -> dict[str, Setting]:
    """Each setting with the choice that does best for it on training tasks.

    Args:
        study: runs them.
        settings: by name.
        choices: fields of a setting to try.
        rounds: of such a run.
    """
    jobs = [
        replace(
            setting,
            **dict(choice),
            rounds=rounds,
            tasks=TUNING_TASKS,
            points=1,
            seed=TUNING_SEED,
            is_tuning=True,
        )
        for setting in settings.values()
        for choice in choices
    ]
    outcomes = iter(study.run(play, jobs, "tuning"))
    best = {}
    for name, setting in settings.items():
        losses = [_badness(next(outcomes)) for _ in choices]
        best[name] = replace(setting, **dict(choices[int(np.argmin(losses))]))
    return best


def _badness(outcome: Outcome) -> float:
    value = outcome["loss"] if "loss" in outcome else -outcome["accuracy"]
    return float(value) if np.isfinite(value) else float("inf")


def compare(
    study: Study, settings: Mapping[str, Setting], seeds: int, title: str
) -> dict[str, dict[str, Any]]:
    """Each setting with several seeds, in the form of results.json, by name.

    Seeds share samples and held-out tasks among settings, so that settings differ in nothing else.
    ``finals`` holds each seed's last value, in order; ``curves`` each seed's curve.
    """
    jobs = [replace(setting, seed=seed) for setting in settings.values() for seed in range(seeds)]
    outcomes = iter(study.run(play, jobs, title))
    results = {}
    for name, setting in settings.items():
        runs = [next(outcomes) for _ in range(seeds)]
        what = "loss" if "loss" in runs[0] else "accuracy"
        finals = [run[what] for run in runs]
        found = Estimate.of(finals)
        results[name] = {
            what: {"mean": found.mean, "ci95": found.ci95},
            **{
                key: float(np.mean([run[key] for run in runs]))
                for key in ("bytes_up", "bytes_down", "operations")
            },
            "rounds": setting.rounds,
            "curve": np.mean([run["curve"] for run in runs], axis=0).tolist(),
            "finals": finals,
            "curves": [run["curve"] for run in runs],
        }
    return results


def difference(results: Mapping[str, Any], one: str, other: str) -> Estimate:
    """By how much one setting's value is above another's, seed by seed."""
    pairs = zip(results[one]["finals"], results[other]["finals"], strict=True)
    return Estimate.of([a - b for a, b in pairs])
