"""`tinymetafed simulate`: a fleet of thousands of boards in this process, in virtual time."""

import json
import os
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import Enum
from math import ceil
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cli.options import Data
from protocol.errors import SpecError
from protocol.sparse import block_size
from protocol.spec.rounds import Rounds
from protocol.spec.spec import Spec
from protocol.validation import reason_of
from runtime.modelfile import ModelFile
from simulation.boards import AT_ONCE, Crew, Trainer
from simulation.conditions import Conditions, DriftTasks, NoisyLabels, Poison, Poisoning, Sleep
from simulation.engine.fixed import Engine
from simulation.engine.float64 import FloatEngine
from simulation.errors import SimulationError
from simulation.fleet import Evaluation, measure
from simulation.run import Record, Run, board_names
from simulation.summary import Summary, summarise
from simulation.tasks.base import Skew, Tasks
from simulation.tasks.held_out import Split, tasks_for


class Arithmetic(Enum):
    """What boards compute with."""

    FIXED = "fixed"
    FLOAT64 = "float64"


ENGINES: dict[Arithmetic, type[Engine | FloatEngine]] = {
    Arithmetic.FIXED: Engine,
    Arithmetic.FLOAT64: FloatEngine,
}


def simulate(  # noqa: PLR0913 - one argument a flag
    *,
    spec: Annotated[Path, typer.Option(help="The fleet's spec, a TOML file.")],
    boards: Annotated[
        int, typer.Option(min=1, max=100_000, help="Boards of the fleet; the spec asks a cohort.")
    ] = 100,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Rounds, instead of the spec's.", show_default=False)
    ] = None,
    cohort: Annotated[
        int | None,
        typer.Option(min=1, help="Boards in a round, instead of the spec's.", show_default=False),
    ] = None,
    data: Data = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Of all that is random; the same one repeats a run.")
    ] = 0,
    engine: Annotated[
        Arithmetic, typer.Option(help="What boards compute with: as they do, or real numbers.")
    ] = Arithmetic.FIXED,
    split: Annotated[
        Split | None,
        typer.Option(
            help="Whose data are whose: anybody's, or each board's own by this.",
            show_default="board of a log, else iid",
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="Each board's shares of classes are Dirichlet distributed with this parameter.",
            show_default="even",
        ),
    ] = None,
    label_noise: Annotated[float, typer.Option(min=0, max=1, help="Share of wrong labels.")] = 0,
    drift: Annotated[
        float, typer.Option(help="By how much all inputs are off after the last round.")
    ] = 0,
    seconds: Annotated[
        float, typer.Option(min=0.001, help="That an average board takes for a round.")
    ] = 1,
    stragglers: Annotated[
        float,
        typer.Option(
            min=0, max=5, help="Sigma of the lognormal factor by which boards take longer."
        ),
    ] = 0,
    dropout: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of a round's boards that fail silently.")
    ] = 0,
    awake: Annotated[
        float, typer.Option(min=0.001, max=1, help="Share of the time that a board is awake.")
    ] = 1,
    period: Annotated[
        float, typer.Option(min=0.001, help="Seconds from waking up to waking up.")
    ] = 60,
    poisoned: Annotated[float, typer.Option(min=0, max=1, help="Share of poisoned boards.")] = 0,
    poison: Annotated[Poison, typer.Option(help="What poisoned boards send.")] = Poison.FLIP,
    held_out: Annotated[
        int,
        typer.Option(min=0, max=10_000, help="Held-out tasks that the model is asked; 0: none."),
    ] = 100,
    every: Annotated[
        int | None,
        typer.Option(min=1, help="Ask them after so many rounds, too.", show_default="at the end"),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Processes that train.", show_default="one a core"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to write the model, as .npz.", show_default=False)
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON a round, and a summary.")
    ] = False,
) -> None:
    """Simulate a fleet, bit for bit as boards compute and as the aggregator decides.

    Ctrl-C ends a run early, with what there is.
    """
    chosen = _override(Spec.from_file(spec), rounds, cohort)
    if out is not None and not out.resolve().parent.is_dir():
        raise SimulationError(f"--out {out}: there is no folder {out.parent}; make it first")
    skew = None if alpha is None else Skew(alpha, seed)
    learned, tested = tasks_for(chosen, data, split, skew, hold_out=held_out > 0)
    if label_noise:
        is_mse = not chosen.is_classifier
        learned = NoisyLabels(learned, label_noise, 1 if is_mse else chosen.layers[-1].outputs)
    if drift:
        learned = DriftTasks(learned, drift, chosen.rounds.count)
        tested = tested and DriftTasks(tested, drift, chosen.rounds.count)
    poisoning = Poisoning(poisoned, poison)
    conditions = Conditions(seconds, stragglers, dropout, Sleep(awake, period), poisoning)
    names = board_names(boards)
    trainer = Trainer(chosen, names, learned, ENGINES[engine], poisoning, seed)
    batches = ceil(min(chosen.rounds.invitations, boards) / AT_ONCE)
    exam = Exam(chosen, tested, ENGINES[engine], held_out, every) if tested and held_out else None
    console = Console(stderr=True, highlight=False)
    console.print(_intention(chosen, boards))
    start = time.monotonic()
    with Crew(trainer, processes or min(os.cpu_count() or 1, batches)) as crew:
        run = Run(chosen, names, crew, conditions, seed)
        records, is_over = _play(run, exam, console, as_json=as_json)
    measured = exam.held(run) if exam and is_over else None
    summary = summarise(chosen, boards, records, measured, time.monotonic() - start)
    if out is not None:
        made = datetime.now(UTC).isoformat(timespec="seconds")
        facts = (chosen, chosen.lineage, run.model.version, made, "simulate")
        ModelFile(*facts, run.model.published).write(out)
    if as_json:
        typer.echo(json.dumps({"summary": asdict(summary)}))
    else:
        Console().print(_table(summary))
    if not is_over:
        typer.echo(f"simulate: stopped after {len(records)} rounds", err=True)
        raise typer.Exit(130)


