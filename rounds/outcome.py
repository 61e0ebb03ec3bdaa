"""What a closed round came to, in figures."""

from dataclasses import dataclass

from protocol.fixed import LOSS_BITS
from protocol.spec.spec import Spec
from rounds.core import Close
from rounds.learning import RoundResult, Sums, query_loss
from rounds.optimizers import cosine_step
from rounds.sums import PartialSum


@dataclass(frozen=True, kw_only=True)
class RoundOutcome:
    """A closed round. Losses were measured before what they are of was learned from."""

    round: int
    loss: float
    """Of the query samples: mean squared error, or cross-entropy in nats."""
    support_loss: float
    """The same of the support samples."""
    accuracy: float | None
    """Share of the query samples whose class was correct; None where labels are values."""
    accepted: int
    """Updates in the version."""
    late: int
    """Those among them that were for an earlier round."""
    invited: int
    """Boards known to have been invited."""
    canary: str | None
    """What the round said of the canary version: promoted, rolled back or undecided."""
    canary_loss: float | None
    """Like ``loss``, of the boards that tried it out alone."""
    step: float
    """The server's learning rate: how many times the round's change the plain step goes."""
    note: str = ""
    """What the rule that combined the updates has to say: whom it left out, why it did not move."""


def outcome_of(spec: Spec, closed: Close, sums: Sums, result: RoundResult) -> RoundOutcome:
    """The figures of a round.

    Args:
        spec: the fleet's.
        closed: the core's decision.
        sums: of the round's updates, at least one, by what they were made from.
        result: what was learned from them.
    """
    total = PartialSum(spec.global_count)
    for part in sums.values():
        total.merge(part)
    support_loss, loss = total.losses(spec.loss_outputs)
    canary_loss = query_loss(sums, is_canary=True)
    if canary_loss is not None:
        canary_loss /= 2**LOSS_BITS * spec.loss_outputs
    return RoundOutcome(
        round=closed.round,
        loss=loss,
        support_loss=support_loss,
        accuracy=total.query_correct / total.query if spec.is_classifier else None,
        accepted=total.weight,
        late=sum(part.weight for basis, part in sums.items() if basis.age),
        invited=closed.invited,
        canary=result.verdict.value if result.verdict else None,
        canary_loss=canary_loss,
        step=cosine_step(spec.rounds, closed.round),
        note=result.combined.note,
    )
