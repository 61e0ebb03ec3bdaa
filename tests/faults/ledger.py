"""The suite's account: what was done to fleets, what their boards sent, and what was counted.

A test's account goes with its report, so that those of all workers come together at the end.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Self

import pytest

from localfleet.processes import PROJECT

FILE: Final = PROJECT / "build" / "faults.json"
ACCOUNT: Final = "account"
FUZZED: Final = "fuzzed"
"""Names of a report's properties."""


@dataclass
class Account:
    """Of one scenario, or of all."""

    faults: int = 0
    """Kills, odd packets, hostile messages, disks that refuse: each is one."""
    sent: int = 0
    """Updates that boards published, each repetition counted."""
    acknowledged: int = 0
    """Different updates whose receipt reached the board."""
    lost: int = 0
    """Updates that closed rounds should hold and the published model does not."""
    doubled: int = 0
    """Updates that the published model holds more than once, each surplus counted."""

    def __iadd__(self, other: Self) -> Self:
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)
        return self


@dataclass
class Ledger:
    """The accounts of a session, by scenario."""

    scenarios: dict[str, Account] = field(default_factory=dict)
    fuzzed: int = 0
    """Inputs that decoders were given."""

    def book(self, scenario: str, account: Account) -> None:
        """Add to a scenario's account."""
        booked = self.scenarios.setdefault(scenario, Account())
        booked += account

    @property
    def total(self) -> Account:
        total = Account()
        for account in self.scenarios.values():
            total += account
        return total

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        scenarios = {name: asdict(account) for name, account in self.scenarios.items()}
        text = json.dumps(
            {**asdict(self.total), "fuzzed": self.fuzzed, "scenarios": scenarios}, indent=2
        )
        path.write_text(text + "\n", encoding="utf-8")


def tell(reporter: pytest.TerminalReporter) -> None:
    """Print the account of all that ran, and write it down."""
    ledger = Ledger()
    reports = (report for kind in ("passed", "failed") for report in reporter.getreports(kind))
    for report in reports:
        for name, value in report.user_properties if report.when == "call" else ():
            if name == ACCOUNT:
                ledger.book(report.location[2].partition("[")[0], Account(**value))
            elif name == FUZZED:
                ledger.fuzzed += value
    if not ledger.scenarios and not ledger.fuzzed:
        return
    ledger.write(FILE)
    total = ledger.total
    reporter.section("faults")
    for name, account in sorted(ledger.scenarios.items()):
        reporter.line(f"{account.faults:7d}  {name}")
    reporter.line(
        f"{total.faults:7d} faults; {total.sent} updates sent, {total.acknowledged} acknowledged, "
        f"{total.lost} lost, {total.doubled} doubled; {ledger.fuzzed} inputs fuzzed "
        f"({FILE.relative_to(PROJECT)})"
    )