@dataclass
class Exam:
    """Asks a model held-out tasks, the same ones each time.

    Args:
        spec: the fleet's.
        tasks: held out.
        engine: of the boards that learn them.
        count: how many.
        every: rounds from one exam to the next; None for the end only.
    """

    spec: Spec
    tasks: Tasks
    engine: type[Engine | FloatEngine]
    count: int
    every: int | None
    _last: tuple[int, Evaluation] | None = None

    def is_due(self, run: Run) -> bool:
        """Whether a model is asked that is not the last one."""
        return self.every is not None and run.core.round % self.every == 0

    def held(self, run: Run) -> Evaluation:
        """What boards make of the model that a run has come to."""
        round_ = run.core.round
        if self._last is None or self._last[0] != round_:
            boards = self.engine(self.spec, self.count)
            measured = measure(self.spec, run.model.published, self.tasks, boards, round_=round_)
            self._last = round_, measured
        return self._last[1]


def _override(spec: Spec, rounds: int | None, cohort: int | None) -> Spec:
    """The spec with other rounds.

    Raises:
        SpecError: they break a rule of a spec.
    """
    given = {"count": rounds, "cohort": cohort}
    changes = {name: value for name, value in given.items() if value is not None}
    try:
        other = Rounds.model_validate(dict(spec.rounds) | changes)
    except ValidationError as error:
        reason = reason_of(error.errors()[0])
        raise SpecError(f"--cohort {cohort}: {reason}") from error
    return spec.model_copy(update={"rounds": other})


def _intention(spec: Spec, boards: int) -> str:
    local = sum(layer.parameters for layer in spec.layers if layer.local)
    update = block_size(spec.plan.top, spec.tensors, spec.plan.value_bits)
    return (
        f"{boards:,} boards, {spec.rounds.count:,} rounds; a round invites "
        f"{min(spec.rounds.invitations, boards):,}. "
        f"{spec.global_count:,} parameters are shared and {local:,} local; "
        f"the model has {2 * spec.global_count:,} bytes and an update's changes up to {update:,}."
    )


def _play(
    run: Run, exam: Exam | None, console: Console, *, as_json: bool
) -> tuple[list[Record], bool]:
    """Play the rounds and show them; what is over, and whether that is all."""
    records: list[Record] = []
    columns = (
        TextColumn("round {task.completed:.0f}/{task.total:.0f}"),
        BarColumn(),
        TextColumn("{task.fields[facts]}"),
        TimeElapsedColumn(),
    )
    try:
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("", total=run.spec.rounds.count, facts="")
            for record in run.rounds():
                records.append(record)
                measured = exam.held(run) if exam and exam.is_due(run) else None
                bar.update(task, completed=len(records), facts=_facts(record))
                if as_json:
                    typer.echo(json.dumps(asdict(record) | _exam_facts(record, measured)))
    except KeyboardInterrupt:
        return records, False
    return records, True


def _exam_facts(record: Record, measured: Evaluation | None) -> dict[str, float]:
    if measured is None:
        return {}
    facts = {"held_out_loss": float(measured.loss.mean())}
    if record.accuracy is not None:
        facts["held_out_accuracy"] = float(measured.accuracy.mean())
    return facts


def _facts(record: Record) -> str:
    told = "" if record.accuracy is None else f"  accuracy {record.accuracy:.1%}"
    kilobytes = (record.bytes_up + record.bytes_down) / 1000
    return (
        f"loss {record.loss:.3f}{told}  {record.accepted} of {record.invited}  {kilobytes:.0f} kB"
    )


def _table(summary: Summary) -> Table:
    table = Table(show_header=False)
    table.add_column(justify="left")
    table.add_column(justify="right")
    for name, value in (
        ("boards", f"{summary.boards:,}"),
        ("rounds", f"{summary.rounds:,}"),
        ("loss, first tenth", _form(summary.loss_first, ".3f")),
        ("loss, last tenth", _form(summary.loss_last, ".3f")),
        ("accuracy, last tenth", _form(summary.accuracy_last, ".1%")),
        ("loss on held-out tasks", _form(summary.held_out_loss, ".3f")),
        ("accuracy on held-out tasks", _form(summary.held_out_accuracy, ".1%")),
        ("updates accepted", f"{summary.accepted:,}"),
        ("late ones among them", f"{summary.late:,}"),
        ("bytes up", f"{summary.bytes_up:,}"),
        ("bytes down", f"{summary.bytes_down:,}"),
        ("the accepted as dense float32", f"{summary.bytes_dense:,}"),
        ("virtual seconds", f"{summary.virtual_seconds:,.1f}"),
        ("seconds", f"{summary.seconds:,.1f}"),
    ):
        if value:
            table.add_row(name, value)
    return table


def _form(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
