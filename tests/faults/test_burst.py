"""5,000 boards answer at once, and lose their connections and come back at once.

Each board is a connection of its own to a broker as deployed. Mosquitto's defaults would drop four
of five updates, each of them acknowledged. Here every update is counted, once, whatever the order
in which they come: the model is the oracle's to the last bit.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from aggregator.store.store import read_history
from localfleet import load, processes
from protocol import sparse
from protocol.messages import Plan
from protocol.spec.spec import Spec
from rounds.model import GlobalModel
from rounds.optimizers import cosine_step
from rounds.sums import PartialSum
from runtime.settings import Address
from tests.conftest import Broker
from tests.faults.ledger import Account
from tests.support.journal import JournalFile
from tests.support.specs import BURST, spec_text

pytestmark = [pytest.mark.real, pytest.mark.slow]

BOARDS: Final = 5000
TEXT: Final = spec_text(**BURST, cohort=BOARDS)
SPEC: Final = Spec.from_toml(TEXT)


@pytest.mark.parametrize("reconnect", [False, True], ids=["send", "send and reconnect"])
def test_each_of_5000_updates_is_counted_once(
    tmp_path: Path,
    absent_broker: Broker,
    book: Callable[[Account], None],
    reconnect: bool,  # noqa: FBT001 - a parameter
) -> None:
    load.allow_files(BOARDS + load.SPARE_FILES)  # The broker inherits it.
    absent_broker.start()
    spec = tmp_path / "spec.toml"
    spec.write_text(TEXT)
    aggregator = processes.aggregator(tmp_path, spec, absent_broker.port)
    with processes.stopping([aggregator]):
        aggregator.start()
        address = Address("127.0.0.1", absent_broker.port)
        result = load.run(address, SPEC.fleet, BOARDS, 1, reconnect=reconnect)
    journal = JournalFile(tmp_path / "state")
    boards = [board for _, board in journal.updates()]
    book(
        Account(
            faults=BOARDS if reconnect else 0,
            sent=result.sent + result.resent,
            acknowledged=result.receipted,
            lost=BOARDS - len(set(boards)),
            doubled=len(boards) - len(set(boards)),
        )
    )
    assert [facts.accepted for facts in read_history(tmp_path / "state")] == [BOARDS]
    assert journal.versions() == [oracle(SPEC.plan)]
    assert (result.rounds, result.sent) == (1, BOARDS)
    if reconnect:
        assert result.reconnected >= BOARDS
    else:
        assert (result.receipted, result.reconnected) == (BOARDS, 0)


def oracle(plan: Plan) -> bytes:
    """The weights after a round that every board has answered."""
    total = PartialSum(SPEC.global_count)
    for update in load.updates(plan, BOARDS):
        total.add(update, sparse.decode(update.changes, SPEC.tensors))
    model = GlobalModel(SPEC)
    model.advance(total.changes / total.weight, cosine_step(SPEC.rounds, 0))
    return model.published.tobytes()
