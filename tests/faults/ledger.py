"""The suite's account: what was done to fleets, what their boards sent, and what was counted."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self


@dataclass
class Account:
    """Of one scenario, or of all."""

    faults: int = 0
    """Kills, odd packets, hostile messages, disks that refuse: each is one."""
    sent: int = 0
    """Updates that boards published, each repetition counted."""
    acknowledged: int = 0
    """Different updates of which a board heard the receipt."""
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
