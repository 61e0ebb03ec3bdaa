"""The sparse block keeps the largest changes, to half a step, in few bytes; it trusts no byte."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import sparse
from protocol.errors import SparseError
from tests.support import mutated

LARGEST = 2**16 - 1
few = settings(max_examples=150, deadline=None)


@st.composite
def models(draw: st.DrawFn) -> tuple[Any, list[int], int]:
    """Changes, the sizes of their tensors, and how many of them may be sent."""
    tensors = draw(st.lists(st.integers(1, 120), min_size=1, max_size=4))
    largest = draw(st.sampled_from([1, 3, 127, 128, 1000, LARGEST]))
    share = draw(st.sampled_from([0, 0.02, 0.3, 1]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    changes = rng.integers(-largest, largest + 1, sum(tensors))
    changes[rng.random(len(changes)) >= share] = 0
    return changes, tensors, draw(st.integers(1, sum(tensors)))


@given(models())
@few
def test_a_block_brings_each_change_within_half_a_step(model: tuple[Any, list[int], int]) -> None:
    changes, tensors, top = model
    indices = sparse.top_indices(changes, top)
    decoded = sparse.decode(sparse.encode(changes, indices, tensors), tensors)
    assert decoded.indices.tolist() == indices.tolist()
    assert (np.diff(decoded.indices) > 0).all()
    end = 0
    for size in tensors:
        start, end = end, end + size
        inside = (indices >= start) & (indices < end)
        wanted = changes[indices[inside]]
        # The step is the least power of two at which int8 holds the tensor's largest change.
        step = 1
        while (np.abs(wanted).max(initial=0) + step // 2) // step > 127:
            step *= 2
        assert (2 * np.abs(decoded.changes[inside] - wanted) <= step).all()


@given(models())
@few
def test_the_top_is_the_largest_changes_and_among_equals_the_lower_index(
    model: tuple[Any, list[int], int],
) -> None:
    changes, _, top = model
    ranked = sorted((-abs(change), i) for i, change in enumerate(changes.tolist()) if change)
    assert sparse.top_indices(changes, top).tolist() == sorted(i for _, i in ranked[:top])


@given(models(), st.integers(0, 2**32))
@few
def test_whatever_is_not_a_block_is_refused(model: tuple[Any, list[int], int], seed: int) -> None:
    # Mutants of a valid block: bits flipped, bytes set, cut short, extended.
    changes, tensors, top = model
    block = sparse.encode(changes, sparse.top_indices(changes, top), tensors)
    rng = np.random.default_rng(seed)
    for _ in range(30):
        assert_decoded_or_refused(mutated(rng, block), tensors)


@given(st.binary(max_size=80), st.lists(st.integers(1, 60), min_size=1, max_size=4))
@few
def test_no_bytes_do_harm(data: bytes, tensors: list[int]) -> None:
    assert_decoded_or_refused(data, tensors)
    assert_decoded_or_refused(bytes([len(data) % 2]) + data, tensors)


def assert_decoded_or_refused(data: bytes, tensors: list[int]) -> None:
    try:
        indices, changes = sparse.decode(data, tensors)
    except SparseError:
        return
    assert len(indices) == len(changes)
    assert (np.diff(indices) > 0).all()
    assert ((indices >= 0) & (indices < sum(tensors))).all()
    assert (np.abs(changes) <= 128 << sparse.MAX_EXPONENT).all()


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        pytest.param("", "fewer than its header's 5", id="nothing"),
        pytest.param("01040000", "fewer than its header's 5", id="a header cut short"),
        pytest.param("02040000000f02fe0701", "coding 2 is unknown", id="an unknown coding"),
        pytest.param("01090000000f02fe0701", "9 entries", id="more entries than parameters"),
        pytest.param("0104000b000f02fe0701", "exponent 11 is above 10", id="a scale too large"),
        pytest.param("01040000000f02fe07", "9 bytes, but", id="a value missing"),
        pytest.param("01040000000f02fe070100", "11 bytes, but", id="a byte too many"),
        pytest.param("01040000000702fe0701", "marks 3 entries", id="a bitmap that marks less"),
        pytest.param("0001000000120105", "a spare bit is set", id="a spare low bit"),
        pytest.param("0001000000020305", "2 high parts", id="a spare high bit"),
        pytest.param("0001000000020205", "must increase and stay below 8", id="too high an index"),
        pytest.param("00020000000006", "7 bytes, but", id="no index and no value"),
        pytest.param("000200000005030101", "must increase", id="the same index twice"),
    ],
)
def test_a_refusal_says_why(block: str, reason: str) -> None:
    # What is changed here in one place each is sound, for two tensors of four parameters.
    bitmap = sparse.decode(bytes.fromhex("01040000000f02fe0701"), (4, 4))
    assert bitmap.indices.tolist() == [0, 1, 2, 3]
    assert bitmap.changes.tolist() == [2, -2, 7, 1]
    elias_fano = sparse.decode(bytes.fromhex("0001000000020105"), (4, 4))
    assert (elias_fano.indices.tolist(), elias_fano.changes.tolist()) == ([2], [5])
    with pytest.raises(SparseError, match=reason):
        sparse.decode(bytes.fromhex(block), (4, 4))


def test_a_tenth_of_a_thousand_parameters_takes_at_most_190_bytes() -> None:
    # 3 bytes and a scale of header; then indices and values, whatever the hundred entries are.
    rng = np.random.default_rng(5)
    supports = [rng.choice(1000, 100, replace=False) for _ in range(500)]
    supports += [np.arange(100), np.arange(900, 1000), np.arange(0, 1000, 10)]
    sizes = set()
    for support in supports:
        changes = np.zeros(1000, np.int64)
        changes[support] = rng.integers(1, LARGEST, 100)
        block = sparse.encode(changes, np.sort(support), (1000,))
        sizes.add(len(block) - 4)
    assert max(sizes) <= 190
    assert len(sizes) == 1  # Elias-Fano's size does not depend on where the entries lie.


def test_the_scale_covers_the_largest_change_there_is() -> None:
    assert sparse.scale_exponent(LARGEST) <= sparse.MAX_EXPONENT
    assert LARGEST == 32767 - -32768


@pytest.mark.parametrize(
    ("parameters", "percent", "count"), [(1000, 10, 100), (1001, 10, 101), (5, 0.1, 1), (7, 100, 7)]
)
def test_the_share_is_rounded_up(parameters: int, percent: float, count: int) -> None:
    assert sparse.top_count(parameters, percent) == count
