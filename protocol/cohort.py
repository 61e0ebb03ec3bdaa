"""Who is asked in a round, said in four bytes.

Each board draws a ticket for each round from its own name; a round asks the boards whose tickets
lie below a limit. The aggregator sets the limit so that it asks exactly the cohort it wants of the
boards that it knows to be awake; a board that it has not heard of yet can tell by itself whether it
is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from protocol.fixed import LCG_MULTIPLIER, fnv1a

if TYPE_CHECKING:
    from collections.abc import Collection

EVERYONE: Final = 2**32


def ticket(board: str, round_: int) -> int:
    """A board's ticket for a round, 0 to 2**32 - 1.

    FNV-1a hardly mixes the last characters into the high bits, which decide; two multiplications
    do.
    """
    value = fnv1a(f"{board}/{round_}")
    for _ in range(2):
        value = (value ^ (value >> 16)) * LCG_MULTIPLIER & 0xFFFFFFFF
    return value ^ (value >> 16)


def limit_for(boards: Collection[str], round_: int, size: int) -> int:
    """The limit that asks ``size`` of these boards, or everyone if there are not more."""
    if len(boards) <= size:
        return EVERYONE
    return sorted(ticket(board, round_) for board in boards)[size]


def is_asked(board: str, round_: int, limit: int) -> bool:
    """Whether a round with this limit asks this board."""
    return limit == EVERYONE or ticket(board, round_) < limit
