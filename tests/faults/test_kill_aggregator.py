"""kill -9 of the aggregator, wherever it is in its work.

Eight boards answer round after round and send again until their receipts. Their aggregator is
killed again and again and each time started anew on its state folder. In the end every version of
the model is the oracle's, bit for bit.
"""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from aggregator.ingest import Ingest
from aggregator.journal.journal import Journal
from aggregator.publisher import Publisher
from rounds.model import GlobalModel
from rounds.sums import PartialSum
from runtime.transport import Transport
from runtime.wire import Wire
from tests.conftest import Broker
from tests.faults.fleet import Fleet
from tests.faults.ledger import Account
from tests.faults.service_process import Fault, When

pytestmark = [pytest.mark.real, pytest.mark.slow]

FLEETS = 4
KILLS = 25
STEPS: Final[dict[str, tuple[Callable[..., Any], When]]] = {
    # An update's way.
    "a group has arrived": (Ingest.take, "before"),
    "checked, not journaled": (Journal.append, "before"),
    "in the journal's transaction": (Journal.append, "inside"),
    "journaled, not summed": (Journal.append, "after"),
    "amid the sums": (PartialSum.add, "after"),
    "summed, not acknowledged": (Transport.acknowledge, "before"),
    "amid the acknowledgements": (Wire.acknowledge, "after"),
    "acknowledged, no receipts": (Transport.acknowledge, "after"),
    "before the receipts": (Publisher.receipts, "before"),
    "after the receipts": (Publisher.receipts, "after"),
    # A round's end.
    "before the model moves": (GlobalModel.advance, "before"),
    "moved, not closed": (Journal.close_round, "before"),
    "in the closing transaction": (Journal.close_round, "inside"),
    "closed, not published": (Journal.close_round, "after"),
    "the delta without the model": (GlobalModel.chunks, "before"),
    "published": (Publisher.model, "after"),
    # A round's start.
    "before it is noted": (Journal.announce, "before"),
    "in the announcing transaction": (Journal.announce, "inside"),
    "noted, not announced": (Journal.announce, "after"),
    "announced": (Publisher.round, "after"),
    # The program's start.
    "before the sums are made again": (Ingest.restore, "before"),
    "connected, nothing published": (Publisher.everything, "before"),
    "all published again": (Publisher.everything, "after"),
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
            assert fleet.aggregator.wait() == -signal.SIGKILL, (
                step.__qualname__,
                fleet.aggregator.said,
            )
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
