"""A whole simulation by one call: what it is given, what it calls back, and what it comes to."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localfleet.processes import PROJECT
from protocol.fixed import Words
from protocol.spec.spec import Spec
from rounds.combine import Combination, Mean, Sums, Updates
from rounds.optimizers import Floats, Step
from simulation import Settings, simulate
from simulation.boards import Crew, Trainer
from simulation.conditions import Conditions, Poisoning, Sleep
from simulation.engine.fixed import Engine
from simulation.errors import DataError, SimulationError
from simulation.exam import Evaluation, measure
from simulation.record import Record
from simulation.run import Run, board_names
from simulation.tasks.base import Tasks
from simulation.tasks.sines import SineTasks

SINE = Spec.from_file(PROJECT / "specs" / "sine.toml")
SPEC = SINE.model_copy(
    update={
        "rounds": SINE.rounds.model_copy(update={"count": 6, "cohort": 4}),
        "training": SINE.training.model_copy(update={"support": 3, "query": 3}),
    }
)
SHORT = Settings(spec=SPEC, boards=6, evaluations=10, seed=3)


def test_a_simulation_is_a_run_and_an_evaluation() -> None:
    conditions = Conditions(stragglers=0.5, dropout=0.2, sleep=Sleep(0.8, 20))
    summary = simulate(replace(SHORT, conditions=conditions))
    names, tasks = board_names(6), SineTasks.of(SPEC)
    trainer = Trainer(SPEC, names, tasks, Engine, Poisoning(), seed=3)
    with Crew(trainer) as crew:
        run = Run(SPEC, names, crew, conditions, seed=3)
        assert summary.records == tuple(run.rounds())
    assert summary.is_complete
    assert summary.model.checksum == run.model.checksum
    evaluation = measure(SPEC, run.model.published, tasks, Engine(SPEC, 10), round_=6)
    assert summary.held_out_loss == evaluation.loss.mean()
    assert summary.bytes_up == sum(record.bytes_up for record in summary.records)


def test_figures_and_records_are_what_scripts_read() -> None:
    summary = simulate(SHORT)
    figures = summary.figures()
    assert {"records", "model", "is_complete"}.isdisjoint(figures)
    assert (figures["boards"], figures["rounds"], figures["version"]) == (6, 6, 6)
    first = summary.records[0]
    assert first.to_json().items() < asdict(first).items()
    assert (first.step, first.canary_loss) == (SPEC.rounds.step_max, None)


def test_who_asks_is_called_back() -> None:
    heard: list[tuple[int, Evaluation | None]] = []
    starts: list[int] = []
    settings = replace(
        SHORT,
        evaluate_every=2,
        on_start=lambda: starts.append(len(heard)),
        on_round=lambda record, evaluation: heard.append((record.round, evaluation)),
    )
    summary = simulate(settings)
    assert starts == [0]
    assert [round_ for round_, _ in heard] == [0, 1, 2, 3, 4, 5]
    assert [evaluation is not None for _, evaluation in heard] == [False, True] * 3
    _, last = heard[-1]
    assert last is not None
    assert summary.held_out_loss == last.loss.mean()


def test_ctrl_c_leaves_what_there_is() -> None:
    def interrupt(record: Record, evaluation: Evaluation | None) -> None:
        del evaluation
        if record.round == 2:
            raise KeyboardInterrupt

    summary = simulate(replace(SHORT, on_round=interrupt))
    assert (summary.is_complete, summary.rounds, summary.model.version) == (False, 3, 3)
    assert summary.held_out_loss is None


def test_float64_comes_near_to_fixed_point() -> None:
    fixed_point, real = simulate(SHORT), simulate(replace(SHORT, arithmetic="float64"))
    assert real.records != fixed_point.records
    assert real.records[0].loss == pytest.approx(fixed_point.records[0].loss, rel=0.05)


# --- One's own tasks and strategy


class Lines(Tasks):
    """Straight lines; asked for by board and round."""

    def __init__(self) -> None:
        self.asked: set[tuple[int, int]] = set()

    def samples(self, board: int, round_: int, rng: np.random.Generator) -> tuple[Words, Words]:
        self.asked.add((board, round_))
        x = rng.integers(-1000, 1000, (6, 1))
        return x, x // 2


def test_own_tasks_are_learned_and_are_not_held_out_unless_given() -> None:
    lines = Lines()
    summary = simulate(replace(SHORT, tasks=lines))
    assert len(lines.asked) == 4 * 6
    assert summary.held_out_loss is None
    exam = Lines()
    assert simulate(replace(SHORT, tasks=Lines(), held_out=exam)).held_out_loss is not None
    assert exam.asked == {(board, 6) for board in range(10)}  # At the end.


class Watched(Mean):
    """The mean, and the boards that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.boards: list[set[str]] = []

    def combine(self, sums: Sums, updates: Updates) -> Combination:
        self.boards.append({board for board, _ in updates})
        return super().combine(sums, ())


