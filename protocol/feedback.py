"""Error feedback: what an update leaves unsent goes with a later one.

The board keeps a residual for each global parameter: the changes that were not among the largest,
and what rounding took from those that were. It adds the residual to the next round's changes before
it chooses. So small changes that always point the same way get through in the end, whatever P and
the width of the values (Stich et al., "Sparsified SGD with memory", 2018; Karimireddy et al.,
"Error feedback fixes SignSGD and other gradient compression schemes", 2019).

Nothing is counted twice, and only an update that may be on its way can be lost:

- An update takes what it carries out of the residual when it is written, not when its receipt
  comes.
- One that was never handed to the network is taken back, whole: :func:`take_back`.
- One that was, and whose round ended without a receipt, may be journaled or not; a board cannot
  tell. It counts as delivered. Were it not, that round would miss one board's largest changes, as
  if the board had been asleep. The other mistake is worse: changes that are sent again for want of
  a receipt, round after round, by a board that hears none, would grow without bound.

A residual lives in RAM: a restart or a new plan starts from zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from protocol import fixed, sparse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def encode(
    changes: NDArray[np.int64],
    residual: NDArray[np.int16],
    top: int,
    tensors: Sequence[int],
    value_bits: int = 8,
) -> tuple[bytes, NDArray[np.int16]]:
    """Encode the largest of changes and residual together.

    Args:
        changes: of this round in weight units, at most ``sparse.LARGEST`` in magnitude; shape (n,).
        residual: what earlier updates left; shape (n,).
        top: most entries.
        tensors: how many parameters each tensor has; their sum is n.
        value_bits: 4, 8 or 16.

    Returns:
        The block, and the residual after it. Block and residual make up changes and residual,
        exactly, unless their sum leaves ``sparse.LARGEST`` or what remains leaves int16: both
        saturate.
    """
    blocks, left = encode_all(changes[None], residual[None], top, tensors, value_bits)
    return blocks[0], left[0]


def encode_all(
    changes: NDArray[np.int64],
    residuals: NDArray[np.int16],
    top: int,
    tensors: Sequence[int],
    value_bits: int = 8,
) -> tuple[list[bytes], NDArray[np.int16]]:
    """:func:`encode` of many boards' changes and residuals, a row each; shapes (boards, n)."""
    wanted = np.clip(changes + residuals, -sparse.LARGEST, sparse.LARGEST)
    blocks = sparse.encode_all(wanted, top, tensors, value_bits)
    for left, sent in zip(wanted, sparse.decode_all(blocks, tensors), strict=True):
        assert isinstance(sent, sparse.Sparse)  # noqa: S101 - these blocks are our own
        left[sent.indices] -= sent.changes
    return blocks, np.clip(wanted, fixed.WEIGHT_MIN, fixed.WEIGHT_MAX).astype(np.int16)


def take_back(
    residual: NDArray[np.int16], block: bytes, tensors: Sequence[int]
) -> NDArray[np.int16]:
    """The residual with what a block that was never sent carries; saturates."""
    whole = residual.astype(np.int64)
    indices, changes = sparse.decode(block, tensors)
    whole[indices] += changes
    return np.clip(whole, fixed.WEIGHT_MIN, fixed.WEIGHT_MAX).astype(np.int16)
