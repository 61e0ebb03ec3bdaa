"""How a round's updates become one change of the model.

The mean is made of sums that grow as updates arrive, and no update is kept in memory. A rule that
withstands poisoned updates must see them side by side: it reads them from the journal at the
close. Updates are sparse; an entry that is not sent counts as no change.

Whatever the rule, all arithmetic up to a last division is on integers: the order of updates changes
no bit of the change.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from protocol.sparse import Sparse
from protocol.spec.rounds import Rounds
from protocol.spec.strategy import MAX_COMPARED, Combine
from rounds.privacy import Noise
from rounds.sums import PartialSum, clipped

BLOCK_BYTES: Final = 2**25
"""Of the dense matrix that Krum forms at a time."""
NAMED: Final = 10
"""Boards that a note names at most."""

Sums = Sequence[tuple[float, PartialSum]]
"""Partial sums of at least one update, each with the discount on its updates; 1 for none."""
Updates = Iterable[tuple[str, Sparse]]
"""Updates, each with its board's name, as the boards sent them."""


class Combination(NamedTuple):
    """What a round comes to."""

    change: NDArray[np.float64] | None
    """In weight units, shape (parameters,); None where the model should stay as it is."""
    note: str = ""
    """What a person should know, if anything."""


class Rule(Protocol):
    """A way to combine updates."""

    def combine(self, sums: Sums, updates: Updates) -> Combination:
        """One change for a round's updates.

        Args:
            sums: of the round's updates, clipped as the spec says.
            updates: the same updates one by one, not clipped. They may be read lazily, once: a rule
                that does not need them does not touch them.
        """


def rule_of(rounds: Rounds) -> Rule:
    """The rule that a spec asks for."""
    combine, privacy = rounds.combine, rounds.privacy
    match combine.rule:
        case "mean":
            return Mean(None if privacy is None else Noise(privacy))
        case "count":
            return CountMean()
        case "median" | "trimmed_mean":
            return TrimmedMean(combine)
        case "krum" | "multi_krum":
            return Krum(combine)


class Mean:
    """The sum of changes by the number of updates; with privacy, noise on the sum.

    Ren et al., "TinyMetaFed", 2023, arXiv 2307.06822; McMahan et al., "Communication-efficient
    learning of deep networks from decentralized data", 2017, each board weighing the same.

    Args:
        noise: on the sum, if any.
    """

    def __init__(self, noise: Noise | None = None) -> None:
        self._noise = noise

    def combine(self, sums: Sums, updates: Updates) -> Combination:
        """As :meth:`Rule.combine`; exact if no sum is discounted."""
        del updates
        total = _weighted(sums, [part.changes for _, part in sums])
        if self._noise is not None:
            total += self._noise.draw(len(total))
        return Combination(total / sum(discount * part.weight for discount, part in sums))


class CountMean:
    """The sum of changes by the number of updates that hold the parameter; 0 where none does."""

    def combine(self, sums: Sums, updates: Updates) -> Combination:
        """As :meth:`Rule.combine`."""
        del updates
        total = _weighted(sums, [part.changes for _, part in sums])
        senders = _weighted(sums, [part.senders for _, part in sums])
        return Combination(np.divide(total, senders, out=np.zeros_like(total), where=senders > 0))


