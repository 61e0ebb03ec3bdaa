"""What happens to an update, in this order, and why in this order.

size -> decode -> identity -> lineage, round -> duplicate -> samples -> changes -> sum

The cheap checks and those that need no trust in the content come first; a board's re-sent update
is recognised before its changes are looked at, which are decoded for the whole group at once.
:meth:`Intake.check` finds the updates of a group that may count; the caller writes them down, where
it has a journal; then :meth:`Intake.count` sums them. Nothing that a peer sends raises an error
here.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, NamedTuple

from protocol.errors import FormatError, MessageError, SparseError
from protocol.messages import MAX_MESSAGE_BYTES, Update
from protocol.sparse import Sparse, decode_all
from protocol.spec.spec import Spec
from protocol.topics import Topics
from rounds.core import RejectReason, RoundCore, UpdateKey
from rounds.learning import NO_CANARY, Basis, CanaryGroup
from rounds.sums import PartialSum

DIGEST_BYTES: Final = 16


def digest_of(payload: bytes) -> bytes:
    """By which a re-sent update is recognised: BLAKE2b (RFC 7693) of its bytes, 16 bytes long."""
    return blake2b(payload, digest_size=DIGEST_BYTES).digest()


Arrival = tuple[str | None, bytes]
"""An update as it came, not yet read: its topic and its payload. The topic is None where the way
that it came by says whose it is."""


class Candidate(NamedTuple):
    """An update that has passed every check: it counts as soon as it is journaled."""

    update: Update
    changes: Sparse
    digest: bytes
    payload: bytes


@dataclass(frozen=True)
class Rejection:
    """An update that is not counted."""

    board: str | None
    """Whose topic it came on, if that is a board's."""
    reason: RejectReason
    detail: str
    """What was wrong, for a person."""
    journaled: UpdateKey | None = None
    """The update of this board that is journaled all the same: its receipt is due again."""


class Inspection(NamedTuple):
    """What the checks found in a group."""

    candidates: dict[UpdateKey, Candidate]
    """In the order in which they came."""
    rejected: list[Rejection]

    @property
    def receipts(self) -> dict[int, set[str]]:
        """Per round, the boards whose updates are journaled, once the candidates are."""
        due: dict[int, set[str]] = {}
        for rejection in self.rejected:
            if rejection.journaled is not None:
                due.setdefault(rejection.journaled.round, set()).add(rejection.journaled.board)
        for round_, board in self.candidates:
            due.setdefault(round_, set()).add(board)
        return due