class Backwards(Step):
    """Away from where the boards went."""

    def move(self, change: Floats, moments: Floats, step: float) -> Floats:
        return -super().move(change, moments, step)


PLAIN = replace(
    SHORT,
    spec=SPEC.model_copy(
        update={"rounds": SINE.rounds.model_copy(update={"count": 6, "cohort": 4, "step_max": 1.0})}
    ),
)


def test_an_own_rule_combines_every_rounds_updates() -> None:
    rule = Watched()
    own, given = simulate(replace(SHORT, rule=rule)), simulate(SHORT)
    assert [len(boards) for boards in rule.boards] == [record.accepted for record in own.records]
    assert own.records == given.records  # The spec's rule is the mean.
    assert own.model.checksum == given.model.checksum


def test_an_own_optimizer_moves_the_model() -> None:
    def first_move(settings: Settings) -> Any:
        spec = settings.spec.model_copy(
            update={"rounds": settings.spec.rounds.model_copy(update={"count": 1})}
        )
        return simulate(replace(settings, spec=spec)).model.fine - spec.start()

    forwards = first_move(replace(PLAIN, optimizer=Step()))
    backwards = first_move(replace(PLAIN, optimizer=Backwards()))
    assert np.abs(forwards).max() > 1
    np.testing.assert_array_equal(backwards, -forwards)


@pytest.mark.slow
def test_the_example_of_an_own_strategy_learns() -> None:
    command = [sys.executable, "-m", "simulation.examples.own_strategy", "specs/sine.toml"]
    done = subprocess.run(
        [*command, "--rounds", "40"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    given, own = done.stdout.splitlines()
    for line in (given, own):
        first, last = map(float, re.findall(r"(\d+\.\d+) (?:at first|on held-out)", line))
        assert last < 0.7 * first
    assert given.startswith("the spec's: ")
    assert own.endswith("8 updates voted")


@pytest.mark.slow
def test_the_page_shows_a_simulation_that_runs() -> None:
    page = (PROJECT / "docs" / "simulation.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    small = program.replace("boards=1000", "boards=20")
    assert small != program
    done = subprocess.run(
        [sys.executable, "-c", small], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    held_out, losses = done.stdout.split(maxsplit=1)
    assert float(held_out) < 1
    assert losses.count(",") == SINE.rounds.count - 1


# --- What cannot be done


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"boards": 0}, "boards 0: at least 1 is needed"),
        ({"seed": -1}, "seed -1: at least 0"),
        ({"processes": 0}, "processes 0: at least 1"),
        ({"evaluations": -1}, "evaluations -1: at least 0"),
        ({"evaluate_every": 0}, "evaluate_every 0: at least 1"),
        ({"arithmetic": "float32"}, "arithmetic 'float32': there are fixed and float64"),
        ({"label_noise": 1.5}, "label_noise 1.5: a share is from 0 to 1"),
        ({"alpha": 0.0}, r"alpha 0\.0: it must be above 0"),
        ({"held_out": SineTasks(6)}, "held_out are given without tasks"),
        ({"tasks": SineTasks(6), "data": Path("log.csv")}, "leave out data, split and alpha"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, Any], message: str) -> None:
    make: Callable[..., Settings] = Settings
    with pytest.raises(SimulationError, match=message):
        make(spec=SPEC, **given)


def test_data_are_read_before_anything_starts() -> None:
    starts: list[int] = []
    settings = Settings(spec=SPEC, data=Path("nowhere"), on_start=lambda: starts.append(1))
    with pytest.raises(DataError, match="nowhere: there is no such file"):
        simulate(settings)
    assert not starts


def test_there_are_no_more_processes_than_batches() -> None:
    assert replace(SHORT, processes=None).workers == 1
    assert replace(SHORT, processes=5).workers == 5
