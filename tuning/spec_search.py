"""The search of `tinymetafed tune`: which settings of a spec learn best within a byte budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from protocol.validation import reason_of
from tuning.errors import TuningError
from tuning.runs import Data, Score, SpecRun, play
from tuning.search import Search
from tuning.space import Space, Values, applied, bytes_most

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from protocol.spec.spec import Spec
    from tuning.pool import Pool

_DRAWS: Final = 500
"""Settings in a row that cannot be tried, after which none is sought any more."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a search may take, and a setting."""

    bytes: int
    """Up and down of a board in a whole run."""
    seconds: float
    runs: int


@dataclass(kw_only=True)
class Candidate:
    """A setting, and how a run with it did."""

    number: int
    given: Spec
    values: Values
    """All that may be changed in the given spec."""
    scores: list[Score] = field(default_factory=list)
    skipped: str = ""
    """Why it was not run; perhaps because there can be no such spec."""

    @property
    def spec(self) -> Spec:
        """The given one with this setting.

        Raises:
            ValidationError: it breaks a rule of a spec: it does not fit a board, perhaps.
        """
        return applied(self.given, self.values)

    @property
    def is_finished(self) -> bool:
        """Whether it was run to the end."""
        return bool(self.scores) and self.scores[-1].is_last


@dataclass(kw_only=True)
class SearchResult:
    """What a search came to."""

    candidates: list[Candidate]
    importances: dict[str, float]
    """The share of the differences that each setting explains; empty after too few runs."""
    was_interrupted: bool = False

    @property
    def best(self) -> Candidate | None:
        """Of those within the budget that were run to the end; None if there is none."""
        finished = [each for each in self.candidates if each.is_finished]
        return min(finished, key=lambda each: each.scores[-1].loss, default=None)


class SpecSearch:
    """Proposes settings of a spec and learns from how runs with them do.

    Args:
        space: what is searched.
        budget: what it may take.
        seed: of the proposals. Which run ends first depends on the machine, and with several
            processes what is proposed next depends on that.
    """

    def __init__(self, space: Space, budget: Budget, seed: int) -> None:
        self.space, self.budget = space, budget
        self.candidates: list[Candidate] = []
        self.begun: list[Candidate] = []
        """Those of them that are run."""
        self._search = Search(space.draw, start=space.start(), seed=seed)

    def propose(self) -> Candidate | None:
        """A setting that is worth a run; None if none is found."""
        for _ in range(_DRAWS):
            number, values = self._search.propose()
            candidate = Candidate(number=number, given=self.space.given, values=values)
            candidate.skipped = self._problem(candidate)
            if not candidate.skipped and all(values != each.values for each in self.begun):
                self.candidates.append(candidate)
                self.begun.append(candidate)
                return candidate
            self._search.discard(number)
            if candidate.skipped:
                self.candidates.append(candidate)
        return None

    def _problem(self, candidate: Candidate) -> str:
        """Why a setting is not worth a run; nothing if it is."""
        try:
            size = bytes_most(candidate.spec)
        except ValidationError as error:
            return reason_of(error.errors()[0])
        return f"up to {size:,} bytes" if size > self.budget.bytes else ""

    def hear(self, candidate: Candidate, score: Score) -> bool:
        """Take in how a run does; whether it goes on."""
        candidate.scores.append(score)
        if score.is_last:
            self._search.finish(candidate.number, score.loss)
            return False
        return self._search.report(candidate.number, score.loss, score.round)

    def importances(self) -> dict[str, float]:
        """See :class:`SearchResult`."""
        if len(self.space.searched) < 2:
            return {}
        # A step is called after its optimizer: see Space.draw.
        shares = self._search.importances()
        return {name.partition(" of ")[0]: share for name, share in shares.items()}


def search(  # noqa: PLR0913 - by keyword
    pool: Pool,
    *,
    space: Space,
    data: Data,
    budget: Budget,
    boards: int,
    seed: int,
    ended: Callable[[Candidate], None],
) -> SearchResult:
    """Search until the budget is spent, or until Ctrl-C.

    Args:
        pool: where runs are played.
        space: what is searched.
        data: to learn from.
        budget: what it may take.
        boards: of the simulated fleet.
        seed: of the proposals and of every run: they meet the same tasks.
        ended: called with each candidate whose run has ended or was given up.

    Raises:
        TuningError: a process died, or no setting was found within the budget of bytes.
        SimulationError: the data are not what they should be.
    """
    sought, was_interrupted = SpecSearch(space, budget, seed), False

    def runs() -> Iterator[SpecRun]:
        while len(sought.begun) < budget.runs and (candidate := sought.propose()) is not None:
            yield SpecRun(
                spec=candidate.spec, data=data, boards=boards, seed=seed, query=space.query
            )

    def heard(number: int, score: Score) -> bool:
        goes_on = sought.hear(sought.begun[number], score)
        if not goes_on:
            ended(sought.begun[number])
        return goes_on

    try:
        pool.run(play, runs(), heard, seconds=budget.seconds)
    except KeyboardInterrupt:
        was_interrupted = True
    if not sought.begun and not was_interrupted:
        raise TuningError(
            f"no setting of {len(sought.candidates)} takes at most {budget.bytes:,} bytes and fits "
            f"a board; the given one takes up to {bytes_most(space.given):,}: allow more bytes, or "
            f"ask for fewer rounds"
        )
    return SearchResult(
        candidates=sought.candidates,
        importances=sought.importances(),
        was_interrupted=was_interrupted,
    )
