"""`make numerics`: what fixed point costs, against float64, on the three networks that ship.

Both engines learn from the same tasks in the same order, with the same codec and aggregation; then
each is asked the same held-out tasks. Writes `docs/numerics.md` and `docs/numerics.png`.
"""

from __future__ import annotations

import argparse
import itertools
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from localfleet.processes import PROJECT
from protocol.spec import Spec
from simulation.engine import Engine
from simulation.fleet import measure, play
from simulation.float64 import FloatEngine
from simulation.held_out import character_tasks, sine_tasks, speaker_tasks
from simulation.tasks import Tasks

PAGE: Final = PROJECT / "docs" / "numerics.md"
PICTURE: Final = PROJECT / "docs" / "numerics.png"
ENGINES: Final[dict[str, type[Engine | FloatEngine]]] = {
    "fixed point": Engine,
    "float64": FloatEngine,
}
SEEDS: Final = 5
TESTED: Final = 500
"""Held-out tasks at the end."""
POINTS: Final = 6
"""Of a curve."""
CURVE: Final = 100
"""Held-out tasks for a point of a curve."""


@dataclass(frozen=True)
class Job:
    """One run of one engine."""

    spec: Path
    data: Path | None
    rounds: int
    engine: str
    seed: int


@dataclass
class Outcome:
    """What came of it."""

    job: Job
    loss: float = 0.0
    """On held-out tasks, at the end."""
    accuracy: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)
    """Rounds, and the loss on held-out tasks after them."""
    saturated: dict[str, int] = field(default_factory=dict)


@cache
def prepared(path: Path, data: Path | None, rounds: int) -> tuple[Spec, Tasks, Tasks]:
    """A spec for so many rounds, and its tasks."""
    spec = Spec.from_file(path)
    spec = spec.model_copy(update={"rounds": spec.rounds.model_copy(update={"count": rounds})})
    if data is None:
        return spec, *sine_tasks(spec)
    make = speaker_tasks if path.stem == "keywords" else character_tasks
    return spec, *make(spec, data)


