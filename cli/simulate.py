"""`tinymetafed simulate`: a fleet of thousands of boards in this process, in virtual time."""

import json
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Self

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import simulation
from cli.options import Data
from protocol.errors import SpecError
from protocol.sparse import block_size
from protocol.spec.rounds import Rounds
from protocol.spec.spec import Spec
from protocol.validation import reason_of
from runtime.modelfile import ModelFile
from simulation.conditions import Conditions, Poison, Poisoning, Sleep
from simulation.errors import SimulationError
from simulation.exam import Evaluation
from simulation.record import Record
from simulation.settings import Settings
from simulation.summary import Summary
from simulation.tasks.held_out import Split


class Arithmetic(Enum):
    """What boards compute with."""

    FIXED = "fixed"
    FLOAT64 = "float64"


def simulate(  # noqa: PLR0913 - one argument a flag
    *,
    spec: Annotated[Path, typer.Option(help="The fleet's spec, a TOML file.")],
    boards: Annotated[
        int, typer.Option(min=1, max=100_000, help="Boards of the fleet; a cohort of them a round.")
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
        Arithmetic, typer.Option(help="Arithmetic: fixed point, as boards compute, or float64.")
    ] = Arithmetic.FIXED,
    split: Annotated[
        Split | None,
        typer.Option(
            help="How data are partitioned across boards.",
            show_default="board of a log, else iid",
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="Label skew: Dirichlet concentration of each board's shares of classes.",
            show_default="even",
        ),
    ] = None,
    label_noise: Annotated[
        float, typer.Option(min=0, max=1, help="Label noise: share of wrong labels.")
    ] = 0,
    drift: Annotated[
        float, typer.Option(help="Sensor drift: offset of all inputs after the last round.")
    ] = 0,
    seconds: Annotated[
        float, typer.Option(min=0.001, help="Seconds that an average board takes for a round.")
    ] = 1,
    stragglers: Annotated[
        float,
        typer.Option(min=0, max=5, help="Straggler severity: sigma of a log-normal slow-down."),
    ] = 0,
    dropout: Annotated[
        float,
        typer.Option(min=0, max=0.99, help="Dropout: share of a round's boards that fail."),
    ] = 0,
    awake: Annotated[
        float,
        typer.Option(min=0.001, max=1, help="Availability: share of the time a board is awake."),
    ] = 1,
    period: Annotated[
        float, typer.Option(min=0.001, help="Seconds from one waking of a board to its next.")
    ] = 60,
    poisoned: Annotated[
        float, typer.Option(min=0, max=1, help="Share of boards that send poisoned updates.")
    ] = 0,
    poison: Annotated[Poison, typer.Option(help="What poisoned boards send.")] = Poison.FLIP,
    held_out: Annotated[
        int, typer.Option(min=0, max=10_000, help="Held-out tasks to evaluate on (0: none).")
    ] = 100,
    every: Annotated[
        int | None,
        typer.Option(
            min=1, help="Rounds from one evaluation to the next.", show_default="at the end"
        ),
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
    display = _Display(chosen, boards, as_json=as_json)
    settings = Settings(
        spec=chosen,
        boards=boards,
        seed=seed,
        arithmetic="fixed" if engine is Arithmetic.FIXED else "float64",
        processes=processes,
        data=data,
        split=split,
        alpha=alpha,
        label_noise=label_noise,
        drift=drift,
        conditions=Conditions(
            seconds=seconds,
            stragglers=stragglers,
            dropout=dropout,
            sleep=Sleep(awake, period),
            poisoned=Poisoning(poisoned, poison),
        ),
        evaluations=held_out,
        evaluate_every=every,
        on_start=display.start,
        on_round=display.show,
    )
    with display:
        summary = simulation.simulate(settings)
    if out is not None:
        _write(summary, chosen, out)
    display.conclude(summary)
    if not summary.is_complete:
        typer.echo(f"simulate: stopped after {summary.rounds} rounds", err=True)
        raise typer.Exit(130)


def _write(summary: Summary, spec: Spec, out: Path) -> None:
    made = datetime.now(UTC).isoformat(timespec="seconds")
    model = summary.model
    ModelFile(spec, spec.lineage, model.version, made, "simulate", model.published).write(out)


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


class _Display:
    """Shows a run: to people a bar and a table, to scripts lines of JSON."""

    def __init__(self, spec: Spec, boards: int, *, as_json: bool) -> None:
        self._spec, self._boards = spec, boards
        self._as_json = as_json
        self._console = Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn("round {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._task = self._bar.add_task("", total=spec.rounds.count, facts="", start=False)
        self._is_started = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_started:
            self._bar.stop()

    def start(self) -> None:
        """The first round is about to open."""
        self._is_started = True
        self._console.print(_intention(self._spec, self._boards))
        self._bar.start()
        self._bar.start_task(self._task)

    def show(self, record: Record, evaluation: Evaluation | None) -> None:
        """A round is closed."""
        self._bar.update(self._task, advance=1, facts=_facts(record))
        if self._as_json:
            typer.echo(json.dumps(record.to_json() | _held_out(record, evaluation)))

    def conclude(self, summary: Summary) -> None:
        """The run is over."""
        if self._as_json:
            typer.echo(json.dumps({"summary": summary.figures()}))
        else:
            Console().print(_table(summary))


def _held_out(record: Record, evaluation: Evaluation | None) -> dict[str, float]:
    if evaluation is None:
        return {}
    facts = {"held_out_loss": float(evaluation.loss.mean())}
    if record.accuracy is not None:
        facts["held_out_accuracy"] = float(evaluation.accuracy.mean())
    return facts


def _facts(record: Record) -> str:
    accuracy = "" if record.accuracy is None else f"  accuracy {record.accuracy:.1%}"
    kilobytes = (record.bytes_up + record.bytes_down) / 1000
    answers = f"{record.accepted} of {record.invited}"
    return f"loss {record.loss:.3f}{accuracy}  {answers}  {kilobytes:.0f} kB"


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
