"""What a fleet learns: the version that its boards have, and perhaps a newer one, the canary.

Without a canary in the spec, each round's change goes into the version that every board gets. With
one, it makes a version that only some boards try out in the next round. Each board's loss before it
learns is an honest measure of the version that it works on, so the round tells which is better: if
the boards that try it out do worse than the others by more than the spec's tolerance, the version
is rolled back, and with it what was learned on top of it; else all boards get it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import InitVar, dataclass, field
from enum import Enum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocol.cohort import EVERYONE, is_canary
from protocol.sparse import Sparse
from protocol.spec.rounds import Rounds
from protocol.spec.spec import Spec
from rounds.combine import Combination, Rule, rule_of
from rounds.model import GlobalModel
from rounds.optimizers import cosine_step
from rounds.sums import PartialSum


class Verdict(Enum):
    """What a round says of the canary version; the values are words of the history."""

    PROMOTED = "promoted"
    ROLLED_BACK = "rolled back"
    UNDECIDED = "undecided"
    """Nobody answered who tried it out, or nobody else."""


class Basis(NamedTuple):
    """What an update was made from."""

    age: int
    """Rounds since then."""
    is_canary: bool
    """Whether that was the canary version."""


Sums = Mapping[Basis, PartialSum]
Updates = Iterable[tuple[Basis, str, Sparse]]
"""Each with its board's name."""


class RoundResult(NamedTuple):
    """What a round came to."""

    combined: Combination
    verdict: Verdict | None
    """What it says of the canary version, if there was one."""


@dataclass
class Version:
    """A model and the packed delta that leads to it; empty where boards must fetch it whole."""

    model: GlobalModel
    delta: bytes = b""


@dataclass(frozen=True)
class CanaryGroup:
    """Whom a round lets try out which version; what its announcement says."""

    version: int = 0
    """0 if there is none."""
    share: int = 0
    """See :func:`protocol.cohort.is_canary`."""

    def has(self, board: str) -> bool:
        """Whether this board tries it out."""
        return self.version > 0 and is_canary(board, self.version, self.share)


NO_CANARY: Final = CanaryGroup()


@dataclass
class Learning:
    """The live versions of a fleet's model.

    Args:
        spec: the fleet's.
        stable: what boards work on.
        canary: what some of them try out, if there is a canary.
        rule: combines a round's updates; by default the rule that the spec names.
    """

    spec: Spec
    stable: Version
    canary: Version | None = None
    rule: InitVar[Rule | None] = None

    _rules: Rounds = field(init=False)
    _rule: Rule = field(init=False)

    def __post_init__(self, rule: Rule | None) -> None:
        self._rules = self.spec.rounds
        self._rule = rule_of(self._rules) if rule is None else rule

    @property
    def newest(self) -> Version:
        """The version that the next one is made of."""
        return self.canary or self.stable

    def canary_group(self) -> CanaryGroup:
        """Who tries out which version in a round that opens now."""
        canary = self._rules.canary
        if canary is None or self.canary is None:
            return NO_CANARY
        return CanaryGroup(self.canary.model.version, int(canary.share * EVERYONE))

    def close(self, sums: Sums, updates: Updates, round_: int) -> RoundResult:
        """Take in what a round has gathered, of at least one update.

        Args:
            sums: of its updates, by what they were made from.
            updates: the same one by one; read, once, only where the rule of the spec needs them.
            round_: its number, by which the step is annealed.
        """
        step = cosine_step(self._rules, round_)
        verdict = self._judge(sums)
        newest = self.newest.model.version
        if verdict is Verdict.PROMOTED:
            self.stable, self.canary = self.newest, None
        if verdict is Verdict.ROLLED_BACK:
            self.canary = None
            sums = {basis: total for basis, total in sums.items() if not basis.is_canary}
        weighed = [
            ((1 + basis.age) ** -self._rules.discount, sums[basis]) for basis in sorted(sums)
        ]
        used = ((board, sparse) for basis, board, sparse in updates if basis in sums)
        combined = self._rule.combine(weighed, used)
        model = self.newest.model.copy()
        follows = model.version == newest
        model.version = newest
        delta = model.advance(combined.change, step).pack()
        self._offer(Version(model, delta if follows else b""))
        return RoundResult(combined, verdict)

    def replace(self, published: NDArray[np.int16]) -> None:
        """Go on with other weights, of an earlier version or from elsewhere."""
        self._offer(Version(self.newest.model.replaced(published)))

    def _offer(self, version: Version) -> None:
        if self._rules.canary is None:
            self.stable, self.canary = version, None
        else:
            self.canary = version

    def _judge(self, sums: Sums) -> Verdict | None:
        canary = self._rules.canary
        if self.canary is None or canary is None:
            return None
        loss, others = query_loss(sums, is_canary=True), query_loss(sums, is_canary=False)
        if loss is None or others is None:
            return Verdict.UNDECIDED
        is_worse = loss > (1 + canary.tolerance) * others
        return Verdict.ROLLED_BACK if is_worse else Verdict.PROMOTED


def query_loss(sums: Sums, *, is_canary: bool) -> float | None:
    """Mean loss of the query samples of the canary group, or of the others, in loss format.

    None where there were none.
    """
    chosen = [total for basis, total in sums.items() if basis.is_canary == is_canary]
    samples = sum(total.query for total in chosen)
    return sum(total.query_loss for total in chosen) / samples if samples else None
