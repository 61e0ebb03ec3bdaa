"""The journal beside the intake: what is told to a board is written down before.

What passes the checks of :mod:`rounds.intake` is journaled, the whole group in one commit, and only
then may it be acknowledged, summed and receipted: the journal never knows less than a board was
told.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from aggregator.journal.journal import Entry, Journal
from protocol.messages import Update
from protocol.mqtt import Message
from protocol.sparse import Sparse, decode
from protocol.spec.spec import Spec
from rounds.intake import Intake, Rejection
from rounds.learning import Basis


@dataclass
class IngestResult:
    """What came of a group of messages."""

    accepted: list[Update] = field(default_factory=list)
    """Journaled now."""
    receipts: dict[int, set[str]] = field(default_factory=dict)
    """Per round, the boards to be told that their updates are journaled, now or before."""
    rejected: list[Rejection] = field(default_factory=list)


class Ingest:
    """Has updates checked, journals them and has them summed.

    Args:
        spec: the fleet's.
        intake: checks and sums; it asks this journal for the digests of updates that came before.
        journal: open.
    """

    def __init__(self, spec: Spec, intake: Intake, journal: Journal) -> None:
        self._intake = intake
        self._journal = journal
        self._tensors = spec.tensors

    def take(self, messages: Iterable[Message]) -> IngestResult:
        """Check a group of messages, journal its updates in one commit and sum them.

        Raises:
            StateError: the journal cannot be written; nothing of the group counts.
        """
        found = self._intake.check((topic, payload) for topic, payload, _, _ in messages)
        if found.candidates:
            now = self._intake.round
            self._journal.append(
                [
                    Entry(round_, board, now, update.nonce, digest, payload)
                    for (round_, board), (update, _, digest, payload) in found.candidates.items()
                ]
            )
            self._intake.count(found.candidates)
        accepted = [candidate.update for candidate in found.candidates.values()]
        return IngestResult(accepted, found.receipts, found.rejected)

    def restore(self, round_: int) -> list[Update]:
        """Sum this round's journaled updates again, after a restart; returns them.

        Raises:
            StateError: the journal cannot be read.
            ProtocolError: an update in it cannot be read, although it could be once.
        """
        updates = [Update.unpack(payload) for _, payload in self._journal.payloads(round_)]
        for update in updates:
            self._intake.add(update, decode(update.changes, self._tensors))
        return updates

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
            yield self._intake.basis(update, round_), update.board, sparse
