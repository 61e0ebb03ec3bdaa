"""How every strategy ends on the sine task: with ten honest boards, and with one of them poisoned.

    make bench-strategies

The poisoned board sends what it learned times -100, saturated where the format ends: the worst that
passes the checks of a message. All runs of a seed have the same tasks. The loss is that of held-out
tasks after reconstruction; ``to clean`` is to the mean of ten honest boards.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.lockstep import honest, play
from localfleet.processes import PROJECT
from protocol.sparse import LARGEST
from protocol.spec.rounds import Rounds
from protocol.spec.spec import Spec
from simulation.engine.fixed import Engine
from simulation.exam import measure
from simulation.tasks.sines import SineTasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from protocol.fixed import Words

BOARDS: Final = 10
PLAIN: Final = {"optimizer": {"rule": "step"}, "step_max": 3.0}
"""The paper's rule, which every strategy differs from in one thing ..."""
RATES: Final = {"rate_local": 0.02, "rate_global": 0.01}
"""... and rates on boards that suit it."""
TESTED: Final = 500
"""Held-out tasks at the end."""


@dataclass(frozen=True)
class Strategy:
    """What a spec says of it: keys and values of [rounds]."""

    name: str
    rounds: dict[str, Any]


STRATEGIES: Final = (
    Strategy("mean", {}),
    Strategy("mean, clip_norm 0.3", {"combine": {"clip_norm": 0.3}}),
    Strategy("count", {"combine": {"rule": "count"}, "step_max": 1.0}),
    Strategy("median, byzantine 1", {"combine": {"rule": "median", "byzantine": 1}}),
    Strategy("trimmed_mean, trim 1", {"combine": {"rule": "trimmed_mean", "trim": 1}}),
    Strategy("krum, byzantine 1", {"combine": {"rule": "krum", "byzantine": 1}}),
    Strategy("multi_krum, 1, 9", {"combine": {"rule": "multi_krum", "byzantine": 1, "keep": 9}}),
    Strategy("avgm", {"optimizer": {"rule": "avgm"}, "step_max": 0.6}),
    Strategy("adagrad", {"optimizer": {"rule": "adagrad"}, "step_max": 0.1}),
    Strategy("adam", {"optimizer": {"rule": "adam"}, "step_max": 0.03}),
    Strategy("yogi", {"optimizer": {"rule": "yogi"}, "step_max": 0.03}),
)


def poisoned(changes: Words) -> Words:
    """The first board's changes turned round and blown up."""
    changes = changes.copy()
    changes[0] = np.clip(-100 * changes[0], -LARGEST, LARGEST)
    return changes


def sines(rounds: dict[str, Any]) -> Spec:
    """The shipped spec of the sine task with other rates and [rounds]."""
    spec = Spec.from_file(PROJECT / "specs" / "sine.toml")
    settings = spec.rounds.model_dump(exclude_defaults=True) | {"cohort": BOARDS} | PLAIN | rounds
    training = spec.training.model_copy(update=RATES)
    changes = {"training": training, "rounds": Rounds.model_validate(settings)}
    return spec.model_copy(update=changes)


def final_loss(rounds: dict[str, Any], claim: Callable[[Words], Words], seed: int) -> float:
    """What a fleet comes to."""
    spec = sines(rounds)
    tasks = SineTasks.of(spec)
    *_, model = play(spec, tasks, Engine(spec, BOARDS), seed, claim)
    return float(measure(spec, model.published, tasks, Engine(spec, TESTED), seed=1).loss.mean())


def main() -> None:
    """Play all."""
    parser = argparse.ArgumentParser(description="Play every strategy, clean and poisoned.")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # The pool has the cores.
    table = Table(title=f"{options.rounds} rounds, {options.seeds} seeds: loss, standard error")
    for head in ("strategy", "step_max", "clean", "to clean", "poisoned", "to clean"):
        table.add_column(head, justify="left" if head == "strategy" else "right")
    with ProcessPoolExecutor(options.jobs) as pool:
        jobs = [
            pool.submit(final_loss, one.rounds | {"count": options.rounds}, claim, seed)
            for one in STRATEGIES
            for claim in (honest, poisoned)
            for seed in range(options.seeds)
        ]
        losses = np.array([job.result() for job in jobs]).reshape(len(STRATEGIES), 2, -1)
    clean = losses[0, 0].mean()
    for one, both in zip(STRATEGIES, losses, strict=True):
        cells = [one.name, f"{sines(one.rounds).rounds.step_max}"]
        for runs in both:
            error = runs.std(ddof=1) / len(runs) ** 0.5
            cells += [f"{runs.mean():.3f} ± {error:.3f}", f"{runs.mean() / clean - 1:+.0%}"]
        table.add_row(*cells)
    Console().print(table)


if __name__ == "__main__":
    main()
