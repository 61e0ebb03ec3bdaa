"""What a fleet learns from a round, and how a canary version is promoted or rolled back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import sparse
from protocol.cohort import EVERYONE
from protocol.fixed import WEIGHT_MAX, WEIGHT_MIN
from protocol.messages import Delta
from protocol.spec.rounds import Canary
from protocol.spec.spec import Spec
from rounds.combine import Combination, Updates
from rounds.combine import Sums as Weighed
from rounds.learning import NO_CANARY, Basis, CanaryGroup, Learning, Sums, Verdict, Version
from rounds.model import GlobalModel
from rounds.optimizers import cosine_step
from rounds.sums import PartialSum
from tests.rounds.network import SIZE, SPEC

PLAIN = Basis(0, is_canary=False)
TRIED = Basis(0, is_canary=True)


def with_rounds(**changes: object) -> Spec:
    return SPEC.model_copy(update={"rounds": SPEC.rounds.model_copy(update=changes)})


CANARY = with_rounds(canary=Canary(share=0.25, tolerance=0.1))


def learning(spec: Spec) -> Learning:
    return Learning(spec, Version(GlobalModel(spec)))


def close(fleet: Learning, sums: Sums, round_: int) -> Verdict | None:
    """Close a round by the mean, which asks for no single update."""
    return fleet.close(sums, [], round_).verdict


def summed(seed: int, loss: int = 1000, weight: int = 2) -> PartialSum:
    """Some updates with a query loss of their own."""
    total = PartialSum(SIZE, weight, support=4, query=5 * weight, query_loss=5 * weight * loss)
    total.changes += np.random.default_rng(seed).integers(-300, 300, SIZE)
    return total


# --- Late updates


def test_a_late_update_weighs_less() -> None:
    """FedBuff's rule: 1 / sqrt(1 + age) by default."""
    spec = with_rounds(mode="buffered", quorum=1)
    fleet = learning(spec)
    before = fleet.stable.model.fine.copy()
    now, late = summed(1, weight=3), summed(2, weight=1)
    close(fleet, {PLAIN: now, Basis(3, is_canary=False): late}, 0)
    mean = (now.changes + late.changes / 2) / (3 + 1 / 2)
    expected = before + cosine_step(spec.rounds, 0) * mean
    np.testing.assert_allclose(fleet.stable.model.fine, expected)


@given(st.permutations([0, 1, 2, 5]))
def test_the_order_in_which_they_came_does_not_matter(ages: list[int]) -> None:
    spec = with_rounds(mode="buffered", quorum=1)
    one, other = learning(spec), learning(spec)
    close(one, {Basis(age, is_canary=False): summed(age) for age in ages}, 0)
    close(other, {Basis(age, is_canary=False): summed(age) for age in sorted(ages)}, 0)
    assert one.stable.model.fine.tobytes() == other.stable.model.fine.tobytes()


# --- A rule of the caller's


class Loudest:
    """The largest change of any update, of all parameters alike."""

    def combine(self, sums: Weighed, updates: Updates) -> Combination:
        largest = max(int(changes.max()) for _, (_, changes) in updates)
        return Combination(np.full(sums[0][1].parameters, float(largest)), "loud")


def test_a_rule_of_the_callers_combines_instead_of_the_specs() -> None:
    fleet = Learning(SPEC, Version(GlobalModel(SPEC)), rule=Loudest())
    before = fleet.stable.model.fine.copy()
    sent = [sparse.Sparse(np.array([at]), np.array([change])) for at, change in ((3, 7), (5, 2))]
    updates = [(PLAIN, f"board-{i}", one) for i, one in enumerate(sent)]
    result = fleet.close({PLAIN: summed(1)}, updates, 0)
    assert result.combined.note == "loud"
    np.testing.assert_allclose(
        fleet.stable.model.fine, before + 7 * cosine_step(SPEC.rounds, 0), rtol=0, atol=1e-9
    )


# --- A canary version


def test_without_a_canary_every_board_gets_each_version() -> None:
    fleet = learning(SPEC)
    assert close(fleet, {PLAIN: summed(1)}, 0) is None
    assert (fleet.stable.model.version, fleet.canary) == (1, None)
    assert fleet.canary_group() == NO_CANARY


