"""The sparse block keeps the largest changes, to half a step, in few bytes; it trusts no byte."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import sparse
from protocol.errors import SparseError
from protocol.sparse import LARGEST
from tests.support.parts import mutated

few = settings(max_examples=150)
widths = st.sampled_from(sparse.VALUE_BITS)
each_width = pytest.mark.parametrize("value_bits", sparse.VALUE_BITS)


@st.composite
def models(draw: st.DrawFn) -> tuple[Any, list[int], int]:
    """Changes, the sizes of their tensors, and how many of them may be sent."""
    tensors = draw(st.lists(st.integers(1, 120), min_size=1, max_size=4))
    largest = draw(st.sampled_from([1, 3, 7, 8, 127, 128, 1000, 32767, 32768, LARGEST]))
    share = draw(st.sampled_from([0, 0.02, 0.3, 1]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    changes = rng.integers(-largest, largest + 1, sum(tensors))
    changes[rng.random(len(changes)) >= share] = 0
    return changes, tensors, draw(st.integers(1, sum(tensors)))


@given(models(), widths)
@few
def test_a_block_brings_each_change_within_half_a_step(
    model: tuple[Any, list[int], int], value_bits: int
) -> None:
    changes, tensors, top = model
    indices = sparse.top_indices(changes, top)
    block = sparse.encode(changes, indices, tensors, value_bits)
    assert len(block) <= sparse.block_size(top, tensors, value_bits)
    decoded = sparse.decode(block, tensors)
    assert decoded.indices.tolist() == indices.tolist()
    end = 0
    for size in tensors:
        start, end = end, end + size
        inside = (indices >= start) & (indices < end)
        wanted = changes[indices[inside]]
        # The step is the least power of two at which a value holds the tensor's largest change.
        step = 1
        while (np.abs(wanted).max(initial=0) + step // 2) // step >= 2 ** (value_bits - 1):
            step *= 2
        assert (2 * np.abs(decoded.changes[inside] - wanted) <= step).all()


@given(models(), widths, st.integers(1, 70))
@few
def test_many_blocks_at_once_are_those_that_are_made_one_by_one(
    model: tuple[Any, list[int], int], value_bits: int, rows: int
) -> None:
    changes, tensors, top = model
    rng = np.random.default_rng(rows)
    # Of each row another share is left: some have fewer entries than may be sent, or none.
    many = np.array(
        [
            rng.permutation(np.where(rng.random(len(changes)) < rng.random(), changes, 0))
            for _ in range(rows)
        ]
    )
    assert sparse.encode_all(many, top, tensors, value_bits) == [
        sparse.encode(row, sparse.top_indices(row, top), tensors, value_bits) for row in many
    ]


@given(models())
@few
def test_the_top_is_the_largest_changes_and_among_equals_the_lower_index(
    model: tuple[Any, list[int], int],
) -> None:
    changes, _, top = model
    ranked = sorted((-abs(change), i) for i, change in enumerate(changes.tolist()) if change)
    assert sparse.top_indices(changes, top).tolist() == sorted(i for _, i in ranked[:top])


@given(models(), widths, st.integers(0, 2**32))
@few
def test_whatever_is_not_a_block_is_refused(
    model: tuple[Any, list[int], int], value_bits: int, seed: int
) -> None:
    # Mutants of a valid block: bits flipped, bytes set, cut short, extended.
    changes, tensors, top = model
    block = sparse.encode(changes, sparse.top_indices(changes, top), tensors, value_bits)
    rng = np.random.default_rng(seed)
    for _ in range(30):
        assert_decoded_or_refused(mutated(rng, block), tensors)


@given(st.binary(max_size=80), st.lists(st.integers(1, 60), min_size=1, max_size=4))
@few
def test_no_bytes_do_harm(data: bytes, tensors: list[int]) -> None:
    assert_decoded_or_refused(data, tensors)
    # One of the widths that there are, and few enough entries for the rest to matter.
    assert_decoded_or_refused(bytes([len(data) % 48, len(data) % 7, 0]) + data, tensors)


def assert_decoded_or_refused(data: bytes, tensors: list[int]) -> None:
    try:
        indices, changes = sparse.decode(data, tensors)
    except SparseError:
        return
    assert len(indices) == len(changes)
    assert (np.diff(indices) > 0).all()
    assert ((indices >= 0) & (indices < sum(tensors))).all()
    assert (np.abs(changes) <= 2 ** (sparse.CHANGE_BITS - 1)).all()


@pytest.mark.parametrize(
    ("block", "indices", "changes"),
    [
        pytest.param("10040000" + "0f" + "02fe0701", [0, 1, 2, 3], [2, -2, 7, 1], id="a bitmap"),
        pytest.param("12010000" + "02" + "01" + "05", [2], [5], id="two low bits"),
        pytest.param("12010000" + "03" + "02" + "05", [7], [5], id="the last index"),
        pytest.param("00030021" + "19" + "f7" + "08", [0, 3, 4], [14, -2, -32], id="4 bits"),
        pytest.param("20010020" + "10" + "ff7f", [4], [131068], id="16 bits"),
        pytest.param(
            "40060010" + "28" + "213465", [0, 1, 2, 4, 6, 7], [1, 2, 4, 6, 10, 12], id="most"
        ),
        pytest.param("40080000" + "21436587", list(range(8)), [1, 2, 3, 4, 5, 6, 7, -8], id="all"),
        pytest.param("00000000", [], [], id="nothing"),
    ],
)
def test_a_block_written_by_hand(block: str, indices: list[int], changes: list[int]) -> None:
    # For two tensors of four parameters.
    decoded = sparse.decode(bytes.fromhex(block), (4, 4))
    assert decoded.indices.tolist() == indices
    assert decoded.changes.tolist() == changes


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        pytest.param("", "fewer than its header's 4", id="nothing"),
        pytest.param("100400", "fewer than its header's 4", id="a header cut short"),
        pytest.param("300400000f02fe0701", "coding 0x30 is unknown", id="an unknown width"),
        pytest.param(
            "900400000f02fe0701", "coding 0x90 is unknown", id="a spare bit of the coding"
        ),
        pytest.param("100900000f02fe0701", "9 entries", id="more entries than parameters"),
        pytest.param("100400b00f02fe0701", "11 is above 10", id="a scale too large"),
        pytest.param("000400f00f1234", "15 is above 14, the most for 4", id="... for 4 bits"),
        pytest.param("200100030101ff", "3 is above 2, the most for 16", id="... for 16 bits"),
        pytest.param("1004000002fe07", "too few for 4", id="bytes missing"),
        pytest.param("1004000002fe0701", "0 high parts", id="no high parts"),
        pytest.param("100400000702fe0701", "3 high parts where 4", id="a high part missing"),
        pytest.param("100400001f02fe0701", "5 high parts where 4", id="a high part too many"),
        pytest.param("100400000f0002fe0701", "bytes follow", id="a byte too many"),
        pytest.param("400800000021436587", "bytes follow", id="a byte for no gap"),
        pytest.param("1000000000", "bytes follow", id="a byte for no entry"),
        pytest.param("12010000060105", "a spare bit is set", id="a spare low bit"),
        pytest.param("0003000019f718", "a spare bit is set", id="a spare half of a value"),
        pytest.param("12010000000405", "index 8; the model has 8", id="too high an index"),
        pytest.param("1f010000ff7f8005", "index 262143", id="much too high an index"),
    ],
)
def test_a_refusal_says_why(block: str, reason: str) -> None:
    with pytest.raises(SparseError, match=reason):
        sparse.decode(bytes.fromhex(block), (4, 4))


def test_a_spare_scale_is_refused() -> None:
    assert len(sparse.decode(bytes.fromhex("10000005"), (8,)).indices) == 0
    with pytest.raises(SparseError, match="a spare bit is set"):
        sparse.decode(bytes.fromhex("10000010"), (8,))


def entropy_bound(parameters: int, entries: int, value_bits: int) -> int:
    """Bytes of the best code for a set of so many indices and their values."""
    bits = math.log2(math.comb(parameters, entries)) + entries * value_bits
    return math.ceil(bits / 8)


@each_width
@pytest.mark.parametrize("percent", [5, 7, 10, 15, 20, 25, 30, 40, 50, 60, 80, 90, 99, 100])
@pytest.mark.parametrize("tensors", [(64, 936), (80, 80, 136, 240, 264, 200), (5000, 5000)])
def test_a_block_is_within_12_percent_of_the_entropy(
    tensors: tuple[int, ...], percent: int, value_bits: int
) -> None:
    # Header and scales included, for each of forty random sets of entries.
    rng = np.random.default_rng(5)
    parameters = sum(tensors)
    count = sparse.top_count(parameters, percent)
    bound = entropy_bound(parameters, count, value_bits)
    changes = rng.integers(1, LARGEST, parameters)
    for _ in range(40):
        support = np.sort(rng.choice(parameters, count, replace=False))
        block = sparse.encode(changes, support, tensors, value_bits)
        assert len(block) <= 1.12 * bound


@each_width
def test_entries_that_lie_together_take_less(value_bits: int) -> None:
    # As in a layer of which only a few outputs learned.
    changes = np.full(1000, 3)
    support = np.concatenate([np.arange(20, 70), np.arange(150, 200)])
    block = sparse.encode(changes, support, (1000,), value_bits)
    spread = sparse.encode(changes, np.arange(0, 1000, 10), (1000,), value_bits)
    assert len(block) < len(spread) - 25


@each_width
@pytest.mark.parametrize(("parameters", "top"), [(1, 1), (30, 4), (30, 15), (999, 1), (999, 120)])
def test_no_entries_outgrow_the_buffer_for_them(parameters: int, top: int, value_bits: int) -> None:
    most = sparse.block_size(top, (parameters,), value_bits)
    changes = np.full(parameters, 1)
    supports = [np.arange(top), np.arange(parameters - top, parameters)]
    supports += [np.linspace(0, parameters - 1, top).astype(int)]
    # Gaps that are one short of a power of two are the worst for the low bits beside it.
    supports += [np.arange(0, parameters, 2**k)[:top] for k in range(5)]
    sizes = [len(sparse.encode(changes, s, (parameters,), value_bits)) for s in supports]
    assert max(sizes) <= most <= max(sizes) + 2


@pytest.mark.parametrize("gaps", list(itertools.product([0, 1, 2, 7, 40], repeat=3)))
def test_the_writer_takes_the_low_bits_that_make_the_block_shortest(gaps: tuple[int, ...]) -> None:
    indices = np.cumsum(np.array(gaps) + 1) - 1
    block = sparse.encode(np.full(200, 1), indices, (200,))
    bits = {low: sum(low + (gap >> low) + 1 for gap in gaps) for low in range(16)}
    assert bits[block[0] & 15] == min(bits.values())


@each_width
def test_the_scale_covers_the_largest_change_there_is(value_bits: int) -> None:
    assert sparse.scale_exponent(LARGEST, value_bits) + value_bits == sparse.CHANGE_BITS
    assert LARGEST == 32767 - -32768


@pytest.mark.parametrize(
    ("parameters", "percent", "count"), [(1000, 10, 100), (1001, 10, 101), (5, 0.1, 1), (7, 100, 7)]
)
def test_the_share_is_rounded_up(parameters: int, percent: float, count: int) -> None:
    assert sparse.top_count(parameters, percent) == count


@given(st.integers(0, 2**32), st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_blocks_of_a_group_are_read_as_if_each_were_alone(seed: int, count: int) -> None:
    """Sound and damaged ones, of several layouts, each several times."""
    rng = np.random.default_rng(seed)
    tensors = (30, 10, 60)
    blocks = []
    for _ in range(count):
        changes = rng.integers(-300, 300, 100)
        indices = sparse.top_indices(changes, int(rng.choice([0, 5, 20, 70])))
        block = sparse.encode(changes, indices, tensors, int(rng.choice(sparse.VALUE_BITS)))
        blocks.append(mutated(rng, block) if rng.random() < 0.3 else block)
    for block, decoded in zip(blocks, sparse.decode_all(blocks, tensors), strict=True):
        if isinstance(decoded, SparseError):
            with pytest.raises(SparseError) as alone:
                sparse.decode(block, tensors)
            assert str(decoded) == str(alone.value)
        else:
            indices, changes = sparse.decode(block, tensors)
            np.testing.assert_array_equal(decoded.indices, indices)
            np.testing.assert_array_equal(decoded.changes, changes)
