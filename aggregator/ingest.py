"""What happens to an update, in this order, and why in this order.

size -> decode -> topic identity -> lineage, round -> duplicate -> samples -> changes -> journal

The cheap checks and those that need no trust in the content come first; a board's re-sent update
is recognised before its changes are looked at, which are decoded for the whole group at once. What
passes is journaled, the whole group in one commit, and only then may it be acknowledged, summed and
receipted: the journal never knows less than a board was told. Nothing that a peer sends raises an
error here.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from aggregator.journal.journal import Entry, Journal
from protocol.errors import FormatError, MessageError, SparseError
from protocol.messages import MAX_MESSAGE_BYTES, Update
from protocol.mqtt import Message
from protocol.sparse import Sparse, decode, decode_all
from protocol.spec.spec import Spec
from protocol.topics import Topics
from rounds.core import RejectReason, RoundCore, UpdateKey
from rounds.learning import NO_CANARY, Basis, CanaryGroup
from rounds.sums import PartialSum

DIGEST_BYTES: Final = 16


@dataclass(frozen=True)
class Rejection:
    """An update that is not counted."""

    board: str | None
    """Whose topic it came on, if that is a board's."""
    reason: RejectReason
    detail: str
    """What was wrong, for a person."""


@dataclass
class IngestResult:
    """What came of a group of messages."""

    accepted: list[Update] = field(default_factory=list)
    """Journaled now."""
    receipts: dict[int, set[str]] = field(default_factory=dict)
    """Per round, the boards to be told that their updates are journaled, now or before."""
    rejected: list[Rejection] = field(default_factory=list)