class _RejectError(Exception):
    """Leaves the checks at the first that fails."""

    def __init__(
        self, reason: RejectReason, detail: str, journaled: UpdateKey | None = None
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.journaled = journaled


def _no_digest(round_: int, board: str) -> bytes | None:
    """Of a round that is over no update is remembered."""
    del round_, board
    return None


class Intake:
    """Checks and sums the updates of a fleet.

    Args:
        spec: the fleet's.
        core: judges rounds, and is told what is journaled.
        canaries: by round, who tries out which version in rounds that were announced before.
        journaled_digest: of a board's update for a round that is over, by round and board, or None.
            Where nothing is remembered, a re-sent update is stale and no more.
        most_entries: of an update's changes; by default the plan's.
    """

    def __init__(
        self,
        spec: Spec,
        core: RoundCore,
        *,
        canaries: dict[int, CanaryGroup] | None = None,
        journaled_digest: Callable[[int, str], bytes | None] = _no_digest,
        most_entries: int | None = None,
    ) -> None:
        self.canaries: dict[int, CanaryGroup] = {} if canaries is None else canaries
        """By round, who tries out which version; of the rounds whose updates may still come."""
        self.sums: dict[Basis, PartialSum] = {}
        """Of the updates that count in the open round, by what they were made from."""
        self._core = core
        self._journaled_digest = journaled_digest
        self._topics = Topics(spec.fleet)
        self._lineage = spec.lineage
        self._plan = spec.plan
        self._most_entries = self._plan.top if most_entries is None else most_entries
        self._tensors = spec.tensors
        self._parameters = spec.global_count
        self._clip = spec.rounds.clip
        self._oldest = spec.rounds.oldest

    # --- Rounds ----------------------------------------------------------------------------------

    @property
    def round(self) -> int:
        """The round whose sum an update that comes now goes into."""
        return self._core.round

    def announced(self, round_: int, canary: CanaryGroup) -> None:
        """A round is announced, in which these boards try out the canary version."""
        oldest = round_ - self._oldest
        for number in [number for number in self.canaries if number < oldest]:
            del self.canaries[number]
        self.canaries[round_] = canary

    def take_sums(self) -> dict[Basis, PartialSum]:
        """The sums of the round that is closed; the next round's are empty."""
        sums, self.sums = self.sums, {}
        return sums

    def basis(self, update: Update, round_: int) -> Basis:
        """What an update that counts in a round was made from."""
        canary = self.canaries.get(update.round, NO_CANARY)
        return Basis(round_ - update.round, canary.has(update.board))

    # --- A group of updates ----------------------------------------------------------------------

    def check(self, arrivals: Iterable[Arrival]) -> Inspection:
        """Find the updates of a group that may count in the open round; nothing changes by it."""
        candidates: dict[UpdateKey, Candidate] = {}
        rejected: list[Rejection] = []
        claims: list[tuple[Arrival, Update, bytes]] = []
        for arrival in arrivals:
            try:
                claims.append((arrival, *self._claim(arrival)))
            except _RejectError as error:
                rejected.append(self._rejection(arrival, error))
        blocks = decode_all([update.changes for _, update, _ in claims], self._tensors)
        for (arrival, update, digest), block in zip(claims, blocks, strict=True):
            key = UpdateKey(update.round, update.board)
            try:
                if key in candidates:  # Another one, earlier in this group.
                    self._check_round(update, digest, candidates[key].digest)
                changes = self._changes(block)
            except _RejectError as error:
                rejected.append(self._rejection(arrival, error))
            else:
                candidates[key] = Candidate(update, changes, digest, arrival[1])
        return Inspection(candidates, rejected)

    def count(self, candidates: Mapping[UpdateKey, Candidate]) -> None:
        """Count what :meth:`check` has let pass, and what is journaled by now."""
        self._core.journaled({key: candidate.digest for key, candidate in candidates.items()})
        for update, changes, _, _ in candidates.values():
            self.add(update, changes)

    def add(self, update: Update, changes: Sparse) -> None:
        """Sum an update that counts in the open round, as its core knows."""
        basis = self.basis(update, self._core.round)
        total = self.sums.get(basis)
        if total is None:
            total = self.sums[basis] = PartialSum(self._parameters, clip=self._clip)
        total.add(update, changes)

    # --- The checks ------------------------------------------------------------------------------

    def _claim(self, arrival: Arrival) -> tuple[Update, bytes]:
        """An update and its digest, after all checks that need no other update and no changes."""
        update = self._identified(arrival)
        digest = digest_of(arrival[1])
        self._check_round(update, digest)
        self._check_samples(update)
        return update, digest

    def _rejection(self, arrival: Arrival, error: _RejectError) -> Rejection:
        """The error itself is not kept: its frames would keep large garbage alive."""
        topic, _ = arrival
        whose = None if topic is None else self._topics.board_of_update(topic)
        board = whose[1] if whose else None
        return Rejection(board, error.reason, str(error), error.journaled)

    def _identified(self, arrival: Arrival) -> Update:
        """Size, decode, identity."""
        topic, payload = arrival
        if len(payload) > MAX_MESSAGE_BYTES:
            raise _RejectError(
                RejectReason.OVERSIZE, f"{len(payload)} bytes; at most {MAX_MESSAGE_BYTES}"
            )
        try:
            update = Update.unpack(payload)
        except FormatError as error:
            raise _RejectError(RejectReason.FORMAT, str(error)) from error
        except MessageError as error:
            raise _RejectError(RejectReason.GARBLED, str(error)) from error
        if topic is not None and topic != self._topics.up(update.board):
            raise _RejectError(
                RejectReason.IDENTITY,
                f"it says that it is from {update.board}, whose topic this is not",
            )
        return update

    def _check_round(self, update: Update, digest: bytes, first: bytes | None = None) -> None:
        """Lineage, round, duplicate; ``first`` as in :meth:`RoundCore.verdict`."""
        if update.lineage != self._lineage:
            raise _RejectError(
                RejectReason.LINEAGE,
                f"for lineage {update.lineage:08x}; this fleet's is {self._lineage:08x}",
            )
        reason = self._core.verdict(update.round, update.board, digest, first)
        if (
            reason is RejectReason.STALE
            and self._journaled_digest(update.round, update.board) == digest
        ):
            reason = RejectReason.DUPLICATE  # Its receipt came too late, or not at all.
        if reason is None:
            return
        # After a conflict too the board can rest: an update of it counts in this round.
        is_known = reason in {RejectReason.DUPLICATE, RejectReason.CONFLICT}
        raise _RejectError(
            reason,
            f"for round {update.round}; now it is round {self.round}",
            journaled=UpdateKey(update.round, update.board) if is_known else None,
        )

    def _check_samples(self, update: Update) -> None:
        plan = self._plan
        if not (0 < update.support <= plan.support and 0 < update.query <= plan.query):
            raise _RejectError(
                RejectReason.GARBLED,
                f"made of {update.support} support and {update.query} query samples; "
                f"the plan has {plan.support} and {plan.query}",
            )
        if update.query_correct > update.query:
            raise _RejectError(
                RejectReason.GARBLED,
                f"{update.query_correct} correct of {update.query} query samples",
            )

    def _changes(self, block: Sparse | SparseError) -> Sparse:
        if isinstance(block, SparseError):
            raise _RejectError(RejectReason.SPARSE, str(block))
        if len(block.indices) > self._most_entries:
            raise _RejectError(
                RejectReason.SPARSE,
                f"{len(block.indices)} entries; the plan allows {self._most_entries}",
            )
        return block
