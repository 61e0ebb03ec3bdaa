"""`make numerics`: what fixed point costs, against float64, on the three networks that ship.

Both engines learn from the same tasks in the same order, with the same codec and aggregation; then
each is evaluated on the same held-out tasks. Writes `docs/numerics.md` and `docs/numerics.png`; the
page tells how it is measured.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.lockstep import play
from benchmarks.numerics_page import FIXED, FLOAT, Outcome, Score, draw, page
from localfleet.processes import PROJECT
from protocol import fixed
from protocol.spec.spec import Spec
from simulation.engine.fixed import Engine
from simulation.engine.float64 import FloatEngine
from simulation.exam import measure
from simulation.tasks.held_out import character_tasks, sine_tasks, speaker_tasks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulation.tasks.base import Tasks

PAGE: Final = PROJECT / "docs" / "numerics.md"
PICTURE: Final = PROJECT / "docs" / "numerics.png"
ENGINES: Final[dict[str, type[Engine | FloatEngine]]] = {
    FIXED: Engine,
    FLOAT: FloatEngine,
}
SEEDS: Final = {"sine": 20, "omniglot": 5, "keywords": 5}
"""Sine's runs take seconds: more of them tell a finer difference."""
TESTED: Final = 2000
"""Held-out tasks, the same for every model."""
VERSIONS: Final = 5
"""Models that are evaluated, evenly spaced over the last tenth of the rounds."""
POINTS: Final = 10
"""Of a curve."""
CURVE: Final = 200
"""Held-out tasks for a point of a curve; and boards that are evaluated at a time."""


@dataclass(frozen=True)
class Job:
    """One run of one engine."""

    network: str
    data: Path | None
    engine: str
    seed: int


@cache
def prepared(network: str, data: Path | None) -> tuple[Spec, Tasks, Tasks]:
    """A spec and its tasks, to learn from and held out."""
    spec = Spec.from_file(PROJECT / "specs" / f"{network}.toml")
    if data is None:
        return spec, *sine_tasks(spec)
    make = speaker_tasks if network == "keywords" else character_tasks
    return spec, *make(spec, data)


def run(job: Job) -> Outcome:
    """Learn, and be evaluated."""
    spec, learned, tested = prepared(job.network, job.data)
    make, rounds = ENGINES[job.engine], spec.rounds.count
    engine, invited = make(spec, spec.rounds.cohort), make(spec, CURVE)
    is_classes = spec.is_classifier
    outcome = Outcome(job.network, job.engine, job.seed, rounds, is_classes)
    at_the_end = {rounds - part * rounds // (10 * VERSIONS) for part in range(VERSIONS)}
    scores = []
    published = spec.start()
    for model in play(spec, learned, engine, job.seed):
        published = model.published
        if model.version % (rounds // POINTS) == 0:
            loss = measure(spec, published, tested, invited, seed=0).loss.mean()
            outcome.curve.append((model.version, float(loss)))
        if model.version in at_the_end:
            scores.append(score(spec, published, tested, invited))
    outcome.end = Score.mean(scores)
    if isinstance(engine, Engine):
        outcome.last = scores[-1]
        outcome.last_in_float64 = score(spec, published, tested, FloatEngine(spec, CURVE))
        outcome.saturated = engine.saturated
        outcome.largest_errors = (
            largest_error(spec, spec.start(), learned, job.seed),
            largest_error(spec, published, learned, job.seed),
        )
    return outcome


def score(
    spec: Spec, published: NDArray[np.int16], tested: Tasks, engine: Engine | FloatEngine
) -> Score:
    """What a model comes to on all held-out tasks."""
    parts = [
        measure(spec, published, tested, engine, seed) for seed in range(1, 1 + TESTED // CURVE)
    ]
    return Score.mean([Score(part.loss.mean(), part.accuracy.mean()) for part in parts])


def largest_error(
    spec: Spec, published: NDArray[np.int16], learned: Tasks, seed: int, boards: int = 8
) -> float:
    """By how much the engines' parameters differ at most after the same round."""
    x, y = learned.draw(np.random.default_rng(seed), boards)
    after = []
    for make in ENGINES.values():
        engine = make(spec, boards)
        engine.load(published, local=False)
        engine.load(spec.local_start(), local=True)
        engine.seed(range(boards))
        for i in range(len(x)):
            engine.step(x[i], y[i], local=i < spec.training.support)
        after.append(np.concatenate([engine.flat(local=side) for side in (False, True)], axis=1))
    return float(np.abs(after[0] - after[1]).max() / 2**fixed.WEIGHT_BITS)


def main() -> None:
    """Run all and write the report."""
    parser = argparse.ArgumentParser(description="What fixed point costs, against float64.")
    parser.add_argument("--omniglot", type=Path, help="the data set, as it is published, or .npz")
    parser.add_argument("--speech", type=Path, help="Speech Commands' folders")
    options = parser.parse_args()
    networks = {"sine": None, "omniglot": options.omniglot, "keywords": options.speech}
    for name, option in (("omniglot", "--omniglot"), ("keywords", "--speech")):
        if networks[name] is None:
            print(f"{name} is left out: give its data by {option}")
            del networks[name]
    jobs = [
        Job(name, data, engine, seed)
        for name, data in networks.items()
        for engine in ENGINES
        for seed in range(SEEDS[name])
    ]
    start, outcomes = time.monotonic(), []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for _, group in itertools.groupby(pool.map(run, jobs), lambda outcome: outcome.network):
            for outcome in group:
                outcomes.append(outcome)
                print(
                    f"{outcome.network} {outcome.engine}, seed {outcome.seed}: "
                    f"loss {outcome.end.loss:.4f}, accuracy {outcome.end.accuracy:.1%}",
                    flush=True,
                )
            # Again after each network: who stops the rest keeps what is done.
            minutes = (time.monotonic() - start) / 60
            text = page(outcomes, tested=TESTED, versions=VERSIONS, minutes=minutes)
            PAGE.write_text(text, encoding="utf-8")
            draw(outcomes, PICTURE)
    print(f"{PAGE}\n{PICTURE}\n{minutes:.0f} minutes")


if __name__ == "__main__":
    main()
