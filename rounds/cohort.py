"""Whom a round invites: the rules by which a cohort is picked from the boards that are awake."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from math import log
from typing import Final

from protocol.cohort import EVERYONE, MOST_CHOSEN, is_invited, name_in, ticket, ticket_limit_for

FULL: Final = 100
"""Battery, in percent, of a board that does not tell: it has a supply of its own."""

_Order = Callable[[str, int], tuple[float, int]]


@dataclass
class Cohort:
    """A round's boards: who was invited, and who has answered."""

    ticket_limit: int
    """It invites the boards whose tickets lie below ..."""
    chosen: bytes = b""
    """... and those that are named here, see :func:`protocol.cohort.name_in`."""
    invited: set[str] = field(default_factory=set)
    """Boards known to have been invited."""
    empty_deadlines: int = 0
    """How often this round's deadline has passed without an update."""
    answered: dict[str, bytes] = field(default_factory=dict)
    """Boards whose updates for this round are journaled, each with its update's digest."""

    def invites(self, board: str, round_: int) -> bool:
        """Whether this board is invited to this round, whose number a cohort does not know."""
        return is_invited(board, round_, self.ticket_limit, self.chosen)

    def on_top_of(self, before: "Cohort") -> "Cohort":
        """This cohort and an earlier one of the same round: whoever was invited stays invited."""
        named = before.chosen + self.chosen
        halves = {named[at : at + 2] for at in range(0, len(named), 2)}
        if len(halves) > MOST_CHOSEN:
            self.ticket_limit, halves = EVERYONE, set()
        return Cohort(
            max(self.ticket_limit, before.ticket_limit),
            b"".join(sorted(halves)),
            before.invited,
            before.empty_deadlines,
            before.answered,
        )


@dataclass
class BoardFacts:
    """What is known of boards beyond their being awake."""

    last_seen: dict[str, int] = field(default_factory=dict)
    """The round in which a board's update was last counted."""
    battery: dict[str, int] = field(default_factory=dict)
    """In percent, of boards that tell."""


def pick(rule: str, boards: Collection[str], round_: int, size: int, known: BoardFacts) -> Cohort:
    """Pick a cohort.

    Args:
        rule: ``sampling``: each board alike. ``fairness``: who has not been heard for longest.
            ``battery``: at random, each with a weight that is its battery's charge (Efraimidis and
            Spirakis 2006, "Weighted random sampling with a reservoir").
        boards: awake, and free to work.
        round_: the round's number.
        size: how many to invite; with more, or fewer than 1, everyone or nobody is.
        known: of boards; may know nothing.
    """
    if size < 1:
        return Cohort(0)
    if len(boards) <= size:
        return Cohort(EVERYONE)
    if rule == "sampling":
        return Cohort(ticket_limit_for(boards, round_, size))
    order = _by_silence(known.last_seen) if rule == "fairness" else _by_charge(known.battery)
    ranked = sorted(boards, key=lambda board: order(board, ticket(board, round_)))
    return Cohort(0, name_in(round_, ranked[: min(size, MOST_CHOSEN)]))


def _by_silence(last_seen: Mapping[str, int]) -> _Order:
    return lambda board, drawn: (last_seen.get(board, -1), drawn)


def _by_charge(battery: Mapping[str, int]) -> _Order:
    # The smallest -log(u) / weight are a weighted sample, u being uniform in (0, 1].
    def order(board: str, drawn: int) -> tuple[float, int]:
        weight = max(battery.get(board, FULL), 1)
        return -log((drawn + 1) / EVERYONE) / weight, drawn

    return order
