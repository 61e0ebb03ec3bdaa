"""A whole simulation by one call: the fleet, its rounds, its evaluation."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from simulation.boards import Crew, Trainer
from simulation.engine.arithmetic import ENGINES
from simulation.exam import Exam
from simulation.run import Run, board_names
from simulation.summary import Summary, summarise

if TYPE_CHECKING:
    from simulation.record import Record
    from simulation.settings import Settings
    from simulation.tasks.base import Tasks


def simulate(settings: Settings) -> Summary:
    """Play a fleet's rounds, bit for bit as boards compute and as the aggregator decides.

    Ctrl-C ends it early with what there is, which is then not evaluated.

    Raises:
        SimulationError: a process that trains has died.
        DataError: the data are absent, are something else, or do not fit the spec.
    """
    spec, conditions = settings.spec, settings.conditions
    learned, held_out = settings.read_tasks()
    exam = _exam(settings, held_out)
    names = board_names(settings.boards)
    trainer = Trainer(
        spec=spec,
        names=names,
        tasks=learned,
        engine=ENGINES[settings.arithmetic],
        poisoned=conditions.poisoned,
        seed=settings.seed,
    )
    if settings.on_start is not None:
        settings.on_start()
    start = time.monotonic()
    with Crew(trainer, settings.workers) as crew:
        run = Run(
            spec,
            names,
            crew,
            conditions,
            settings.seed,
            rule=settings.rule,
            optimizer=settings.optimizer,
        )
        records, is_complete = _play(run, exam, settings)
    evaluation = None
    if exam is not None and is_complete:
        evaluation = exam.evaluate(run.model.published, run.core.round)
    return summarise(
        spec=spec,
        boards=settings.boards,
        records=records,
        model=run.model,
        held_out=evaluation,
        is_complete=is_complete,
        seconds=time.monotonic() - start,
    )


def _exam(settings: Settings, held_out: Tasks | None) -> Exam | None:
    if held_out is None:
        return None
    return Exam(
        spec=settings.spec,
        tasks=held_out,
        engine=ENGINES[settings.arithmetic],
        count=settings.evaluations,
        every=settings.evaluate_every,
    )


def _play(run: Run, exam: Exam | None, settings: Settings) -> tuple[list[Record], bool]:
    """Play the rounds: those that are over, and whether these are all."""
    records: list[Record] = []
    try:
        for record in run.rounds():
            records.append(record)
            evaluation = None
            if exam is not None and exam.is_due(run.core.round):
                evaluation = exam.evaluate(run.model.published, run.core.round)
            if settings.on_round is not None:
                settings.on_round(record, evaluation)
    except KeyboardInterrupt:
        return records, False
    return records, True
