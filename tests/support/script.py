"""Boards that follow a script, so that it is known what must come of their fleet, bit for bit.

What a board sends is a function of its name and the round. And every board of the fleet moves one
parameter, its mark, that no other moves: the model itself tells how often each was counted.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from protocol import sparse
from protocol.fixed import fnv1a
from protocol.messages import Update
from protocol.spec.spec import Spec
from rounds.model import GlobalModel
from rounds.optimizers import cosine_step
from rounds.sums import PartialSum
from tests.support.messages import block, make_update

MARK: Final = 16
"""Weight units by which a round that all boards answer moves a board's mark, at a step of 1."""
LARGEST: Final = 300
"""No other change of an update is as large: marks are always among those that are sent."""


class Script:
    """What boards send, and what must come of it.

    Args:
        spec: the fleet's.
        boards: whose marks the model bears, the first parameter for the first of them.
    """

    def __init__(self, spec: Spec, boards: Sequence[str]) -> None:
        self.spec = spec
        self.boards = tuple(boards)
        self.lineage = spec.lineage
        """The plan's, once a board has heard it."""

    def update(self, board: str, round_: int, **facts: Any) -> Update:
        """What a board sends in a round, always the same but for these facts."""
        spec, marks = self.spec, len(self.boards)
        rng = np.random.default_rng(fnv1a(f"{board}/{round_}"))
        changes = np.zeros(spec.global_count, np.int64)
        others = np.arange(marks, spec.global_count)
        chosen = rng.choice(others, spec.plan.top - 1, replace=False)
        changes[chosen] = rng.integers(1, LARGEST, len(chosen)) * rng.choice([-1, 1], len(chosen))
        if board in self.boards:
            changes[self.boards.index(board)] = MARK * marks
        usual = {"lineage": self.lineage, "bytes_up": 1000 * (round_ + 1)} | facts
        return make_update(spec, board, round_, block(spec, changes), **usual)

    def total(self, answers: Iterable[tuple[int, str]]) -> PartialSum:
        """The sum of updates, each named by its round and board."""
        total = PartialSum(self.spec.global_count)
        for round_, board in answers:
            message = self.update(board, round_)
            total.add(message, sparse.decode(message.changes, self.spec.tensors))
        return total

    def advance(self, model: GlobalModel, boards: Iterable[str]) -> None:
        """Make the next version of a model, by the mean of these boards' updates."""
        round_ = model.version
        total = self.total((round_, board) for board in boards)
        model.advance(total.changes / total.weight, cosine_step(self.spec.rounds, round_))

    def oracle(self, answered: Iterable[Iterable[str]]) -> GlobalModel:
        """The model after rounds that these boards answered."""
        model = GlobalModel(self.spec)
        for boards in answered:
            self.advance(model, boards)
        return model