def test_a_new_version_goes_to_a_share_of_the_boards_first() -> None:
    fleet = learning(CANARY)
    close(fleet, {PLAIN: summed(1)}, 0)
    assert fleet.stable.model.version == 0
    canary = fleet.canary_group()
    assert canary == CanaryGroup(1, EVERYONE // 4)
    boards = [f"board-{i}" for i in range(1000)]
    assert 200 < sum(map(canary.has, boards)) < 300
    other = CanaryGroup(2, EVERYONE // 4)
    assert {b for b in boards if canary.has(b)} != {b for b in boards if other.has(b)}


@pytest.mark.parametrize(
    ("tried", "others", "verdict"),
    [
        (1000, 1000, Verdict.PROMOTED),
        (1099, 1000, Verdict.PROMOTED),  # The tolerance is a tenth.
        (1101, 1000, Verdict.ROLLED_BACK),
    ],
)
def test_the_losses_decide(tried: int, others: int, verdict: Verdict) -> None:
    fleet = learning(CANARY)
    close(fleet, {PLAIN: summed(1)}, 0)
    is_canary = fleet.canary
    assert is_canary is not None
    tried_sum, others_sum = summed(2, tried), summed(3, others)
    found = close(fleet, {TRIED: tried_sum, PLAIN: others_sum}, 1)
    assert found is verdict
    assert fleet.canary is not None
    assert fleet.canary.model.version == 2
    step = cosine_step(CANARY.rounds, 1)
    if verdict is Verdict.PROMOTED:
        assert fleet.stable is is_canary
        base, change = is_canary.model, (tried_sum.changes + others_sum.changes) / 4
        assert Delta.unpack(fleet.canary.delta).version == 2
    else:  # What was learned from the bad version goes with it.
        assert fleet.stable.model.version == 0
        base, change = fleet.stable.model, others_sum.changes / 2
        assert fleet.canary.delta == b""  # No board can get there from version 1.
    expected = np.clip(base.fine + step * change, WEIGHT_MIN, WEIGHT_MAX)
    np.testing.assert_allclose(fleet.canary.model.fine, expected)


@pytest.mark.parametrize("only", [TRIED, PLAIN])
def test_where_nothing_can_be_compared_the_trial_goes_on(only: Basis) -> None:
    fleet = learning(CANARY)
    close(fleet, {PLAIN: summed(1)}, 0)
    assert close(fleet, {only: summed(2)}, 1) is Verdict.UNDECIDED
    assert fleet.stable.model.version == 0
    assert fleet.canary_group().version == 2


@given(st.lists(st.tuples(st.integers(500, 1500), st.integers(500, 1500)), max_size=8))
def test_a_board_that_follows_deltas_or_fetches_always_has_the_stable_version(
    losses: list[tuple[int, int]],
) -> None:
    """No two models share a version, so a board that has the right number has the right model."""
    fleet = learning(CANARY)
    seen: dict[int, bytes] = {}
    board, held = SPEC.start().astype(np.int64), 0
    for round_, (tried, others) in enumerate(losses):
        close(
            fleet, {TRIED: summed(round_, tried), PLAIN: summed(-round_ - 1 + 99, others)}, round_
        )
        for version in (fleet.stable, fleet.canary):
            assert version is not None
            published = version.model.published.tobytes()
            assert seen.setdefault(version.model.version, published) == published
        stable = fleet.stable
        delta = Delta.unpack(stable.delta) if stable.delta else None
        if delta is not None and delta.version == held + 1:
            indices, moves = sparse.decode(delta.changes, SPEC.tensors)
            board[indices] = np.clip(board[indices] + moves, WEIGHT_MIN, WEIGHT_MAX)
            held = delta.version
        elif held != stable.model.version:
            board, held = stable.model.published.astype(np.int64), stable.model.version
        assert held == stable.model.version
        np.testing.assert_array_equal(board, stable.model.published)


def test_other_weights_are_a_version_of_their_own_and_on_trial_too() -> None:
    weights = np.arange(SIZE, dtype=np.int16)
    plain, careful = learning(SPEC), learning(CANARY)
    for fleet in (plain, careful):
        close(fleet, {PLAIN: summed(1)}, 0)
        fleet.replace(weights)
    assert plain.stable.model.version == 2
    assert plain.stable.delta == b""
    np.testing.assert_array_equal(plain.stable.model.published, weights)
    assert careful.stable.model.version == 0
    assert careful.canary is not None
    np.testing.assert_array_equal(careful.canary.model.published, weights)
