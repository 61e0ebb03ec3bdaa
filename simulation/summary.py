"""What a run came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocol.spec.spec import Spec
    from simulation.fleet import Evaluation
    from simulation.run import Record


@dataclass(frozen=True)
class Summary:
    """A run in a few figures; ``--json`` prints it under these names."""

    boards: int
    rounds: int
    """That were played."""
    version: int
    loss_first: float | None
    """Mean loss of the query samples over the first tenth of the rounds; None without any."""
    loss_last: float | None
    """The same over the last tenth."""
    accuracy_last: float | None
    """Share of classes told in the last tenth."""
    held_out_loss: float | None
    """Of held-out tasks after the last round, as :func:`simulation.fleet.measure` does."""
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


def summarise(
    spec: Spec, boards: int, records: Sequence[Record], held_out: Evaluation | None, seconds: float
) -> Summary:
    """Sum up closed rounds.

    Args:
        spec: the fleet's.
        boards: of the fleet.
        records: of the rounds, in order; there may be none.
        held_out: what held-out tasks said after the last one, if they were asked.
        seconds: that it took.
    """
    tenth = max(1, len(records) // 10)
    first, last = records[:tenth], records[-tenth:]
    is_classes = spec.is_classifier
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
            float(held_out.accuracy.mean()) if held_out is not None and is_classes else None
        ),
        accepted=accepted,
        late=sum(record.late for record in records),
        bytes_up=sum(record.bytes_up for record in records),
        bytes_down=sum(record.bytes_down for record in records),
        bytes_dense=2 * 4 * spec.global_count * accepted,
        virtual_seconds=records[-1].seconds if records else 0.0,
        seconds=round(seconds, 1),
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
