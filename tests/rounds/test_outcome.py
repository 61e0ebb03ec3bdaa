"""The figures of a closed round."""

import pytest

from localfleet.processes import PROJECT
from protocol.fixed import LOSS_BITS
from protocol.spec.spec import Spec
from rounds.combine import Combination
from rounds.core import Close, UpdateKey
from rounds.learning import Basis, RoundResult, Sums, Verdict
from rounds.optimizers import cosine_step
from rounds.outcome import RoundOutcome, outcome_of
from rounds.sums import PartialSum

SINE = Spec.from_file(PROJECT / "specs" / "sine.toml")
OMNIGLOT = Spec.from_file(PROJECT / "specs" / "omniglot.toml")
CLOSED = Close(
    round=3,
    invited=12,
    counted=frozenset({UpdateKey(3, "a"), UpdateKey(3, "b"), UpdateKey(2, "c")}),
    empty_deadlines=0,
    seconds=1.5,
)
UNIT = 2**LOSS_BITS


def summed(spec: Spec, updates: int, query_loss: int) -> PartialSum:
    """Updates of two support and four query samples each, half of these told right."""
    return PartialSum(
        spec.global_count,
        weight=updates,
        support_loss=10 * UNIT * updates,
        support=2 * updates,
        query_loss=query_loss * UNIT * updates,
        query=4 * updates,
        query_correct=2 * updates,
    )


def outcome(spec: Spec, sums: Sums, verdict: Verdict | None = None) -> RoundOutcome:
    return outcome_of(spec, CLOSED, sums, RoundResult(Combination(None, "it stays"), verdict))


def test_losses_are_means_over_samples_and_outputs() -> None:
    sums = {
        Basis(0, is_canary=False): summed(SINE, 2, 8),
        Basis(1, is_canary=False): summed(SINE, 1, 2),
    }
    came = outcome(SINE, sums)
    assert came.loss == pytest.approx((2 * 8 + 2) / 12)
    assert came.support_loss == pytest.approx(5.0)
    assert came.accuracy is None  # Sines have no classes.
    assert (came.round, came.accepted, came.late, came.invited) == (3, 3, 1, 12)
    assert came.step == cosine_step(SINE.rounds, 3)
    assert (came.canary, came.canary_loss, came.note) == (None, None, "it stays")


def test_of_classes_the_loss_is_a_samples_cross_entropy() -> None:
    assert OMNIGLOT.layers[-1].outputs > 1
    came = outcome(OMNIGLOT, {Basis(0, is_canary=False): summed(OMNIGLOT, 1, 8)})
    assert came.loss == pytest.approx(2.0)
    assert came.accuracy == 0.5


def test_the_canarys_loss_is_of_the_boards_that_tried_it_out() -> None:
    sums = {
        Basis(0, is_canary=False): summed(SINE, 3, 4),
        Basis(0, is_canary=True): summed(SINE, 1, 40),
    }
    came = outcome(SINE, sums, Verdict.ROLLED_BACK)
    assert came.canary == "rolled back"
    assert came.canary_loss == pytest.approx(10.0)
    assert came.loss == pytest.approx((3 * 4 + 40) / 16)
    assert came.accepted == 4
