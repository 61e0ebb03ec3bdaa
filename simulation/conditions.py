"""What befalls a fleet in the field: of each, how much.

Every draw is a function of the run's seed, the board and the round. So a condition changes what it
is about and nothing else: the same board meets the same samples and has the same luck, whatever the
others do, and whatever the strategy is that two runs compare.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from math import exp
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

import numpy as np

from protocol import fixed, sparse
from protocol.cohort import EVERYONE, ticket
from simulation.tasks.base import Tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocol.fixed import Words

TASKS_STREAM: Final = 0
"""Which of a run's independent streams of random numbers the samples are drawn from ..."""
POISON_STREAM: Final = 1
"""... and which one what poisoned boards claim."""


def chance(seed: int, what: str, board: str, round_: int = 0) -> float:
    """A number above 0 and below 1, drawn evenly for this and nothing else."""
    return (ticket(f"{seed}/{what}/{board}", round_) + 0.5) / EVERYONE


class Poison(Enum):
    """What a poisoned board claims to have learned."""

    FLIP = "flip"
    """The opposite of what it did, a hundred times over."""
    RANDOM = "random"
    """Noise as large as a weight can be."""
    CONSTANT = "constant"
    """That each parameter should be larger by one."""


FLIPPED: Final = -100
NORMAL: Final = NormalDist()


@dataclass(frozen=True)
class Poisoning:
    """Some boards send what harms the fleet.

    Noise and the opposite, scaled, are the attacks of Blanchard, El Mhamdi, Guerraoui, Stainer,
    "Machine learning with adversaries: Byzantine tolerant gradient descent", 2017.
    """

    share: float = 0.0
    """Of the boards, 0 to 1; the same ones in all rounds."""
    kind: Poison = Poison.FLIP

    def among(self, boards: Sequence[str], seed: int) -> frozenset[str]:
        """Which of a fleet's boards are poisoned: the share, rounded."""
        drawn = sorted(boards, key=lambda board: chance(seed, "poison", board))
        return frozenset(drawn[: round(self.share * len(boards))])

    def claims(self, changes: Words, rng: np.random.Generator) -> Words:
        """What it sends instead of its changes, in weight units; shape (parameters,)."""
        match self.kind:
            case Poison.FLIP:
                claimed = FLIPPED * changes
            case Poison.RANDOM:
                claimed = rng.integers(fixed.WEIGHT_MIN, fixed.WEIGHT_MAX + 1, len(changes))
            case Poison.CONSTANT:
                claimed = np.full_like(changes, 1 << fixed.WEIGHT_BITS)
        return np.clip(claimed, -sparse.LARGEST, sparse.LARGEST)


@dataclass(frozen=True)
class Sleep:
    """Boards leave the network to save power, each in its own time, but not out of a round."""

    awake: float = 1.0
    """Share of the time that a board is awake, above 0 to 1."""
    period: float = 60.0
    """Seconds from a board's waking up to its next."""

    def until(self, board: str, seed: int) -> tuple[bool, float]:
        """Whether a board is awake when the run starts, and the seconds until that changes."""
        at = chance(seed, "sleep", board) * self.period
        light = self.awake * self.period
        return (True, light - at) if at < light else (False, self.period - at)


@dataclass(frozen=True)
class Conditions:
    """Of everything, how much."""

    seconds: float = 1.0
    """That an average board takes for a round, above 0: its samples have to come, too."""
    stragglers: float = 0.0
    """Sigma of the lognormal distribution of how many times longer each board takes, 0 up. A slow
    board is slow in all rounds."""
    dropout: float = 0.0
    """Share of a round's boards that fail without a word in the middle of it, 0 to below 1: without
    power they lose all that they know. They are back when the next round is announced."""
    sleep: Sleep = field(default_factory=Sleep)
    poisoned: Poisoning = field(default_factory=Poisoning)

    def fails(self, seed: int, board: str, round_: int, attempt: int) -> bool:
        """Whether a board fails in the middle of a round's n-th announcement."""
        return self.dropout > 0 and chance(seed, f"drop/{attempt}", board, round_) < self.dropout

    def takes(self, seed: int, board: str) -> float:
        """Seconds that a board takes for a round."""
        return self.seconds * exp(self.stragglers * NORMAL.inv_cdf(chance(seed, "speed", board)))


@dataclass(frozen=True)
class NoisyLabels(Tasks):
    """Some labels are wrong: another class, or the value of another sample of the board's."""

    tasks: Tasks
    share: float
    """Of the samples, 0 to 1."""
    classes: int
    """1 where labels are values."""

    def samples(self, board: int, round_: int, rng: np.random.Generator) -> tuple[Words, Words]:
        """The tasks' samples."""
        x, y = self.tasks.samples(board, round_, rng)
        is_wrong = rng.random(len(y)) < self.share
        if self.classes > 1:
            others = (y + rng.integers(1, self.classes, y.shape)) % self.classes
        else:
            others = np.roll(y, rng.integers(1, len(y)), axis=0)
        return x, np.where(is_wrong[:, None], others, y)


@dataclass(frozen=True)
class DriftTasks(Tasks):
    """Sensors grow old: what they read moves away from the truth, a little more in each round."""

    tasks: Tasks
    by: float
    """How far it is away after the last round, in what a board reads."""
    rounds: int

    def samples(self, board: int, round_: int, rng: np.random.Generator) -> tuple[Words, Words]:
        """The tasks' samples as the sensor reads them by then."""
        x, y = self.tasks.samples(board, round_, rng)
        off = round(self.by * round_ / self.rounds * 2**fixed.ACTIVATION_BITS)
        return np.clip(x + off, -fixed.ACTIVATION_MAX, fixed.ACTIVATION_MAX), y