def run(job: Job) -> Outcome:
    """Learn, and be asked."""
    spec, learned, tested = prepared(job.spec, job.data, job.rounds)
    engine = ENGINES[job.engine](spec, spec.rounds.cohort)
    outcome = Outcome(job)
    every = max(1, job.rounds // POINTS)
    model = None
    for model in play(spec, learned, engine, job.seed):
        if model.version % every == 0:
            few = ENGINES[job.engine](spec, CURVE)
            loss = measure(spec, model.published, tested, few, seed=1).loss.mean()
            outcome.curve.append((model.version, float(loss)))
    if model is not None:
        many = ENGINES[job.engine](spec, TESTED)
        measured = measure(spec, model.published, tested, many, seed=2)
        outcome.loss = float(measured.loss.mean())
        outcome.accuracy = float(measured.accuracy.mean())
    outcome.saturated = getattr(engine, "saturated", {})
    return outcome


def largest_error(job: Job) -> float:
    """By how much the engines' weights differ at most after the same round, in weight units."""
    spec, learned, _ = prepared(job.spec, job.data, job.rounds)
    after = []
    for make in ENGINES.values():
        engine = make(spec, 8)
        engine.load(spec.start(), local=False)
        engine.load(spec.local_start(), local=True)
        engine.seed(range(8))
        x, y = learned.draw(np.random.default_rng(job.seed), 8)
        for i in range(len(x)):
            engine.step(x[i], y[i], local=i < spec.training.support)
        after.append(np.concatenate([engine.flat(local=side) for side in (False, True)], axis=1))
    return float(np.abs(after[0] - after[1]).max())


def page(outcomes: list[Outcome], errors: dict[str, float]) -> str:
    """The report."""
    rows, saturation = [], []
    for name, group in itertools.groupby(outcomes, lambda outcome: outcome.job.spec.stem):
        mine = list(group)
        spec = Spec.from_file(mine[0].job.spec)
        is_classes = spec.model.loss == "cross_entropy"
        of = {
            engine: [outcome for outcome in mine if outcome.job.engine == engine]
            for engine in ENGINES
        }
        mean = {
            engine: np.mean([o.accuracy if is_classes else o.loss for o in found])
            for engine, found in of.items()
        }
        spread = {
            engine: np.std([o.accuracy if is_classes else o.loss for o in found], ddof=1)
            for engine, found in of.items()
        }
        form = "{:.1%} ± {:.1%}" if is_classes else "{:.4f} ± {:.4f}"
        cells = [form.format(mean[engine], spread[engine]) for engine in ENGINES]
        apart = mean["fixed point"] - mean["float64"]
        difference = (
            f"{100 * apart:+.1f} points" if is_classes else f"{apart / mean['float64']:+.1%}"
        )
        what = "accuracy" if is_classes else "loss"
        rows.append(
            f"| {name} | {what} | {mine[0].job.rounds} | {' | '.join(cells)} | {difference} | "
            f"{errors[name] / 2**12:.4f} |"
        )
        total = {
            key: sum(o.saturated[key] for o in of["fixed point"])
            for key in of["fixed point"][0].saturated
        }
        saturation.append(f"| {name} | " + " | ".join(f"{n:,}" for n in total.values()) + " |")
    return TEXT.format(
        seeds=SEEDS, tested=TESTED, rows="\n".join(rows), saturation="\n".join(saturation)
    )


TEXT: Final = """# Fixed point against float64

Written by `make numerics`; the table is not edited by hand. Both engines learn the same tasks in
the same order, from the same start, with the same codec and the same aggregation; only the boards'
arithmetic differs. {seeds} seeds, mean and standard deviation over them; at the end each is asked
{tested} held-out tasks, after its support samples. Stochastic rounding makes two runs part ways, as
two float64 runs of other seeds would: single seeds differ by more than the means.

| network | measure | rounds | fixed point | float64 | difference | largest error of a weight |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

The largest error of a weight is that of any of 8 boards after one round from the same start.

![loss on held-out tasks over the rounds](numerics.png)

What saturated in training, over all seeds:

| network | activations | errors | weights |
| --- | --- | --- | --- |
{saturation}

Formats and bounds stand in `protocol/fixed.py`. Nothing wraps, whatever the data: tests drive every
kernel to its extremes. Gradients are clipped where the error format ends, or at the spec's `clip`.
"""


def draw(outcomes: list[Outcome], path: Path) -> None:
    """Draw the losses over the rounds, a panel a network."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to load

    names = list(dict.fromkeys(outcome.job.spec.stem for outcome in outcomes))
    figure = Figure(figsize=(4 * len(names), 3.4), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        for engine, colour in (("float64", "#9a9a9a"), ("fixed point", "#0b6e99")):
            curves = [
                outcome.curve
                for outcome in outcomes
                if (outcome.job.spec.stem, outcome.job.engine) == (name, engine)
            ]
            rounds = [at for at, _ in curves[0]]
            losses = np.array([[loss for _, loss in curve] for curve in curves])
            axes.plot(rounds, losses.T, color=colour, alpha=0.25, linewidth=1)
            axes.plot(rounds, losses.mean(axis=0), color=colour, linewidth=2, label=engine)
        axes.set(title=name, xlabel="round", ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("loss on held-out tasks")
    panels[0].legend(frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run all and write the report."""
    parser = argparse.ArgumentParser(description="What fixed point costs, against float64.")
    parser.add_argument("--omniglot", type=Path, help="the data set, as it is published, or .npz")
    parser.add_argument("--speech", type=Path, help="Speech Commands' folders")
    options = parser.parse_args()
    networks: list[tuple[str, Path | None, int]] = [("sine", None, 300)]
    for name, data, rounds in (
        ("omniglot", options.omniglot, 150),
        ("keywords", options.speech, 150),
    ):
        if data is None:
            print(
                f"{name} is left out: give its data by --{'speech' if name == 'keywords' else name}"
            )
        else:
            networks.append((name, data, rounds))
    jobs = [
        Job(PROJECT / "specs" / f"{name}.toml", data, rounds, engine, seed)
        for name, data, rounds in networks
        for engine in ENGINES
        for seed in range(SEEDS)
    ]
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # The pool has the cores.
    outcomes = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for outcome in pool.map(run, jobs):
            outcomes.append(outcome)
            job = outcome.job
            print(
                f"{job.spec.stem} {job.engine}, seed {job.seed}: loss {outcome.loss:.4f}, "
                f"accuracy {outcome.accuracy:.1%}",
                flush=True,
            )
        firsts = {job.spec.stem: job for job in jobs}
        errors = dict(zip(firsts, pool.map(largest_error, firsts.values()), strict=True))
    PAGE.write_text(page(outcomes, errors), encoding="utf-8")
    draw(outcomes, PICTURE)
    print(f"{PAGE}\n{PICTURE}")


if __name__ == "__main__":
    main()
