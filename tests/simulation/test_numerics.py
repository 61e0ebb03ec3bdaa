"""The page about fixed point tells what the runs came to."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import numerics
from benchmarks.numerics_page import FIXED, FLOAT, Compared, draw, page
from localfleet.processes import PROJECT
from protocol.spec.spec import Spec
from simulation.tasks.held_out import sine_tasks


def test_pairs_are_compared_with_their_doubt() -> None:
    # Differences of 1 to 5: their deviation is sqrt(2.5), their mean's sqrt(0.5).
    compared = Compared.of([11, 22, 33, 44, 55], [10, 20, 30, 40, 50])
    assert (compared.fixed, compared.real, compared.apart.mean) == (33, 30, 3)
    assert compared.apart.ci95 == pytest.approx(2.7764451 * 0.5**0.5)


def test_a_page_of_short_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Ten rounds of sines, five seeds, both engines; and a page of fixed point against itself.
    spec = Spec.from_file(PROJECT / "specs" / "sine.toml")
    spec = spec.model_copy(update={"rounds": spec.rounds.model_copy(update={"count": 10})})
    monkeypatch.setattr(numerics, "prepared", lambda *_: (spec, *sine_tasks(spec)))
    jobs = [
        numerics.Job("sine", None, engine, seed) for engine in (FIXED, FLOAT) for seed in range(5)
    ]
    outcomes = [numerics.run(job) for job in jobs]
    fixed, real = outcomes[:5], outcomes[5:]
    for outcome in outcomes:
        assert [at for at, _ in outcome.curve] == list(range(1, 11))
        assert outcome.curve[-1][1] < outcome.curve[0][1]
        # The curve asks other held-out tasks, of the same last model.
        assert outcome.end.loss == pytest.approx(outcome.curve[-1][1], rel=0.2)
    assert all(0 < outcome.largest_errors[0] < 0.1 for outcome in fixed)
    assert all(0 < outcome.largest_errors[1] < 1 for outcome in fixed)
    assert fixed[0].saturated["weights"] == 0
    for outcome in fixed:
        assert outcome.last == outcome.end
        assert outcome.last_in_float64.loss == pytest.approx(outcome.last.loss, rel=0.02)

    losses = [np.mean([outcome.end.loss for outcome in group]) for group in (fixed, real)]
    text = page(outcomes, tested=2000, versions=5, minutes=1.2)
    assert f"| sine | 10 | 5 | loss | {losses[0]:.4f} | {losses[1]:.4f} | " in text
    same = [replace(outcome, engine=FLOAT) for outcome in fixed]
    text = page(fixed + same, tested=2000, versions=5, minutes=1.2)
    assert f"| {losses[0]:.4f} | {losses[0]:.4f} | +0.00 % ± 0.00 |" in text
    draw(outcomes, tmp_path / "numerics.png")
    assert (tmp_path / "numerics.png").stat().st_size > 10_000
