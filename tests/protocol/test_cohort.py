"""A few bytes invite exactly the cohort that is wanted, fairly, and a board can tell by itself."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from localfleet.parts import Bits
from protocol.cohort import EVERYONE, is_canary, is_invited, name_in, ticket, ticket_limit_for
from tests.support.parts import on_both_boards, run_board

FLEET = [f"board-{number:03}" for number in range(100)]


def invited(round_: int, limit: int) -> set[str]:
    return {board for board in FLEET if is_invited(board, round_, limit)}


@pytest.mark.parametrize("size", [1, 2, 10, 99])
def test_exactly_so_many_are_invited(size: int) -> None:
    for round_ in range(200):
        assert len(invited(round_, ticket_limit_for(FLEET, round_, size))) == size


@pytest.mark.parametrize("size", [100, 101, 10**6])
def test_a_small_fleet_is_invited_whole(size: int) -> None:
    assert ticket_limit_for(FLEET, 1, size) == EVERYONE
    assert invited(1, EVERYONE) == set(FLEET)


def test_no_limit_invites_nobody_and_no_fleet_needs_none() -> None:
    assert invited(1, 0) == set()
    assert ticket_limit_for([], 1, 8) == EVERYONE


def test_over_the_rounds_each_board_is_invited_as_often() -> None:
    # 10 of 100 boards in 2,000 rounds: 200 times each; the deviation of a fair draw is 13.4.
    counts = dict.fromkeys(FLEET, 0)
    for round_ in range(2000):
        for board in invited(round_, ticket_limit_for(FLEET, round_, 10)):
            counts[board] += 1
    assert min(counts.values()) > 200 - 5 * 13.4
    assert max(counts.values()) < 200 + 5 * 13.4


def test_who_was_invited_says_nothing_about_the_next_round_or_name() -> None:
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


# --- Rounds that pick their boards, and canaries


@pytest.mark.parametrize("size", [0, 1, 2, 30, 100])
def test_exactly_the_chosen_are_invited(size: int) -> None:
    more = 0
    for round_ in range(50):
        chosen = set(FLEET[round_ : round_ + size])
        named = name_in(round_, chosen)
        halves = {ticket(board, round_) >> 16 for board in chosen}
        alike = {board for board in FLEET if ticket(board, round_) >> 16 in halves}
        assert {board for board in FLEET if is_invited(board, round_, 0, named)} == alike
        more += len(alike - chosen)
    assert more <= 10  # Of 100 boards two share half a ticket in one of 13 rounds.


def test_a_limit_and_chosen_boards_add_up() -> None:
    limit = ticket_limit_for(FLEET, 1, 10)
    by_limit = invited(1, limit)
    others = set(FLEET) - by_limit
    chosen = set(sorted(others)[:5])
    named = name_in(1, chosen)
    assert {board for board in FLEET if is_invited(board, 1, limit, named)} == by_limit | chosen


def test_a_canary_version_keeps_its_boards_and_the_next_one_has_others() -> None:
    # A tenth of 1,000 boards: 100, give or take 5 x 9.5; and of them a tenth again in the next.
    fleet = [f"pump-{number}" for number in range(1000)]
    first, second = ({b for b in fleet if is_canary(b, version, 2**32 // 10)} for version in (8, 9))
    assert abs(len(first) - 100) < 48
    assert abs(len(second) - 100) < 48
    assert len(first & second) < 30
    wider = {board for board in fleet if is_canary(board, 8, 2**32 // 5)}
    assert first < wider  # A share that grows takes nobody's version away.
    assert {board for board in fleet if is_canary(board, 8, 2**32)} == set(fleet)
    assert not any(is_canary(board, 8, 0) for board in fleet)


@pytest.mark.real
@on_both_boards
def test_a_board_knows_by_itself_whether_it_is_invited_or_a_canary(
    bits: Bits, tmp_path: Path
) -> None:
    cases: list[list[Any]] = []
    for round_ in (0, 1, 2**16, 2**32 - 1):
        named = name_in(round_, FLEET[::3])
        limit = ticket_limit_for(FLEET, round_, 10)
        for board in FLEET:
            answers = [is_invited(board, round_, limit, named), is_canary(board, round_, 2**30)]
            cases.append([board, round_, limit, named.hex(), 2**30, answers])
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    assert run_board("cohort.py", bits, tmp_path / "cases.json") == [case[-1] for case in cases]
    assert len({tuple(case[-1]) for case in cases}) == 4  # Every answer is among them.
