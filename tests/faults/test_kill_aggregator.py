"""kill -9 of the aggregator, wherever it is in its work.

Eight boards answer round after round and send again until their receipts. Their aggregator is
killed again and again and each time started anew on its state folder. In the end every version of
the model is the oracle's, bit for bit.
"""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from tests.conftest import Broker
from tests.faults.fleet import Fleet
from tests.faults.ledger import Account
from tests.faults.service_process import Fault, When

pytestmark = [pytest.mark.real, pytest.mark.slow]

FLEETS = 4
KILLS = 25
STEPS: Final[dict[str, tuple[str, When]]] = {
    # An update's way.
    "a group has arrived": ("aggregator.ingest:Ingest.take", "before"),
    "checked, not journaled": ("aggregator.journal.journal:Journal.append", "before"),
    "in the journal's transaction": ("aggregator.journal.journal:Journal.append", "inside"),
    "journaled, not summed": ("aggregator.journal.journal:Journal.append", "after"),
    "amid the sums": ("rounds.sums:PartialSum.add", "after"),
    "summed, not acknowledged": ("runtime.transport:Transport.acknowledge", "before"),
    "amid the acknowledgements": ("runtime.wire:Wire.acknowledge", "after"),
    "acknowledged, no receipts": ("runtime.transport:Transport.acknowledge", "after"),
    "before the receipts": ("aggregator.publisher:Publisher.receipts", "before"),
    "after the receipts": ("aggregator.publisher:Publisher.receipts", "after"),
    # A round's end.
    "before the model moves": ("rounds.model:GlobalModel.advance", "before"),
    "moved, not closed": ("aggregator.journal.journal:Journal.close_round", "before"),
    "in the closing transaction": ("aggregator.journal.journal:Journal.close_round", "inside"),
    "closed, not published": ("aggregator.journal.journal:Journal.close_round", "after"),
    "the delta without the model": ("rounds.model:GlobalModel.chunks", "before"),
    "published": ("aggregator.publisher:Publisher.model", "after"),
    # A round's start.
    "before it is noted": ("aggregator.journal.journal:Journal.announce", "before"),
    "in the announcing transaction": ("aggregator.journal.journal:Journal.announce", "inside"),
    "noted, not announced": ("aggregator.journal.journal:Journal.announce", "after"),
    "announced": ("aggregator.publisher:Publisher.round", "after"),
    # The program's start.
    "before the sums are made again": ("aggregator.ingest:Ingest.restore", "before"),
    "connected, nothing published": ("aggregator.publisher:Publisher.everything", "before"),
    "all published again": ("aggregator.publisher:Publisher.everything", "after"),
}
AT_START: Final = 3
"""So many steps, the last ones, are come by once in a process's life."""


@pytest.mark.parametrize("repeats", [True, False])
def test_killed_at_every_step(
    tmp_path: Path, broker: Broker, book: Callable[[Account], None], *, repeats: bool
) -> None:
    """At each step, the first time that a process comes by and a later time, often in mid-group.

    Also with boards that send an update once and rely on the broker, which is not killed here: what
    it has confirmed to a board it must give to the aggregator until that has journaled it.
    """
    points = [(*step, 1) for step in STEPS.values()]
    points += [(*step, 4) for step in list(STEPS.values())[:-AT_START]]
    fleet = Fleet(tmp_path, broker.port, repeats=repeats)
    with fleet.running():
        for step, when, call in points:
            fleet.aggregator.start(Fault(step, when, call))
            assert fleet.aggregator.wait() == -signal.SIGKILL, (step, fleet.aggregator.said)
        fleet.aggregator.start()
        fleet.settle(len(points), book)


@pytest.mark.timeout(0)
def test_killed_at_random(
    tmp_path: Path,
    broker: Broker,
    book: Callable[[Account], None],
    again: Callable[[int], Iterator[int]],
) -> None:
    """A hundred times, at any moment: also while it starts, and while it recovers."""
    for seed in again(FLEETS):
        rng = np.random.default_rng(seed)
        fleet = Fleet(tmp_path / str(seed), broker.port, f"random-{seed}")
        with fleet.running():
            for _ in range(KILLS):
                fleet.aggregator.start()
                fleet.idle(rng.exponential(0.15))
                assert fleet.aggregator.kill() == -signal.SIGKILL, fleet.aggregator.said
            fleet.aggregator.start()
            fleet.settle(KILLS, book)
