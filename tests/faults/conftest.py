"""The account of the whole suite: a line at the end of the run, and ``build/faults.json``."""

import itertools
import os
import time
from collections.abc import Callable, Iterator

import pytest

from localfleet.processes import PROJECT
from tests.faults.ledger import Account, Ledger

FILE = PROJECT / "build" / "faults.json"
KEPT = pytest.StashKey[Ledger]()


@pytest.fixture(scope="session")
def ledger(pytestconfig: pytest.Config) -> Ledger:
    """Where scenarios book their accounts."""
    return pytestconfig.stash.setdefault(KEPT, Ledger())


@pytest.fixture
def book(ledger: Ledger, request: pytest.FixtureRequest) -> Callable[[Account], None]:
    """Book an account for this scenario; nothing may be lost or counted twice."""

    def take(account: Account) -> None:
        ledger.book(request.node.originalname, account)
        assert (account.lost, account.doubled) == (0, 0), account

    return take


@pytest.fixture
def again() -> Callable[[int], Iterator[int]]:
    """Seeds, so many at least; and as many as SOAK_MINUTES takes, which ``make soak`` sets."""

    def seeds(least: int) -> Iterator[int]:
        ends = time.monotonic() + 60 * float(os.environ.get("SOAK_MINUTES", "0"))
        for seed in itertools.count():
            if seed >= least and time.monotonic() >= ends:
                return
            yield seed

    return seeds


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the account and write it down."""
    ledger = config.stash.get(KEPT, None)
    if ledger is None:
        return
    ledger.write(FILE)
    total = ledger.total
    terminalreporter.section("faults")
    for name, account in sorted(ledger.scenarios.items()):
        terminalreporter.line(f"{account.faults:7d}  {name}")
    terminalreporter.line(
        f"{total.faults:7d} faults; {total.sent} updates sent, {total.acknowledged} acknowledged, "
        f"{total.lost} lost, {total.doubled} doubled; {ledger.fuzzed} inputs fuzzed "
        f"({FILE.relative_to(PROJECT)})"
    )
