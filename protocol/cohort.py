"""Who is invited to a round, said in a few bytes.

Each board draws a ticket for each round from its own name. A round that samples its cohort invites
the boards whose tickets lie below a limit, which the aggregator sets so that it invites exactly the
cohort it wants of the boards that it knows to be awake; a board that it has not heard of yet can
tell by itself whether it is invited. A round that picks its boards by another rule names each by
the upper half of its ticket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from protocol.fixed import LCG_MULTIPLIER, fnv1a

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

EVERYONE: Final = 2**32
MOST_CHOSEN: Final = 512
"""Boards that a round can name: two bytes each, as much as any board can take in at once."""


def ticket(board: str, round_: int) -> int:
    """A board's ticket for a round, 0 to 2**32 - 1.

    FNV-1a hardly mixes the last characters into the high bits, which decide; two multiplications
    do.
    """
    value = fnv1a(f"{board}/{round_}")
    for _ in range(2):
        value = (value ^ (value >> 16)) * LCG_MULTIPLIER & 0xFFFFFFFF
    return value ^ (value >> 16)


def ticket_limit_for(boards: Collection[str], round_: int, size: int) -> int:
    """The limit that invites ``size`` of these boards, or everyone if there are not more."""
    if len(boards) <= size:
        return EVERYONE
    return sorted(ticket(board, round_) for board in boards)[size]


def name_in(round_: int, boards: Iterable[str]) -> bytes:
    """The boards that a round picks, as its ``chosen``: 16 bits each, little endian, ascending."""
    halves = sorted({ticket(board, round_) >> 16 for board in boards})
    return b"".join(half.to_bytes(2, "little") for half in halves)


def is_invited(board: str, round_: int, ticket_limit: int, chosen: bytes = b"") -> bool:
    """Whether a round with this limit and these chosen boards invites this board.

    Two boards in 65,536 share half a ticket: then both are invited, and the aggregator knows it.
    """
    if ticket_limit == EVERYONE:
        return True
    drawn = ticket(board, round_)
    if drawn < ticket_limit:
        return True
    half = (drawn >> 16).to_bytes(2, "little")
    return any(chosen[at : at + 2] == half for at in range(0, len(chosen), 2))


def is_canary(board: str, version: int, share: int) -> bool:
    """Whether this board tries out a version before the others.

    Args:
        board: its name.
        version: of the model, which some boards try out first.
        share: of the boards, in units of 2**-32.
    """
    return ticket(f"{board}/trial", version) < share  # The text is part of the wire format.
