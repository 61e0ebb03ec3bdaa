"""Each rule against its paper, written out for dense arrays; and what sparse updates add."""

import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from protocol.fixed import WEIGHT_BITS
from protocol.sparse import Sparse
from protocol.spec.rounds import Rounds
from rounds import combine
from rounds.combine import Combination, Sums, rule_of
from rounds.sums import PartialSum, clipped

Matrix = NDArray[np.int64]
"""Updates side by side; 0 is what is not sent. Shape (boards, parameters)."""


def rounds(boards: int = 1000, **settings: Any) -> Rounds:
    return Rounds.model_validate(
        {"count": 1, "cohort": boards, "deadline": 1.0, "step_max": 1.0, "percent_down": 100.0}
        | {"combine": settings}
    )


def sparse_of(row: NDArray[np.int64]) -> Sparse:
    indices = np.flatnonzero(row)
    return Sparse(indices, row[indices])


def combined(matrix: Matrix, order: list[int] | None = None, **settings: Any) -> Combination:
    """What a rule makes of updates, which arrive in an order."""
    rules = rounds(**settings)
    total = PartialSum(matrix.shape[1], clip=rules.clip)
    arrived = [(f"board-{row:04}", sparse_of(matrix[row])) for row in order or range(len(matrix))]
    for _, update in arrived:
        total.add_changes(update)
    return rule_of(rules).combine([(1.0, total)], arrived)


def change(matrix: Matrix, **settings: Any) -> NDArray[np.float64]:
    found = combined(matrix, **settings).change
    assert found is not None
    return found


def matrices(least: int = 1, most: int = 12, lowest: int = -200) -> st.SearchStrategy[Matrix]:
    """Some of them sparse, with equals among the changes."""

    def fill(shape: tuple[int, int, int, float]) -> Matrix:
        boards, parameters, seed, share = shape
        rng = np.random.default_rng(seed)
        values = rng.integers(lowest, 200, (boards, parameters)) * (-1) ** rng.integers(0, 2)
        sent: Matrix = np.where(rng.random((boards, parameters)) < share, values, 0)
        return sent

    return st.tuples(
        st.integers(least, most),
        st.integers(1, 30),
        st.integers(0, 2**32),
        st.sampled_from([0.1, 0.5, 1.0]),
    ).map(fill)


ROBUST: list[dict[str, Any]] = [
    {"rule": "median", "byzantine": 1},
    {"rule": "trimmed_mean", "trim": 1},
    {"rule": "krum", "byzantine": 1},
    {"rule": "multi_krum", "byzantine": 1, "keep": 3},
]
robust = pytest.mark.parametrize("settings", ROBUST, ids=lambda settings: settings["rule"])


# --- The mean, from sums


@given(matrices())
def test_the_mean_counts_what_is_not_sent_as_no_change(matrix: Matrix) -> None:
    np.testing.assert_array_equal(change(matrix), matrix.sum(axis=0) / len(matrix))


@given(matrices())
def test_by_count_it_is_the_mean_of_those_who_sent(matrix: Matrix) -> None:
    for parameter, found in enumerate(change(matrix, rule="count")):
        sent = [value for value in matrix[:, parameter] if value != 0]
        assert found == (sum(sent) / len(sent) if sent else 0)


def parts(matrix: Matrix, discounts: list[float]) -> Sums:
    """One board in each partial sum."""
    result = []
    for row, discount in zip(matrix, discounts, strict=True):
        part = PartialSum(matrix.shape[1])
        part.add_changes(sparse_of(row))
        result.append((discount, part))
    return result


@given(matrices(3, 3))
def test_updates_of_a_discounted_sum_weigh_less(matrix: Matrix) -> None:
    discounts = [1.0, 0.5, 0.25]
    mean = rule_of(rounds()).combine(parts(matrix, discounts), []).change
    assert mean is not None
    np.testing.assert_allclose(mean, np.average(matrix, axis=0, weights=discounts), atol=1e-12)
    count = rule_of(rounds(rule="count")).combine(parts(matrix, discounts), []).change
    assert count is not None
    for parameter, found in enumerate(count):
        weights = np.where(matrix[:, parameter] != 0, discounts, 0)
        expected = matrix[:, parameter] @ weights / weights.sum() if weights.any() else 0
        assert found == pytest.approx(expected)


