"""What the sweep of partitions comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from experiments.harness.scenario import Scenario
    from experiments.methods.results import SettingResult

Places = tuple[int, ...]
"""Of the local layers in the spec; none of them in full transmission."""


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A partition of a network, and what it came to."""

    local: Places
    all_sent: bool
    """Whether every shared parameter is sent, both ways, instead of the largest changes."""
    result: SettingResult


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The partitions of one network."""

    scenario: Scenario
    own: Places
    """The spec's own local layers."""
    partitions: Sequence[Partition]
    invalid: Mapping[Places, str]
    """Local layers that a spec may not have, and why."""
    tasks: int
    """Held-out tasks at the end of each run."""
    seeds: int
    choices: int
    """Pairs of factors that were tried for each partition ..."""
    tuning_rounds: int
    """... by runs of so many rounds."""

    def find(self, local: Places, *, all_sent: bool = False) -> SettingResult:
        """What a partition came to.

        Raises:
            StopIteration: it was not run.
        """
        return next(
            each.result
            for each in self.partitions
            if each.local == local and each.all_sent == all_sent
        )
