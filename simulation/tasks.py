"""What boards are asked to learn: tasks of support samples, then query samples, drawn at random.

A board's samples are a pair ``x, y``: activations of shape (samples, inputs), and labels likewise
or classes of shape (samples, 1). For many boards a second axis runs over them, as
:meth:`simulation.engine.Engine.step` takes samples one after the other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from protocol import fixed
from simulation.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from protocol.fixed import Words
    from protocol.spec import Spec
    from simulation.data.keywords import Keywords
    from simulation.data.log import Log
    from simulation.data.omniglot import Omniglot


class Tasks(ABC):
    """Where boards have their samples from."""

    @abstractmethod
    def samples(self, board: int, round_: int, rng: np.random.Generator) -> tuple[Words, Words]:
        """What a board sees in a round.

        Args:
            board: its number. Tasks may be anybody's, or each board's own.
            round_: the round's number, for what changes with time.
            rng: all that is random comes from it.
        """

    def draw(self, rng: np.random.Generator, boards: int, round_: int = 0) -> tuple[Words, Words]:
        """The samples of boards 0, 1, ..., one drawn after the other."""
        return stacked([self.samples(board, round_, rng) for board in range(boards)])


class Pooled(Protocol):
    """Tasks whose samples can be pooled: there is a label that means the same for all boards."""

    @property
    def pooled_outputs(self) -> int:
        """Outputs of a network that learns this label."""

    def pooled(self, rng: np.random.Generator, samples: int) -> tuple[Words, Words]:
        """So many samples of anybody's; shapes (samples, inputs), (samples, values or 1)."""


def stacked(samples: Sequence[tuple[Words, Words]]) -> tuple[Words, Words]:
    """Several boards' samples, which are equally many, as their engine takes them."""
    x, y = (np.stack(parts, axis=1) for parts in zip(*samples, strict=True))
    return x, y


