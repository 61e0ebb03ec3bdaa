"""What a round's updates come to: integers, so that any order gives the same sum, bit for bit."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from protocol.fixed import LOSS_BITS, WEIGHT_BITS
from protocol.messages import Update
from protocol.sparse import Sparse


def clipped(sparse: Sparse, norm: float | None) -> Sparse:
    """An update as short as ``norm`` asks: as it is, or scaled down to it and cut to whole units.

    Args:
        sparse: the update.
        norm: largest L2 norm, in weight values; None for any.
    """
    if norm is None:
        return sparse
    most = norm * 2**WEIGHT_BITS
    square = int(sparse.changes @ sparse.changes)  # At most 2**16 times 2**34.
    if square <= most * most:
        return sparse
    # Cut towards zero, no value grows, so the norm holds to the last bit of a float.
    scaled = np.trunc(sparse.changes * (most / square**0.5)).astype(np.int64)
    return Sparse(sparse.indices, scaled)


@dataclass
class PartialSum:
    """Updates merged exactly.

    Args:
        parameters: how many the fleet shares.
        clip: largest L2 norm of an update, in weight values; a longer one is scaled down to it.
    """

    parameters: int
    weight: int = 0
    """Updates in the sum."""
    support_loss: int = 0
    """Sum of losses over all support samples, in loss format."""
    support: int = 0
    """Support samples."""
    query_loss: int = 0
    query: int = 0
    query_correct: int = 0
    """Query samples whose class was correct before they were learned from."""
    clip: float | None = None
    changes: NDArray[np.int64] = field(init=False)
    """Sum of changes in weight units, shape (parameters,)."""
    senders: NDArray[np.int64] = field(init=False)
    """Updates that hold each parameter, shape (parameters,)."""

    def __post_init__(self) -> None:
        self.changes = np.zeros(self.parameters, np.int64)
        self.senders = np.zeros(self.parameters, np.int64)

    def add(self, update: Update, sparse: Sparse) -> None:
        """Merge an update, whose changes are ``sparse``."""
        self.add_changes(sparse)
        self.support_loss += update.support_loss
        self.support += update.support
        self.query_loss += update.query_loss
        self.query += update.query
        self.query_correct += update.query_correct

    def add_changes(self, sparse: Sparse) -> None:
        """Merge an update's changes; of its losses nothing is known."""
        indices, changes = clipped(sparse, self.clip)
        self.changes[indices] += changes  # No index occurs twice.
        self.senders[indices] += 1
        self.weight += 1

    def merge(self, other: "PartialSum") -> None:
        """Merge another sum."""
        self.changes += other.changes
        self.senders += other.senders
        for name in ("weight", "support_loss", "support", "query_loss", "query", "query_correct"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def losses(self, outputs: int) -> tuple[float, float]:
        """Mean losses of the support and of the query samples.

        Each loss was measured before its sample was learned from. There must be an update.

        Args:
            outputs: over how many the mean squared error is a mean; 1 for the cross-entropy.
        """
        scale = 2**LOSS_BITS * outputs
        return self.support_loss / (self.support * scale), self.query_loss / (self.query * scale)
