"""What a scenario with faults is given: its account, and how often to play."""

import itertools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict

import pytest

from tests.faults.ledger import ACCOUNT, Account


@pytest.fixture
def book(record_property: Callable[[str, object], None]) -> Callable[[Account], None]:
    """Book an account for this scenario; nothing may be lost or counted twice."""

    def take(account: Account) -> None:
        record_property(ACCOUNT, asdict(account))
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
