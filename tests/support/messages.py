"""What boards send, by keyword."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocol import sparse
from protocol.messages import Update
from protocol.spec.spec import Spec


def block(spec: Spec, changes: NDArray[np.int64]) -> bytes:
    """The largest of these changes, as many as a board sends; shape (parameters,)."""
    return sparse.encode(changes, sparse.top_indices(changes, spec.plan.top), spec.tensors)


def make_update(
    spec: Spec, board: str = "board-a", round_: int = 0, changes: bytes = b"", **facts: Any
) -> Update:
    """A sound update of a board that has seen every sample of its round.

    Args:
        spec: whose lineage and samples it names.
        board: its name.
        round_: the round's number.
        changes: a sparse block.
        facts: other fields of the message, where they matter.
    """
    usual: dict[str, Any] = {
        "lineage": spec.lineage,
        "round": round_,
        "board": board,
        "nonce": 1,
        "support": spec.training.support,
        "query": spec.training.query,
        "support_loss": 4096,
        "query_loss": 2048,
        "query_correct": 0,
        "bytes_up": 1000,
        "bytes_down": 7,
        "milliseconds": 3,
        "heap_free": 9,
        "changes": changes,
    }
    return Update(**(usual | facts))
