"""What the aggregator says, and in which order a board must hear it."""

import json
from collections.abc import Callable, Iterable
from typing import Final

from protocol.commands import Answer
from protocol.messages import CHUNK_BYTES, Chunk, Receipt, Round
from protocol.progress import Progress
from protocol.spec.rounds import Rounds
from protocol.spec.spec import Spec
from protocol.topics import NAME, Topics, shard_of
from rounds.cohort import Cohort
from rounds.core import RejectReason
from rounds.intake import Rejection
from rounds.learning import CanaryGroup
from rounds.model import GlobalModel
from runtime.transport import Transport

RECEIPT_BOARDS: Final = (CHUNK_BYTES - 16) // 34
"""Boards in one receipt, at most 34 bytes each: it is no longer than a chunk of the model."""
EVENT_SECONDS: Final = 5.0
"""Between two events of one board: a hostile one must not make a storm."""
EVENT_BOARDS: Final = 10_000
"""Boards whose last event is remembered; then memory starts afresh."""


class Publisher:
    """The fleet's topics.

    Retained messages are remembered, so that a broker which lost them, or was not there when they
    were published, gets them on the next connection.
    """

    def __init__(self, spec: Spec, transport: Transport) -> None:
        self._topics = Topics(spec.fleet)
        self._transport = transport
        self._retained: dict[str, bytes] = {}  # In the order of their publication.
        self._events: dict[str, float] = {}  # Board: when its last event was sent.
        self.plan(spec)

    def plan(self, spec: Spec) -> None:
        """What boards do from now on."""
        self._lineage = spec.lineage
        self._retain(self._topics.plan, spec.plan.pack())

    def everything(self) -> None:
        """Publish again all that is to be retained, to a broker that may not have it."""
        for topic, payload in self._retained.items():
            self._transport.publish(topic, payload, retain=True, qos=1)

    def model(self, model: GlobalModel, delta: bytes) -> None:
        """The model's new version.

        Before the round that works on it, or boards would ask for what is not there yet. An empty
        delta takes back the one of another incarnation of this fleet.
        """
        self._retain(self._topics.delta, delta)
        self._chunks(self._topics.full, model.chunks())

    def canary(self, model: GlobalModel | None) -> None:
        """The canary version, or None. Before the round that tries it out."""
        self._chunks(self._topics.canary, model.chunks() if model else [])

    def _chunks(self, topic: Callable[[int], str], chunks: list[Chunk]) -> None:
        """Publish a model, and take back what a larger one left."""
        for chunk in chunks:
            self._retain(topic(chunk.chunk), chunk.pack())
        left = len(chunks)
        while self._retained.get(topic(left)):
            self._retain(topic(left), b"")
            left += 1

    def round(
        self, round_: int, version: int, cohort: Cohort, rules: Rounds, canary: CanaryGroup
    ) -> None:
        """The open round, whose deadline begins now."""
        announced = Round(
            lineage=self._lineage,
            round=round_,
            version=version,
            ticket_limit=cohort.ticket_limit,
            deadline=int(rules.deadline * 1000),
            chosen=cohort.chosen,
            max_age=rules.oldest,
            canary_version=canary.version,
            canary_share=canary.share,
        )
        self._retain(self._topics.round, announced.pack())

    def no_round(self) -> None:
        """Take back the announcement: whoever wakes now has nothing to do."""
        self._retain(self._topics.round, b"")

    def receipts(self, round_: int, boards: Iterable[str]) -> None:
        """These boards' updates are journaled. A receipt that gets lost is asked for again."""
        shards: dict[int, list[str]] = {}
        for board in sorted(boards):
            shards.setdefault(shard_of(board), []).append(board)
        for shard, names in shards.items():
            topic = self._topics.receipt(shard)
            for start in range(0, len(names), RECEIPT_BOARDS):
                part = tuple(names[start : start + RECEIPT_BOARDS])
                receipt = Receipt(self._lineage, round_, part).pack()
                self._transport.publish(topic, receipt, retain=False, qos=0)

    def rejected(self, rejected: Rejection, now: float) -> None:
        """Tell a board's operator why an update is not counted; seldom, whatever the board does."""
        board = rejected.board
        if board is None or NAME.fullmatch(board) is None:
            return
        if rejected.reason is RejectReason.DUPLICATE:
            return  # Its receipt says all.
        if now - self._events.get(board, -EVENT_SECONDS) < EVENT_SECONDS:
            return
        if len(self._events) >= EVENT_BOARDS:
            self._events.clear()
        self._events[board] = now
        event = {"rejected": rejected.reason.value, "detail": rejected.detail}
        payload = json.dumps(event).encode()
        self._transport.publish(self._topics.event(board), payload, retain=False, qos=0)

    def answer(self, command: str, id_: str, detail: str, *, done: bool) -> None:
        """What came of an operator's command."""
        answer = Answer(command=command, id=id_, ok=done, detail=detail)
        payload = answer.model_dump_json().encode()
        self._transport.publish(self._topics.answer, payload, retain=False, qos=1)

    def progress(self, progress: Progress) -> None:
        """How the fleet is doing, for people."""
        self._retain(self._topics.progress, progress.model_dump_json().encode())

    def _retain(self, topic: str, payload: bytes) -> None:
        self._retained.pop(topic, None)
        self._retained[topic] = payload
        self._transport.publish(topic, payload, retain=True, qos=1)