def _weighted(sums: Sums, arrays: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """The sum of arrays, one a partial sum, each times its discount."""
    total = np.zeros(sums[0][1].parameters)
    for (discount, _), array in zip(sums, arrays, strict=True):
        total += discount * array
    return total


class _Stack(NamedTuple):
    """Updates side by side; an entry is one parameter of one update."""

    boards: list[str]
    """In the order of their names, which decides between equals."""
    rows: NDArray[np.int64]
    """Which board each entry is of; shape (entries,)."""
    indices: NDArray[np.int64]
    """Which parameter; shape (entries,)."""
    changes: NDArray[np.int64]
    """In weight units; shape (entries,)."""


def _stack(updates: Updates, clip: float | None) -> _Stack:
    named = sorted(updates, key=lambda update: update[0])
    parts = [clipped(sparse, clip) for _, sparse in named]
    return _Stack(
        [board for board, _ in named],
        np.repeat(np.arange(len(parts)), [len(part.indices) for part in parts]),
        np.concatenate([part.indices for part in parts]),
        np.concatenate([part.changes for part in parts]),
    )


def _too_few(combine: Combine, boards: int) -> Combination | None:
    """The model stays where a rule would have to trust more than it may.

    Falling back on the mean would let in who can keep others from answering.
    """
    if boards >= combine.least:
        return None
    return Combination(
        None, f"{combine.rule} needs {combine.least} updates, {boards} came: the model stays"
    )


class TrimmedMean:
    """For each parameter the mean without the ``trim`` largest and smallest changes, or the median.

    Yin et al., "Byzantine-robust distributed learning: towards optimal statistical rates", 2018,
    arXiv 1803.01498, taken over the updates that hold the parameter, and then times their share of
    all updates; so it stands where the mean does, and takes the same step. A parameter that too few
    hold (2 f or fewer, or 2 ``trim``) does not move: of those, most could be poisoned.

    Taken over all updates, with zeros for what is not sent, the rule would mostly trim the few that
    did send: with P = 10 the median is zero nearly everywhere.

    Args:
        combine: the spec's.
    """

    def __init__(self, combine: Combine) -> None:
        self._combine = combine

    def combine(self, sums: Sums, updates: Updates) -> Combination:
        """As :meth:`Rule.combine`; a discount has no meaning here."""
        parameters = sums[0][1].parameters
        stacked = _stack(updates, self._combine.clip_norm)
        boards = len(stacked.boards)
        if few := _too_few(self._combine, boards):
            return few
        order = np.lexsort((stacked.changes, stacked.indices))
        indices, changes = stacked.indices[order], stacked.changes[order]
        senders = np.bincount(indices, minlength=parameters)
        rank = np.arange(len(indices)) - (np.cumsum(senders) - senders)[indices]
        trim = self._trim(senders)
        kept = (rank >= trim[indices]) & (rank < (senders - trim)[indices])
        total = np.bincount(indices[kept], changes[kept], parameters)  # Integers below 2**53.
        return Combination(total * senders / (np.maximum(senders - 2 * trim, 1) * boards))

    def _trim(self, senders: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many changes are left out at each end of each parameter."""
        if self._combine.trim is not None:
            return np.full_like(senders, self._combine.trim)
        least = 2 * (self._combine.byzantine or 0) + 1
        # All but one or two in the middle; where too few hold it, all.
        return np.where(senders >= least, (senders - 1) // 2, senders)


class Krum:
    """The update that lies closest to its neighbours; or the mean of the ``keep`` that do.

    Blanchard et al., "Machine learning with adversaries: Byzantine tolerant gradient descent",
    2017: each update's score is the sum of its squared distances to the n - f - 2 closest others.

    Args:
        combine: the spec's.
    """

    def __init__(self, combine: Combine) -> None:
        self._combine = combine

    def combine(self, sums: Sums, updates: Updates) -> Combination:
        """As :meth:`Rule.combine`; a discount has no meaning here."""
        parameters = sums[0][1].parameters
        stacked = _stack(updates, self._combine.clip_norm)
        boards = len(stacked.boards)
        if few := _too_few(self._combine, boards):
            return few
        if boards > MAX_COMPARED:  # A round that was announced again invites several cohorts.
            return Combination(
                None, f"Krum compares {MAX_COMPARED} updates, {boards} came: the model stays"
            )
        nearest = boards - (self._combine.byzantine or 0) - 2
        distances = _squared_distances(stacked, parameters)
        np.fill_diagonal(distances, np.inf)
        scores = np.sort(distances, axis=1)[:, :nearest].sum(axis=1)
        keep = self._combine.keep or 1
        chosen = np.argsort(scores, kind="stable")[:keep]
        kept = np.isin(stacked.rows, chosen)
        total = np.bincount(stacked.indices[kept], stacked.changes[kept], parameters)
        left_out = sorted(set(stacked.boards) - {stacked.boards[row] for row in chosen})
        return Combination(total / keep, f"left out {len(left_out)}: {', '.join(left_out[:NAMED])}")


def _squared_distances(stacked: _Stack, parameters: int) -> NDArray[np.float64]:
    """Between all pairs of updates, shape (boards, boards); from products of a few columns a time.

    Every product and sum is an integer below 2**53 (2**16 parameters of at most 2**17), so exact.
    """
    boards = len(stacked.boards)
    products = np.zeros((boards, boards))
    order = np.argsort(stacked.indices, kind="stable")
    width = min(parameters, max(1, BLOCK_BYTES // (8 * boards)))
    for first in range(0, parameters, width):
        start, end = np.searchsorted(stacked.indices, (first, first + width), sorter=order)
        inside = order[start:end]
        columns = np.zeros((boards, width))
        columns[stacked.rows[inside], stacked.indices[inside] - first] = stacked.changes[inside]
        products += columns @ columns.T
    squares = np.diag(products)
    distances: NDArray[np.float64] = squares[:, None] + squares - 2 * products
    return distances