class _RejectError(Exception):
    """Leaves the checks at the first that fails."""

    def __init__(self, reason: RejectReason, detail: str, journaled: int | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.journaled = journaled
        """The round in which an update of this board is journaled all the same."""


class Ingest:
    """Checks, journals and sums updates.

    Args:
        spec: the fleet's.
        core: judges rounds, and is told what is journaled.
        journal: open.
        canaries: by round, who tries out which version; the caller keeps it up to date.
    """

    def __init__(
        self, spec: Spec, core: RoundCore, journal: Journal, canaries: Mapping[int, CanaryGroup]
    ) -> None:
        self._core = core
        self._canaries = canaries
        self._journal = journal
        self._topics = Topics(spec.fleet)
        self._lineage = spec.lineage
        self._plan = spec.plan
        self._tensors = spec.tensors
        self._count = spec.global_count
        self._clip = spec.rounds.clip
        self.sums: dict[Basis, PartialSum] = {}
        """Of the journaled updates that count in the open round."""

    def restore(self, round_: int) -> list[Update]:
        """Sum this round's journaled updates again, after a restart; returns them.

        Raises:
            StateError: the journal cannot be read.
            ProtocolError: an update in it cannot be read, although it could be once.
        """
        updates = [Update.unpack(payload) for _, payload in self._journal.payloads(round_)]
        for update in updates:
            self._add(update, decode(update.changes, self._tensors))
        return updates

    def take_sums(self) -> dict[Basis, PartialSum]:
        """The sums of the round that is closed, by what its updates were made from."""
        sums, self.sums = self.sums, {}
        return sums

    def updates(self, round_: int) -> Iterator[tuple[Basis, str, Sparse]]:
        """The journaled updates that count in a round, with what they were made from.

        The journal is read when the first is asked for.

        Raises:
            StateError: the journal cannot be read.
            ProtocolError: an update in it cannot be read, although it could be once.
        """
        for _, payload in self._journal.payloads(round_):
            update = Update.unpack(payload)
            sparse = decode(update.changes, self._tensors)
            yield self._basis(update, round_), update.board, sparse

    def take(self, messages: Iterable[Message]) -> IngestResult:
        """Check a group of messages and journal its updates in one commit.

        Raises:
            StateError: the journal cannot be written; nothing of the group counts.
        """
        taken = IngestResult()
        claims: list[tuple[Message, Update, bytes]] = []
        for message in messages:
            try:
                claims.append((message, *self._claim(message)))
            except _RejectError as error:
                self._reject(message, error, taken)
        blocks = decode_all([update.changes for _, update, _ in claims], self._tensors)
        entries: list[Entry] = []
        changes: list[Sparse] = []
        digests: dict[UpdateKey, bytes] = {}
        for (message, update, digest), block in zip(claims, blocks, strict=True):
            counted = UpdateKey(update.round, update.board)
            try:
                if counted in digests:  # Another one, earlier in this group.
                    self._check_round(update, digest, digests[counted])
                changes.append(self._changes(block))
            except _RejectError as error:
                self._reject(message, error, taken)
            else:
                digests[counted] = digest
                now = self._core.round
                entries.append(Entry(*counted, now, update.nonce, digest, message.payload))
                taken.accepted.append(update)
        if entries:
            self._journal.append(entries)
            self._core.journaled(digests)
            for update, sparse in zip(taken.accepted, changes, strict=True):
                self._add(update, sparse)
                taken.receipts.setdefault(update.round, set()).add(update.board)
        return taken

    def _add(self, update: Update, sparse: Sparse) -> None:
        basis = self._basis(update, self._core.round)
        if basis not in self.sums:
            self.sums[basis] = PartialSum(self._count, clip=self._clip)
        self.sums[basis].add(update, sparse)

    def _basis(self, update: Update, round_: int) -> Basis:
        """What an update that counts in a round was made from."""
        canary = self._canaries.get(update.round, NO_CANARY)
        return Basis(round_ - update.round, canary.has(update.board))

    def _reject(self, message: Message, error: _RejectError, taken: IngestResult) -> None:
        """Note a refusal. The error is not kept: its frames would keep large garbage alive."""
        whose = self._topics.board_of_update(message.topic)
        board = whose[1] if whose else None
        taken.rejected.append(Rejection(board, error.reason, str(error)))
        if error.journaled is not None and board is not None:
            taken.receipts.setdefault(error.journaled, set()).add(board)

    def _claim(self, message: Message) -> tuple[Update, bytes]:
        """An update and its digest, after all checks that need no other update and no changes."""
        update = self._identified(message)
        digest = blake2b(message.payload, digest_size=DIGEST_BYTES).digest()
        self._check_round(update, digest)
        self._check_samples(update)
        return update, digest

    def _identified(self, message: Message) -> Update:
        """Size, decode, topic identity."""
        if len(message.payload) > MAX_MESSAGE_BYTES:
            raise _RejectError(
                RejectReason.OVERSIZE, f"{len(message.payload)} bytes; at most {MAX_MESSAGE_BYTES}"
            )
        try:
            update = Update.unpack(message.payload)
        except FormatError as error:
            raise _RejectError(RejectReason.FORMAT, str(error)) from error
        except MessageError as error:
            raise _RejectError(RejectReason.GARBLED, str(error)) from error
        if message.topic != self._topics.up(update.board):
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
            and self._journal.digest(update.round, update.board) == digest
        ):
            reason = RejectReason.DUPLICATE  # Its receipt came too late, or not at all.
        if reason is None:
            return
        # After a conflict too the board can rest: an update of it counts in this round.
        known = reason in {RejectReason.DUPLICATE, RejectReason.CONFLICT}
        raise _RejectError(
            reason,
            f"for round {update.round}; now it is round {self._core.round}",
            journaled=update.round if known else None,
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
                f"told the class of {update.query_correct} of {update.query} query samples",
            )

    def _changes(self, block: Sparse | SparseError) -> Sparse:
        if isinstance(block, SparseError):
            raise _RejectError(RejectReason.SPARSE, str(block))
        if len(block.indices) > self._plan.top:
            raise _RejectError(
                RejectReason.SPARSE,
                f"{len(block.indices)} entries; the plan allows {self._plan.top}",
            )
        return block
