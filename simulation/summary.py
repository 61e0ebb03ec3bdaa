"""What a simulation came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocol.spec.spec import Spec
    from rounds.model import GlobalModel
    from simulation.exam import Evaluation
    from simulation.record import Record


@dataclass(frozen=True, kw_only=True, eq=False)
class Summary:
    """A simulation in a few figures, with all that they are of."""

    boards: int
    rounds: int
    """That were played."""
    version: int
    """The newest; perhaps the canary."""
    loss_first: float | None
    """Mean loss of the query samples over the first tenth of the rounds; None without any."""
    loss_last: float | None
    """The same over the last tenth."""
    accuracy_last: float | None
    """Share of correct classes in the last tenth; None where labels are values."""
    held_out_loss: float | None
    """Of held-out tasks after the last round, as :func:`simulation.exam.measure` does; None where
    the model was not evaluated."""
    held_out_accuracy: float | None
    accepted: int
    late: int
    bytes_up: int
    bytes_down: int
    bytes_dense: int
    """What the accepted updates and their models would take as float32."""
    virtual_seconds: float
    seconds: float
    """That the simulation took."""
    is_complete: bool
    """Whether all of the spec's rounds were played; not after Ctrl-C."""
    records: tuple[Record, ...] = field(repr=False)
    """Of the rounds, in order."""
    model: GlobalModel = field(repr=False)
    """What all boards have in the end."""

    def figures(self) -> dict[str, Any]:
        """The figures alone, as ``simulate --json`` prints them."""
        others = {"is_complete", "records", "model"}
        return {name: value for name, value in vars(self).items() if name not in others}


def summarise(  # noqa: PLR0913 - the facts of a run, by keyword
    *,
    spec: Spec,
    boards: int,
    records: Sequence[Record],
    model: GlobalModel,
    held_out: Evaluation | None,
    is_complete: bool,
    seconds: float,
) -> Summary:
    """Sum up closed rounds.

    Args:
        spec: the fleet's.
        boards: of the fleet.
        records: of the rounds, in order; there may be none.
        model: what all boards have in the end.
        held_out: how it was evaluated, if it was.
        is_complete: whether all of the spec's rounds were played.
        seconds: that it took.
    """
    tenth = max(1, len(records) // 10)
    first, last = records[:tenth], records[-tenth:]
    accepted = sum(record.accepted for record in records)
    return Summary(
        boards=boards,
        rounds=len(records),
        version=records[-1].version if records else 0,
        loss_first=_mean([record.loss for record in first]),
        loss_last=_mean([record.loss for record in last]),
        accuracy_last=_mean([record.accuracy for record in last if record.accuracy is not None]),
        held_out_loss=None if held_out is None else float(held_out.loss.mean()),
        held_out_accuracy=(
            float(held_out.accuracy.mean()) if held_out is not None and spec.is_classifier else None
        ),
        accepted=accepted,
        late=sum(record.late for record in records),
        bytes_up=sum(record.bytes_up for record in records),
        bytes_down=sum(record.bytes_down for record in records),
        bytes_dense=2 * 4 * spec.global_count * accepted,
        virtual_seconds=records[-1].seconds if records else 0.0,
        seconds=round(seconds, 1),
        is_complete=is_complete,
        records=tuple(records),
        model=model,
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