@dataclass(frozen=True)
class SineTasks(Tasks):
    """Sines of amplitude 0.1 to 5 and any phase, x from -5 to 5: the paper's first task."""

    count: int
    """Samples of a task, support and query."""

    @classmethod
    def of(cls, spec: Spec) -> SineTasks:
        """Tasks for a spec of one input and one output."""
        return cls(spec.training.support + spec.training.query)

    def samples(self, board: int, round_: int, rng: np.random.Generator) -> tuple[Words, Words]:
        """Another sine, whichever board it is."""
        del board
        x, y = self.draw(rng, 1, round_)
        return x[:, 0], y[:, 0]

    def draw(self, rng: np.random.Generator, boards: int, round_: int = 0) -> tuple[Words, Words]:
        """Another sine for each board, drawn together."""
        del round_
        x = rng.uniform(-5, 5, (self.count, boards, 1))
        amplitude = rng.uniform(0.1, 5, (boards, 1))
        phase = rng.uniform(0, 2 * np.pi, (boards, 1))
        return fixed.to_activation(x), fixed.to_activation(amplitude * np.sin(x + phase))

    @property
    def pooled_outputs(self) -> int:
        """The value."""
        return 1

    def pooled(self, rng: np.random.Generator, samples: int) -> tuple[Words, Words]:
        """Points of as many sines as there are tasks among so many samples."""
        x, y = self.draw(rng, -(-samples // self.count))
        order = rng.permutation(samples)
        return x.reshape(-1, 1)[order], y.reshape(-1, 1)[order]


@dataclass(frozen=True)
class Skew:
    """How unlike the boards' shares of classes are, Dirichlet distributed.

    Hsu, Qi, Brown, "Measuring the effects of non-identical data distribution for federated visual
    classification", 2019, arXiv 1909.06335.
    """

    alpha: float
    """Above 0: large, and all boards see each class alike; small, and each sees hardly but one."""
    seed: int = 0

    def shares(self, board: int, classes: int) -> NDArray[np.float64]:
        """What share of a board's samples is of each class, in all rounds; shape (classes,)."""
        rng = np.random.default_rng((self.seed, board))
        return rng.dirichlet(np.full(classes, self.alpha))


def _classes(
    rng: np.random.Generator, classes: int, samples: int, board: int, skew: Skew | None
) -> NDArray[np.int64]:
    """Classes for so many samples, shuffled.

    Without a skew there are of each as many as of the others, or one more.
    """
    if skew is not None:
        return rng.choice(classes, samples, p=skew.shares(board, classes))
    return rng.permutation(np.resize(rng.permutation(classes), samples))


def _halves(
    orders: Sequence[NDArray[np.int64]], support: NDArray[np.int64], query: NDArray[np.int64]
) -> list[np.int64]:
    """An item for each of these classes; none is in both halves.

    Args:
        orders: the items of each class, at least two, shuffled. Where they are too few, they come
            again within a half.
        support: classes of the first half.
        query: classes of the second half.
    """
    items = []
    firsts = np.bincount(support, minlength=len(orders))
    seconds = np.bincount(query, minlength=len(orders))
    ends = [
        first
        if first + second <= len(order)
        else max(min(1, first), len(order) * first // (first + second))
        for order, first, second in zip(orders, firsts, seconds, strict=True)
    ]
    for classes, is_query in ((support, False), (query, True)):
        seen = [0] * len(orders)
        for class_ in classes:
            order, end = orders[class_], ends[class_]
            part = order[end:] if is_query else order[:end]
            items.append(part[seen[class_] % len(part)])
            seen[class_] += 1
    return items


@dataclass(frozen=True)
class CharacterTasks(Tasks):
    """A board learns to tell a few characters apart, other ones in each round.

    No drawing is in both halves of a task. Vinyals et al., "Matching Networks for One Shot
    Learning", 2016; characters turned by right angles are other characters, as in Santoro et al.,
    "Meta-Learning with Memory-Augmented Neural Networks", 2016.
    """

    drawings: Words
    """Shape (characters, drawings, side, side)."""
    ways: int
    """Characters in a task; which class is which is up to the board."""
    support: int
    query: int
    turned: bool = False
    alphabets: tuple[NDArray[np.int64], ...] = ()
    """Where boards write one alphabet each, the characters of each; board b has alphabet b modulo
    their number."""
    skew: Skew | None = None

    @classmethod
    def of(
        cls,
        spec: Spec,
        data: Omniglot,
        *,
        turned: bool,
        by_alphabet: bool = False,
        skew: Skew | None = None,
    ) -> CharacterTasks:
        """Tasks for a spec whose inputs are a square of pixels.

        Raises:
            DataError: the data do not say what is of which alphabet, or no alphabet has as many
                characters as a task.
        """
        small = data.reduced(spec.layers[0].height)
        drawings = fixed.to_activation(small)
        training = spec.training
        ways = spec.layers[-1].outputs
        if ways > len(drawings):
            raise DataError(f"{len(drawings)} characters, but a task has {ways} (the outputs)")
        alphabets = data.alphabets() if by_alphabet else ()
        large = tuple(alphabet for alphabet in alphabets if len(alphabet) >= ways)
        if by_alphabet and not large:
            raise DataError(f"no alphabet has {ways} characters, as many as a task has")
        return cls(drawings, ways, training.support, training.query, turned, large, skew)

    def samples(self, board: int, round_: int, rng: np.random.Generator) -> tuple[Words, Words]:
        """Other characters in each round."""
        del round_
        known = np.arange(len(self.drawings))
        if self.alphabets:
            known = self.alphabets[board % len(self.alphabets)]
        characters = rng.choice(known, self.ways, replace=False)
        turns = rng.integers(4 if self.turned else 1, size=self.ways)
        orders = [rng.permutation(self.drawings.shape[1]) for _ in characters]
        support, query = (
            _classes(rng, self.ways, samples, board, self.skew)
            for samples in (self.support, self.query)
        )
        y = np.concatenate([support, query])
        x = [
            np.rot90(self.drawings[characters[way], drawing], turns[way]).ravel()
            for way, drawing in zip(y, _halves(orders, support, query), strict=True)
        ]
        return np.array(x), y[:, None]

    @property
    def pooled_outputs(self) -> int:
        """The characters."""
        return len(self.drawings)

    def pooled(self, rng: np.random.Generator, samples: int) -> tuple[Words, Words]:
        """Drawings, and which character it is; none is turned."""
        characters = rng.integers(len(self.drawings), size=samples)
        drawings = self.drawings[characters, rng.integers(self.drawings.shape[1], size=samples)]
        return drawings.reshape(samples, -1), characters[:, None]


@dataclass(frozen=True)
class SpeakerTasks(Tasks):
    """A board lives in a home, and learns the keywords that it is to know there.

    Which keywords these are, and which is which class, is up to the home. No clip is in both halves
    of a task. Half of the public speakers said most keywords once, so that there would be nothing
    to ask a home of one: homes are of several, or of one who said the keywords twice.
    """

    features: Words
    """Shape (versions, clips, values): a clip may be heard in several versions."""
    keyword: NDArray[np.int64]
    """Shape (clips,)."""
    speaker: NDArray[np.int64]
    """Shape (clips,)."""
    voices: int
    """Speakers in a home."""
    ways: int
    """Keywords of a home."""
    support: int
    query: int
    settled: bool = False
    """Whether a board stays in one home; else it is in another one in each round."""
    skew: Skew | None = None

    @classmethod
    def of(  # noqa: PLR0913 - all but three are flags
        cls,
        spec: Spec,
        data: Keywords,
        features: Words,
        *,
        voices: int,
        settled: bool = False,
        skew: Skew | None = None,
    ) -> SpeakerTasks:
        """Tasks for a spec; ``features`` are those of the data's clips."""
        flat = features.reshape(*features.shape[:2], -1)
        training, ways = spec.training, spec.layers[-1].outputs
        return cls(
            *(flat, data.keyword, data.speaker, voices, ways, training.support, training.query),
            settled=settled,
            skew=skew,
        )

    def samples(self, board: int, round_: int, rng: np.random.Generator) -> tuple[Words, Words]:
        """What is said in a home."""
        del round_
        said = self._home(np.random.default_rng(board) if self.settled else rng)
        x, y = [], []
        for half, samples in ((0, self.support), (1, self.query)):
            for way in _classes(rng, self.ways, samples, board, self.skew):
                clip = rng.choice(said[way][half::2])
                x.append(self.features[rng.integers(len(self.features)), clip])
                y.append(way)
        return np.array(x), np.array(y)[:, None]

    @property
    def pooled_outputs(self) -> int:
        """The keywords."""
        return int(self.keyword.max()) + 1

    def pooled(self, rng: np.random.Generator, samples: int) -> tuple[Words, Words]:
        """Clips, and which keyword it is."""
        clips = rng.integers(len(self.keyword), size=samples)
        versions = rng.integers(len(self.features), size=samples)
        return self.features[versions, clips], self.keyword[clips][:, None]

    def _home(self, rng: np.random.Generator) -> list[NDArray[np.int64]]:
        """The clips of each keyword in a home where each was said twice, in random order."""
        while True:
            home = rng.choice(self.speaker.max() + 1, self.voices, replace=False)
            keywords = rng.choice(self.keyword.max() + 1, self.ways, replace=False)
            clips = rng.permutation(np.flatnonzero(np.isin(self.speaker, home)))
            said = [clips[self.keyword[clips] == keyword] for keyword in keywords]
            if min(len(few) for few in said) >= 2:
                return said


@dataclass(frozen=True)
class LogTasks(Tasks):
    """A board meets what boards of the user's recorded, in random order; no row twice in a round.

    Board b has the record of board b modulo their number, or with ``mixed`` or a skew, of all.
    """

    log: Log
    support: int
    query: int
    mixed: bool = False
    skew: Skew | None = None

    @classmethod
    def of(cls, spec: Spec, log: Log, *, mixed: bool = False, skew: Skew | None = None) -> LogTasks:
        """Tasks for a spec.

        Raises:
            DataError: a board recorded fewer rows than a round takes.
        """
        training = spec.training
        needed = training.support + training.query
        pooled = mixed or skew is not None
        counts = [len(log.y)] if pooled else np.bincount(log.board).tolist()
        for name, rows in zip(["all boards"] if pooled else log.boards, counts, strict=True):
            if rows < needed:
                raise DataError(
                    f"{log.name}: {rows} rows of {name}; a round takes {needed} (support and "
                    f"query): leave it out, or lower them in the spec"
                )
        if skew is not None:
            classes, rows_of = np.unique(log.y, return_counts=True)
            if spec.model.loss == "mse":
                raise DataError(f"{log.name}: its labels are values; only classes can be skewed")
            if rows_of.min() < 2:
                raise DataError(
                    f"{log.name}: one row of class {classes[rows_of.argmin()]}; a skew needs two"
                )
        return cls(log, training.support, training.query, mixed, skew)

    def samples(self, board: int, round_: int, rng: np.random.Generator) -> tuple[Words, Words]:
        """Rows of a record."""
        del round_
        log = self.log
        rows: NDArray[np.int64]
        if self.skew is not None:
            met = np.unique(log.y)
            orders = [rng.permutation(np.flatnonzero(log.y[:, 0] == class_)) for class_ in met]
            support, query = (
                _classes(rng, len(met), samples, board, self.skew)
                for samples in (self.support, self.query)
            )
            rows = np.array(_halves(orders, support, query))
        else:
            known = np.arange(len(log.y))
            if not self.mixed:
                known = np.flatnonzero(log.board == board % len(log.boards))
            rows = rng.choice(known, self.support + self.query, replace=False)
        return log.x[rows], log.y[rows]
