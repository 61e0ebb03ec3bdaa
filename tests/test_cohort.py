"""Four bytes ask exactly the cohort that is wanted, fairly, and a board can tell by itself."""

from itertools import pairwise

import pytest

from protocol.cohort import EVERYONE, is_asked, limit_for, ticket

FLEET = [f"board-{number:03}" for number in range(100)]


def asked(round_: int, limit: int) -> set[str]:
    return {board for board in FLEET if is_asked(board, round_, limit)}


@pytest.mark.parametrize("size", [1, 2, 10, 99])
def test_exactly_so_many_are_asked(size: int) -> None:
    for round_ in range(200):
        assert len(asked(round_, limit_for(FLEET, round_, size))) == size


@pytest.mark.parametrize("size", [100, 101, 10**6])
def test_a_small_fleet_is_asked_whole(size: int) -> None:
    assert limit_for(FLEET, 1, size) == EVERYONE
    assert asked(1, EVERYONE) == set(FLEET)


def test_no_limit_asks_nobody_and_no_fleet_needs_none() -> None:
    assert asked(1, 0) == set()
    assert limit_for([], 1, 8) == EVERYONE


def test_over_the_rounds_each_board_is_asked_as_often() -> None:
    # 10 of 100 boards in 2,000 rounds: 200 times each; the deviation of a fair draw is 13.4.
    counts = dict.fromkeys(FLEET, 0)
    for round_ in range(2000):
        for board in asked(round_, limit_for(FLEET, round_, 10)):
            counts[board] += 1
    assert min(counts.values()) > 200 - 5 * 13.4
    assert max(counts.values()) < 200 + 5 * 13.4


def test_who_was_asked_says_nothing_about_the_next_round_or_name() -> None:
    # Of a half that is drawn anew, a quarter is in two draws: 500 of 2,000, give or take 5 x 22.
    tickets = [[ticket(board, round_) < 2**31 for board in FLEET] for round_ in range(21)]
    next_rounds = sum(
        a and b for now, after in pairwise(tickets) for a, b in zip(now, after, strict=True)
    )
    next_names = sum(
        a and b for row in tickets[:20] for a, b in zip(row, row[1:] + row[:1], strict=True)
    )
    assert abs(next_rounds - 500) < 110
    assert abs(next_names - 500) < 110
