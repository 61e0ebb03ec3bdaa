"""Somebody who may publish, but is no board, sends whatever comes to mind while a fleet works.

Forged names, replays, rounds that are over or to come, numbers that are none, messages that are
empty, cut, oversize or nested deeply: each is rejected by its reason. The fleet's rounds go on,
each version is the oracle's, and the aggregator's memory does not grow with what it rejects.

What a name alone can do is left out, since this broker asks for no password: a valid update under a
board's own name, or its state.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgpack
import numpy as np
import pytest

from protocol.messages import MAX_MESSAGE_BYTES, Update
from runtime.watcher import Watcher
from tests.conftest import Broker
from tests.faults.fleet import BOARDS, Fleet
from tests.faults.ledger import Account
from tests.support.client import Client
from tests.support.parts import mutated
from tests.support.waiting import PATIENCE

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(0)]

MESSAGES: Final = 12_000
LARGE: Final = 900
"""Messages of 128 KiB: 118 MB."""
MOST_GROWTH: Final = 32 * 2**20
"""Bytes of memory. It is about 10 MB; 4 MiB of messages are held at once."""
REASONS: Final = {
    "oversize",
    "garbled",
    "format",
    "identity",
    "lineage",
    "stale",
    "future",
    "duplicate",
    "sparse",
}
NESTED: Final = (
    b"\x91" * 100_000,
    b"\x81\x01" * 50_000,
    b"\xdc\xff\xff" * 1000,
    b"\xdd\xff\xff\xff\xff" * 100,
    b"\x9f\x01\x00" + b"\x91" * 1000,
)
NO_NUMBERS: Final[tuple[Any, ...]] = (
    *(float("nan"), float("inf"), float("-inf"), -0.0, 1e300),
    *(-1, 2**32, 2**63, 2**64 - 1, None, True, "", b"", [], {}),
)
STATES: Final = (
    b"",
    b"\xff\xfe",
    b"NaN",
    b'{"state": NaN}',
    b'{"state": ["ready"]}',
    b'{"state": "ready"',
    b"[" * 3000,
    b'{"state": "ready", "more": "' + b"x" * 100_000 + b'"}',
    b'{"state": "lost"}',
)

Message = tuple[str, bytes]


class Stranger:
    """Thinks of messages, each under another name."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        self._fleet = fleet
        self._script = fleet.script
        self._topics = fleet.topics
        self._rng = np.random.default_rng(seed)
        self._kinds = (
            *(self.noise, self.cut, self.mutant, self.odd_field, self.nested, self.under_a_name),
            *(self.replay, self.stale, self.future, self.lineage, self.block, self.samples),
            *(self.odd_topic, self.state),
        )

    def messages(self, count: int) -> Iterator[Message]:
        for i in range(count):
            kind = self._kinds[int(self._rng.integers(len(self._kinds)))]
            yield kind(f"{kind.__name__}-{i}")

    def large(self, name: str) -> Message:
        size = MAX_MESSAGE_BYTES + int(self._rng.integers(1, 3000))
        return self._topics.up(name), self._rng.bytes(size)

    # --- Each refuses to be read

    def noise(self, name: str) -> Message:
        return self._topics.up(name), self._rng.bytes(int(self._rng.integers(0, 300)))

    def cut(self, name: str) -> Message:
        sound = self._update(name).pack()
        return self._topics.up(name), sound[: int(self._rng.integers(len(sound)))]

    def nested(self, name: str) -> Message:
        return self._topics.up(name), NESTED[int(self._rng.integers(len(NESTED)))]

    def odd_field(self, name: str) -> Message:
        fields = msgpack.unpackb(self._update(name, lineage=0).pack())
        fields[self._rng.integers(len(fields))] = NO_NUMBERS[
            int(self._rng.integers(len(NO_NUMBERS)))
        ]
        return self._topics.up(name), msgpack.packb(fields)

    def mutant(self, name: str) -> Message:
        # So far from our lineage that no mutation leads to it.
        other = self._script.lineage ^ 0xFFFFFFFF
        sound = self._update(name, lineage=other).pack()
        return self._topics.up(name), mutated(self._rng, sound)

    # --- Each is a sound update, at the wrong place or time

    def under_a_name(self, name: str) -> Message:
        """A board's own next update, on another's topic."""
        board = str(self._rng.choice(BOARDS))
        return self._topics.up(name), self._script.update(board, self._fleet.version).pack()

    def replay(self, _name: str) -> Message:
        """What a board has sent in a round that is over."""
        board = str(self._rng.choice(BOARDS))
        return self._topics.up(board), self._script.update(board, self._past()).pack()

    def stale(self, _name: str) -> Message:
        """Another update of a board that has answered."""
        board = str(self._rng.choice(BOARDS))
        return self._topics.up(board), self._script.update(board, self._past(), nonce=2).pack()

    def future(self, name: str) -> Message:
        return self._topics.up(name), self._update(name, round=2**31).pack()

    def lineage(self, name: str) -> Message:
        return self._topics.up(name), self._update(name, lineage=1).pack()

    # --- Each is for the open round, and wrong inside

    def block(self, name: str) -> Message:
        update = self._update(name, round=self._fleet.version)
        sound = update.changes
        bad = (b"", b"\xff" * 30, sound + b"\0", sound[:3] + b"\xff" + sound[4:], bytes(9))
        return self._topics.up(name), replace(
            update, changes=bad[int(self._rng.integers(len(bad)))]
        ).pack()

    def samples(self, name: str) -> Message:
        odd: tuple[dict[str, Any], ...] = (
            {"support": 0},
            {"query": 0},
            {"query": 2**32 - 1},
            {"query_correct": 6},
        )
        fields = odd[int(self._rng.integers(len(odd)))]
        return self._topics.up(name), self._update(name, round=self._fleet.version, **fields).pack()

    # --- Each comes where no update belongs

    def odd_topic(self, name: str) -> Message:
        places = ("99", "-1", "x", "007", "", "٣")
        names = (name, "a b", "é", "", "x" * 30_000, "..", "%s", name.upper())
        root = self._topics.root
        place = places[int(self._rng.integers(len(places)))]
        whose = names[int(self._rng.integers(len(names)))]
        return f"{root}/up/{place}/{whose}", self._update(name).pack()

    def state(self, name: str) -> Message:
        return self._topics.state(name), STATES[int(self._rng.integers(len(STATES)))]

    def _past(self) -> int:
        return int(self._rng.integers(self._fleet.version))

    def _update(self, name: str, **fields: Any) -> Update:
        sound = self._script.update(BOARDS[0], 0)
        return replace(sound, board=name, **fields)


def test_a_flood_of_nonsense(
    tmp_path: Path,
    broker: Broker,
    book: Callable[[Account], None],
    again: Callable[[int], Iterator[int]],
) -> None:
    for seed in again(1):
        fleet = Fleet(tmp_path / str(seed), broker.port, f"flood-{seed}")
        stranger = Stranger(fleet, seed)
        fleet.aggregator.start()
        with (
            fleet.running(),
            Client(broker.port) as flood,
            Watcher(broker.port, fleet.topics) as watcher,
        ):
            fleet.wait_for_rounds(3)
            before = fleet.aggregator.resident_bytes()
            sent = flood.send_all(stranger.messages(MESSAGES))
            sent += flood.send_all(stranger.large(f"large-{i}") for i in range(LARGE))
            rejected: dict[str, int] = {}
            while rejected.get("oversize") != LARGE:  # The last ones.
                progress = watcher.next(PATIENCE)
                assert progress is not None
                rejected = progress.rejected
            growth = fleet.aggregator.resident_bytes() - before
            fleet.settle(sent, book)
        assert rejected.keys() == REASONS
        assert growth < MOST_GROWTH, f"{growth / 2**20:.1f} MiB more than before"