@pytest.mark.parametrize("rule", ["mean", "count"])
def test_sums_are_enough_for_a_mean(rule: str) -> None:
    """The round's updates are not read again."""

    update = Sparse(np.array([1]), np.array([5]))
    read = []

    def journal() -> Iterator[tuple[str, Sparse]]:
        read.append("board")
        yield "board", update

    total = PartialSum(3)
    total.add_changes(update)
    found = rule_of(rounds(rule=rule)).combine([(1.0, total)], journal())
    np.testing.assert_array_equal(np.asarray(found.change), [0, 5, 0])
    assert read == []


# --- Yin et al. 2018


@given(matrices(3))
def test_of_dense_updates_it_is_the_median(matrix: Matrix) -> None:
    matrix[matrix == 0] = 1
    expected = np.median(matrix, axis=0)
    np.testing.assert_allclose(change(matrix, rule="median", byzantine=1), expected, rtol=1e-12)


@given(matrices(5), st.integers(1, 2))
def test_of_dense_updates_it_is_the_trimmed_mean(matrix: Matrix, trim: int) -> None:
    matrix[matrix == 0] = 1
    expected = np.sort(matrix, axis=0)[trim:-trim].mean(axis=0)
    found = change(matrix, rule="trimmed_mean", trim=trim)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@given(matrices(5), st.integers(1, 2))
def test_of_sparse_updates_it_is_taken_of_those_who_sent(matrix: Matrix, f: int) -> None:
    """Times their share of all; nothing moves where too few sent."""
    trimmed = change(matrix, rule="trimmed_mean", trim=f)
    median = change(matrix, rule="median", byzantine=f)
    for parameter in range(matrix.shape[1]):
        sent = np.sort(matrix[:, parameter][matrix[:, parameter] != 0])
        share = len(sent) / len(matrix)
        enough = len(sent) > 2 * f
        expected = share * sent[f:-f].mean() if enough else 0
        assert trimmed[parameter] == pytest.approx(expected)
        assert median[parameter] == pytest.approx(share * np.median(sent) if enough else 0)


@given(matrices(5), st.data())
def test_f_poisoned_updates_cannot_leave_the_range_of_the_honest(
    honest: Matrix, data: st.DataObject
) -> None:
    """Whatever they send, wherever the honest boards are silent."""
    f = data.draw(st.integers(1, 2))
    values = st.sampled_from([-(2**17), -1, 0, 1, 2**17])
    size = honest.shape[1]
    poison = data.draw(st.lists(st.lists(values, min_size=size, max_size=size), max_size=f))
    matrix = np.vstack([honest] + [np.array([row], np.int64) for row in poison])
    for settings in ({"rule": "median", "byzantine": f}, {"rule": "trimmed_mean", "trim": f}):
        found = change(matrix, **settings)
        assert (found >= np.minimum(honest.min(axis=0), 0)).all()
        assert (found <= np.maximum(honest.max(axis=0), 0)).all()


# --- Blanchard et al. 2017


def krum_order(matrix: Matrix, f: int) -> list[int]:
    """Updates from the best score to the worst; equals as they come."""
    n = len(matrix)
    scores = []
    for i in range(n):
        distances = sorted(int(((matrix[i] - matrix[j]) ** 2).sum()) for j in range(n) if j != i)
        scores.append(sum(distances[: n - f - 2]))
    return sorted(range(n), key=lambda i: scores[i])


@given(matrices(7), st.integers(1, 2))
def test_krum_takes_the_update_closest_to_its_neighbours(matrix: Matrix, f: int) -> None:
    best = krum_order(matrix, f)[0]
    np.testing.assert_array_equal(change(matrix, rule="krum", byzantine=f), matrix[best])


@given(matrices(7), st.integers(1, 2), st.integers(2, 5))
def test_multi_krum_takes_the_mean_of_the_best(matrix: Matrix, f: int, keep: int) -> None:
    best = krum_order(matrix, f)[:keep]
    found = change(matrix, rule="multi_krum", byzantine=f, keep=keep)
    np.testing.assert_allclose(found, matrix[best].mean(axis=0), rtol=1e-12)


