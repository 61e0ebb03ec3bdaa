"""What the experiment `energy` comes to, and what its runs take by the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from experiments.energy.power import LINK, Work, total
from experiments.methods.catalogue import OURS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from experiments.comparison.result import Effort, MethodResult, Point
    from experiments.energy.power import Chip, Cost, Link

METHODS: Final = (OURS, f"{OURS}/no-top-p", "tinyreptile", "fedavg")
MESSAGES: Final = {OURS: 4, f"{OURS}/no-top-p": 4, "tinyreptile": 2, "fedavg": 2}
"""MQTT packets of a board's round each way.

TinyMetaFed's bring an announcement, a delta, a receipt and an acknowledgement; an update and what
it acknowledges are taken to be as many. Baselines' are a model and an acknowledgement, both ways.
"""


@dataclass(frozen=True, kw_only=True)
class NetworkResult:
    """What the methods came to on a network."""

    network: str
    effort: Effort
    methods: Sequence[MethodResult]
    """In the order of METHODS, TinyMetaFed first."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A method at a point of its curve."""

    method: MethodResult
    point: Point

    @classmethod
    def end(cls, method: MethodResult) -> Stage:
        """After all rounds."""
        return cls(method=method, point=method.end)

    @property
    def work(self) -> Work:
        """What a board does in a round until then, on average."""
        point = self.point
        rounds = point.rounds * self.method.scenario.spec.rounds.cohort
        return Work(
            bytes_up=point.bytes_up / rounds,
            bytes_down=point.bytes_down / rounds,
            operations=point.operations / rounds,
            messages=MESSAGES[self.method.method],
        )

    def cost(self, chip: Chip, link: Link = LINK) -> Cost:
        """Modelled seconds and joules of a board in all rounds until then."""
        return total(chip, link, self.work) * self.point.rounds
