"""What settings come to beside each other: a run of each with every seed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from experiments.methods.settings import Setting, play, spec_of
from simulation.statistics import Estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from experiments.harness.study import Outcome, Study
    from experiments.methods.selections import Baseline
    from protocol.spec.spec import Spec


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """A run, or the mean of several, after some rounds."""

    rounds: float
    bytes: float
    """Up and down, of all boards."""
    value: float
    """Loss or accuracy."""


@dataclass(frozen=True, kw_only=True)
class SettingRun:
    """What a setting came to with one seed."""

    value: float
    """Loss or accuracy at the end."""
    bytes_up: float
    """Of all boards, over the whole run; likewise ..."""
    bytes_down: float
    operations: float
    """Multiply-accumulates."""
    curve: tuple[CurvePoint, ...]

    @classmethod
    def of(cls, outcome: Outcome) -> SettingRun:
        """Of what :func:`play` returned."""
        curve = [
            CurvePoint(rounds=rounds, bytes=sent, value=value)
            for rounds, sent, value in outcome["curve"]
        ]
        return cls(
            value=outcome["value"],
            bytes_up=outcome["bytes_up"],
            bytes_down=outcome["bytes_down"],
            operations=outcome["operations"],
            curve=tuple(curve),
        )


@dataclass(frozen=True, kw_only=True)
class SettingResult:
    """What a setting came to with several seeds."""

    setting: Setting
    runs: Sequence[SettingRun]
    """One a seed, in order."""

    @property
    def spec(self) -> Spec:
        """That the setting stands for."""
        return spec_of(self.setting)

    @property
    def selection(self) -> Literal["top"] | Baseline:
        """Which changes are sent: the largest, or what a baseline chooses."""
        return self.setting.baseline or "top"

    @property
    def value(self) -> Estimate:
        """Loss or accuracy at the end."""
        return Estimate.of([run.value for run in self.runs])

    @property
    def bytes_up(self) -> float:
        """Mean over the runs; likewise below."""
        return float(np.mean([run.bytes_up for run in self.runs]))

    @property
    def bytes_down(self) -> float:
        """From the aggregator to all boards."""
        return float(np.mean([run.bytes_down for run in self.runs]))

    @property
    def bytes(self) -> float:
        """Both ways."""
        return self.bytes_up + self.bytes_down

    @property
    def operations(self) -> float:
        """Multiply-accumulates of all boards' training."""
        return float(np.mean([run.operations for run in self.runs]))

    @property
    def curve(self) -> list[CurvePoint]:
        """Mean over the runs, point by point."""
        curves = [run.curve for run in self.runs]
        return [
            CurvePoint(
                rounds=float(np.mean([point.rounds for point in points])),
                bytes=float(np.mean([point.bytes for point in points])),
                value=float(np.mean([point.value for point in points])),
            )
            for points in zip(*curves, strict=True)
        ]

    def difference(self, other: SettingResult) -> Estimate:
        """By how much the value is above another setting's, seed by seed.

        Of one seed the interval is infinite.
        """
        pairs = zip(self.runs, other.runs, strict=True)
        gaps = [ours.value - its.value for ours, its in pairs]
        return Estimate.of(gaps) if len(gaps) > 1 else Estimate(mean=gaps[0], ci95=math.inf)

    def record(self) -> dict[str, Any]:
        """For results.json: the setting's fields, then its figures."""
        setting, spec, value = self.setting, self.spec, self.value
        return {
            "network": setting.scenario.network,
            "local": [place for place, layer in enumerate(spec.layers) if layer.local],
            "selection": self.selection,
            "percent": spec.training.percent,
            "percent_down": spec.rounds.percent_down,
            "value_bits": spec.training.value_bits,
            "feedback": setting.feedback,
            "rate_factor": setting.rate,
            "step_factor": setting.step,
            setting.scenario.metric: {"mean": value.mean, "ci95": value.ci95},
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
            "operations": self.operations,
            "rounds": setting.scenario.rounds,
            "curve": _points(self.curve),
            "finals": [run.value for run in self.runs],
            "curves": [_points(run.curve) for run in self.runs],
        }


def _points(curve: Sequence[CurvePoint]) -> list[list[float]]:
    return [[point.rounds, point.bytes, point.value] for point in curve]


def compare(
    study: Study, settings: Sequence[Setting], seeds: int, title: str
) -> list[SettingResult]:
    """Run each setting with several seeds.

    Settings share samples and held-out tasks in a seed, so that they differ in nothing else.

    Args:
        study: runs them.
        settings: no two are equal.
        seeds: how many, from 0.
        title: of the progress bar.
    """
    jobs = [replace(setting, seed=seed) for setting in settings for seed in range(seeds)]
    outcomes = iter(study.run(play, jobs, title))
    return [
        SettingResult(setting=setting, runs=[SettingRun.of(next(outcomes)) for _ in range(seeds)])
        for setting in settings
    ]