def test_who_was_left_out_is_told() -> None:
    matrix = np.ones((8, 4), np.int64)
    matrix[5] = 1000
    found = combined(matrix, rule="multi_krum", byzantine=1, keep=7)
    assert found.note == "left out 1: board-0005"


def test_distances_are_the_same_in_any_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = np.random.default_rng(1).integers(-(2**17), 2**17, (9, 50))
    whole = change(matrix, rule="krum", byzantine=2)
    monkeypatch.setattr(combine, "BLOCK_BYTES", 8 * 9 * 7)
    np.testing.assert_array_equal(change(matrix, rule="krum", byzantine=2), whole)


# --- Norms


@given(matrices(1, 1), st.floats(0.001, 1))
def test_a_long_update_is_scaled_down_and_a_short_one_is_not(matrix: Matrix, norm: float) -> None:
    (row,) = matrix
    length = np.linalg.norm(row) * 2.0**-WEIGHT_BITS
    _, changes = clipped(sparse_of(row), norm)
    found = np.linalg.norm(changes) * 2.0**-WEIGHT_BITS
    assert found <= norm * (1 + 1e-12)
    if length <= norm:
        np.testing.assert_array_equal(changes, row[row != 0])
    else:
        expected = row[row != 0] * (norm / length)
        assert np.abs(changes - expected).max() < 1 + 1e-9
        assert (np.abs(changes) <= np.abs(expected) + 1e-9).all()


@pytest.mark.parametrize("settings", [{"rule": "mean"}, {"rule": "count"}, *ROBUST])
def test_every_rule_can_clip_first(settings: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    matrix = rng.integers(2**13, 2**15, (9, 40)) * rng.choice([-1, 1], (9, 40))
    by_hand = np.array([clipped(sparse_of(row), 2.5)[1] for row in matrix])
    found = change(matrix, clip_norm=2.5, **settings)
    np.testing.assert_array_equal(found, change(by_hand, **settings))
    assert np.abs(found).max() < 2.5 * 2**WEIGHT_BITS


# --- All of them


@pytest.mark.parametrize("settings", [{"rule": "mean"}, {"rule": "count"}, *ROBUST])
@given(data=st.data())
def test_the_order_of_updates_changes_no_bit(settings: dict[str, Any], data: st.DataObject) -> None:
    matrix = data.draw(matrices(7))
    order = data.draw(st.permutations(range(len(matrix))))
    one, other = combined(matrix, **settings), combined(matrix, order, **settings)
    assert one.change is not None
    assert other.change is not None
    assert one.change.tobytes() == other.change.tobytes()
    assert one.note == other.note


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        ({"rule": "median", "byzantine": 2}, 5),
        ({"rule": "trimmed_mean", "trim": 3}, 7),
        ({"rule": "krum", "byzantine": 2}, 7),
        ({"rule": "multi_krum", "byzantine": 2, "keep": 6}, 8),
    ],
)
def test_the_model_stays_where_too_few_answered(settings: dict[str, Any], least: int) -> None:
    matrix = np.arange(4 * least).reshape(least, 4)
    assert combined(matrix, **settings).change is not None
    found = combined(matrix[1:], **settings)
    assert found.change is None
    expected = f"{settings['rule']} needs {least} updates, {least - 1} came: the model stays"
    assert found.note == expected


def test_krum_takes_no_more_memory_where_more_answered_than_a_cohort() -> None:
    found = combined(np.ones((2001, 1), np.int64), rule="krum", byzantine=1)
    assert found.change is None
    assert found.note == "Krum compares 2000 updates, 2001 came: the model stays"


@robust
def test_memory_is_bounded(settings: dict[str, Any]) -> None:
    """1,000 boards with a tenth of 1,000 parameters each."""
    rng = np.random.default_rng(0)
    total = PartialSum(1000)
    updates = []
    for board in range(1000):
        indices = np.sort(rng.choice(1000, 100, replace=False))
        update = Sparse(indices, rng.integers(-300, 300, 100))
        total.add_changes(update)
        updates.append((f"board-{board}", update))
    rule = rule_of(rounds(**settings))
    tracemalloc.start()
    try:
        rule.combine([(1.0, total)], updates)
        assert tracemalloc.get_traced_memory()[1] < 64e6
    finally:
        tracemalloc.stop()
