"""A bad network stands between the boards, the broker and the aggregator.

Packets are late, come twice, come in another order, come in half; connections break. The rounds
close all the same, and every version of the model is the oracle's.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import Broker
from tests.faults.fleet import Fleet
from tests.faults.ledger import Account
from tests.faults.proxy import Mischief, Proxy

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(0)]

ROUNDS = 30
BAD: Final = {
    Mischief.DELAY: 0.05,
    Mischief.CUT: 0.003,
    Mischief.HALVE: 0.003,
    Mischief.REPEAT: 0.1,
    Mischief.REORDER: 0.1,
}


@pytest.mark.parametrize("where", ["boards", "aggregator", "both"])
def test_a_bad_network(
    tmp_path: Path,
    broker: Broker,
    book: Callable[[Account], None],
    again: Callable[[int], Iterator[int]],
    where: str,
) -> None:
    for seed in again(1):
        with (
            Proxy(broker.port, BAD if where != "aggregator" else {}, seed) as before_boards,
            Proxy(broker.port, BAD if where != "boards" else {}, seed) as before_aggregator,
        ):
            fleet = Fleet(
                tmp_path / str(seed),
                broker.port,
                f"proxy-{where}-{seed}",
                boards_port=before_boards.port,
                aggregator_port=before_aggregator.port,
            )
            fleet.aggregator.start()
            with fleet.running():
                done = Counter[Mischief]()
                while fleet.version < ROUNDS or done.keys() != BAD.keys():
                    fleet.wait_for_rounds(1)
                    done = before_boards.done + before_aggregator.done
                before_boards.calm()
                before_aggregator.calm()
                fleet.settle(done.total(), book)


def test_a_connection_that_breaks_again_and_again_brings_no_old_rounds_back(
    tmp_path: Path, broker: Broker, book: Callable[[Account], None]
) -> None:
    """Only the aggregator's connection breaks. What it could not publish before a break is out of
    date after it: no board may hear of a round that is over."""
    breaks = {Mischief.CUT: 0.005, Mischief.HALVE: 0.005}
    with Proxy(broker.port, breaks, seed=2) as proxy:
        fleet = Fleet(tmp_path, broker.port, aggregator_port=proxy.port)
        fleet.aggregator.start()
        with fleet.running():
            while fleet.version < ROUNDS or proxy.done.keys() != breaks.keys():
                fleet.wait_for_rounds(1)
            proxy.calm()
            fleet.settle(proxy.done.total(), book)
        assert [board.heard_back for board in fleet.boards] == [0] * len(fleet.boards)
