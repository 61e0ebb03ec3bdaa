"""Sums are exact in any order; what is published is the version; what waits is not lost."""

from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from protocol import sparse
from protocol.fixed import WEIGHT_MAX, WEIGHT_MIN
from protocol.messages import Delta, Update
from rounds.model import GlobalModel
from rounds.sums import PartialSum
from tests.rounds.network import SIZE, SPEC, changes
from tests.support.messages import block, make_update


def update(seed: int) -> tuple[Update, sparse.Sparse]:
    content = block(SPEC, changes(seed))
    losses = {"support_loss": 1000 + seed, "query_loss": 2000}
    message = make_update(SPEC, f"board-{seed}", changes=content, **losses)
    return message, sparse.decode(content, SPEC.tensors)


def total(*seeds: int) -> PartialSum:
    result = PartialSum(SIZE)
    for seed in seeds:
        result.add(*update(seed))
    return result


def mean(*seeds: int) -> NDArray[np.float64]:
    result = total(*seeds)
    return result.changes / result.weight


# --- Sums


@given(st.permutations(range(5)))
def test_updates_have_the_same_sum_in_any_order(order: list[int]) -> None:
    one, other = total(*range(5)), total(*order)
    assert one.changes.tobytes() == other.changes.tobytes()
    assert (one.weight, one.losses(2)) == (other.weight, other.losses(2))


def test_losses_are_means_per_sample_and_output_in_real_units() -> None:
    support, query = total(0, 2).losses(outputs=2)
    assert support == (1000 + 1002) / (4096 * 8 * 2)
    assert query == (2000 + 2000) / (4096 * 10 * 2)


# --- Versions


def test_it_starts_from_the_spec() -> None:
    model = GlobalModel(SPEC)
    assert model.version == 0
    np.testing.assert_array_equal(model.published, SPEC.start())


def test_the_fine_model_goes_the_step_times_the_mean() -> None:
    model = GlobalModel(SPEC)
    before = model.fine.copy()
    model.advance(mean(1, 2, 3), 1.5)
    np.testing.assert_array_equal(model.fine, before + 1.5 * mean(1, 2, 3))


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=8), st.floats(0, 50))
def test_a_board_that_follows_the_deltas_has_every_version(seeds: list[int], step: float) -> None:
    model = GlobalModel(SPEC)
    board = SPEC.start().astype(np.int64)
    for version, seed in enumerate(seeds, 1):
        delta = Delta.unpack(model.advance(changes(seed, 5000).astype(float), step).pack())
        assert (delta.lineage, delta.version) == (SPEC.lineage, version)
        indices, moves = sparse.decode(delta.changes, SPEC.tensors)
        assert len(indices) <= sparse.top_count(SIZE, 20)
        board[indices] = np.clip(board[indices] + moves, WEIGHT_MIN, WEIGHT_MAX)
        assert crc32(board.astype("<i2").tobytes()) == delta.checksum == model.checksum


def test_what_is_not_published_yet_waits_and_comes() -> None:
    model = GlobalModel(SPEC)
    model.advance(changes(1).astype(float), 1.0)
    assert np.abs(model.fine - model.published).max() > 1
    for _ in range(20):  # Nothing new: a fifth of the rest goes out each time.
        model.advance(None, 1.0)
    np.testing.assert_array_equal(model.published, np.rint(model.fine))


def test_weights_stop_at_the_ends_of_their_range() -> None:
    model = GlobalModel(SPEC)
    ends = np.where(np.arange(SIZE) % 2, 1e9, -1e9)
    for _ in range(10):
        model.advance(ends, 100.0)
    assert set(np.unique(model.fine)) == {WEIGHT_MIN, WEIGHT_MAX}
    np.testing.assert_array_equal(
        model.published, np.where(np.arange(SIZE) % 2, 2**15 - 1, -(2**15))
    )


def test_a_restored_model_goes_on_bit_for_bit() -> None:
    model = GlobalModel(SPEC)
    model.advance(mean(1, 2), 1.3)
    copy = GlobalModel.restore(SPEC, model.version, model.fine.tobytes(), model.published.tobytes())
    assert model.advance(mean(3), 0.7) == copy.advance(mean(3), 0.7)
    assert model.fine.tobytes() == copy.fine.tobytes()


def test_a_state_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="reshape"):
        GlobalModel.restore(SPEC, 1, bytes(8), bytes(2))


def test_the_chunks_are_the_model() -> None:
    model = GlobalModel(SPEC)
    model.advance(mean(1), 1.0)
    chunks = model.chunks()
    content = b"".join(chunk.weights for chunk in chunks)
    assert [(chunk.chunk, chunk.chunks, chunk.version) for chunk in chunks] == [
        (i, len(chunks), 1) for i in range(len(chunks))
    ]
    assert {len(chunk.weights) for chunk in chunks[:-1]} == {1024}
    assert content == model.published.astype("<i2").tobytes()
    assert {crc32(content)} == {chunk.checksum for chunk in chunks}
