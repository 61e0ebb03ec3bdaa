"""A round's life, told by events: when it opens, whom it invites, and that it always closes."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.cohort import EVERYONE, is_invited, ticket
from protocol.spec.rounds import Rounds
from rounds.cohort import BoardFacts, Cohort
from rounds.core import (
    Announce,
    Close,
    RejectReason,
    ResumePoint,
    RoundCore,
    State,
    UpdateKey,
    Withdraw,
)

DIGEST = b"digest"
BOARDS = [f"board-{i}" for i in range(6)]


def rounds(*, count: int = 10, cohort: int = 2, **more: Any) -> Rounds:
    more = {"deadline": 30.0, "step_max": 1.0, "percent_down": 20} | more
    return Rounds(count=count, cohort=cohort, **more)


def buffered(*, count: int = 10, cohort: int = 3, quorum: int = 2, max_age: int = 2) -> Rounds:
    return rounds(count=count, cohort=cohort, mode="buffered", quorum=quorum, max_age=max_age)


def announced(round_: int, boards: str, empty_deadlines: int = 0) -> Announce:
    """The round invites everyone, and these are awake."""
    return Announce(round_, EVERYONE, b"", frozenset(boards), empty_deadlines)


def closed(round_: int, invited: int, boards: Iterable[str], empty: int, seconds: float) -> Close:
    """The round closes with updates that are all its own."""
    counted = frozenset(UpdateKey(round_, board) for board in boards)
    return Close(round_, invited, counted, empty, seconds)


def by_ticket(round_: int = 0, boards: list[str] = BOARDS) -> list[str]:
    """Boards in the order in which the round invites them."""
    return sorted(boards, key=lambda board: ticket(board, round_))


def awake(core: RoundCore, *boards: str) -> None:
    for board in boards:
        core.board_awake(board)


def answer(core: RoundCore, *boards: str) -> None:
    answer_late(core, core.round, *boards)


def answer_late(core: RoundCore, round_: int, *boards: str) -> None:
    for board in boards:
        assert core.verdict(round_, board, DIGEST) is None
    core.journaled({UpdateKey(round_, board): DIGEST for board in boards})


def invited(core: RoundCore) -> set[str]:
    assert core.cohort is not None
    return core.cohort.invited


# --- Opening a round


def test_the_first_round_opens_when_a_cohort_is_awake() -> None:
    core = RoundCore(rounds(cohort=2))
    core.board_awake("a")
    assert core.tick(0) == []
    core.board_awake("b")
    assert core.tick(1) == [announced(0, "ab")]
    assert core.state is State.COLLECTING


def test_it_opens_for_fewer_a_deadline_after_the_first_board_awoke() -> None:
    core = RoundCore(rounds(cohort=2))
    assert core.tick(100) == []
    core.board_awake("a")
    assert core.tick(100) == []
    assert core.tick(129.9) == []
    assert core.tick(130) == [announced(0, "a")]


def test_that_wait_starts_again_when_the_only_board_was_lost_meanwhile() -> None:
    core = RoundCore(rounds(cohort=2))
    core.board_awake("a")
    core.tick(0)
    core.board_lost("a")
    core.tick(20)
    core.board_awake("b")
    assert core.tick(31) == []
    assert core.tick(61) == [announced(0, "b")]


def test_it_never_opens_for_nobody() -> None:
    core = RoundCore(rounds())
    core.board_awake("a")
    core.board_lost("a")
    assert core.tick(1e9) == []
    assert core.state is State.GATHERING


@given(st.integers(1, 8), st.sets(st.sampled_from(BOARDS), min_size=1), st.integers(0, 99))
def test_it_asks_exactly_a_cohort_of_those_awake(cohort: int, boards: set[str], at: int) -> None:
    core = RoundCore(rounds(count=100, cohort=cohort), at)
    awake(core, *boards)
    decisions = core.tick(0) or core.tick(30)
    assert core.cohort is not None
    limit = core.cohort.ticket_limit
    assert invited(core) == {board for board in boards if is_invited(board, at, limit)}
    assert len(invited(core)) == min(cohort, len(boards))
    assert decisions == [Announce(at, limit, b"", frozenset(invited(core)), 0)]


# --- Closing it


def test_it_closes_when_the_cohort_has_answered_and_the_next_one_opens_at_once() -> None:
    core = RoundCore(rounds(cohort=2))
    awake(core, "a", "b")
    core.tick(0)
    answer(core, "a")
    assert core.tick(1) == []
    answer(core, "b")
    assert core.tick(2) == [
        closed(0, 2, "ab", 0, 2.0),
        announced(1, "ab"),
    ]


def test_it_closes_at_its_quorum() -> None:
    core = RoundCore(rounds(cohort=3, quorum=2))
    awake(core, "a", "b", "c")
    core.tick(0)
    answer(core, "a", "c")
    assert core.tick(1)[0] == closed(0, 3, "ac", 0, 1.0)


def test_it_closes_at_its_deadline_with_what_is_there() -> None:
    core = RoundCore(rounds(cohort=2))
    awake(core, "a", "b")
    core.tick(0)
    answer(core, "a")
    assert core.tick(29.9) == []
    assert core.tick(30)[0] == closed(0, 2, "a", 0, 30.0)


def test_it_closes_when_who_has_not_answered_is_lost() -> None:
    core = RoundCore(rounds(cohort=2))
    awake(core, "a", "b")
    core.tick(0)
    answer(core, "a")
    core.board_lost("b")
    assert core.tick(1)[0] == closed(0, 2, "a", 0, 1.0)


def test_a_lost_board_that_answers_all_the_same_counts_and_is_awake() -> None:
    core = RoundCore(rounds(cohort=3))
    awake(core, "a", "b", "c")
    core.tick(0)
    core.board_lost("b")
    answer(core, "b")
    assert core.tick(1) == []
    answer(core, "a", "c")
    assert core.tick(1)[0] == closed(0, 3, "abc", 0, 1.0)
    assert "b" in core.awake


def test_a_board_that_appears_in_mid_round_is_waited_for_if_it_is_asked() -> None:
    core = RoundCore(rounds(cohort=2))
    core.board_awake("a")
    core.tick(0)
    core.tick(30)
    core.board_awake("b")
    answer(core, "a")
    assert core.tick(31) == []
    answer(core, "b")
    assert core.tick(32)[0] == closed(0, 2, "ab", 0, 2.0)


def test_the_last_round_ends_the_fleet() -> None:
    core = RoundCore(rounds(count=1, cohort=1))
    core.board_awake("a")
    core.tick(0)
    answer(core, "a")
    assert core.tick(1) == [closed(0, 1, "a", 0, 1.0), Withdraw()]
    assert core.state is State.DONE
    assert core.tick(1e9) == []
    assert core.verdict(0, "a", DIGEST) is RejectReason.STALE
    assert core.verdict(1, "a", DIGEST) is RejectReason.UNINVITED


# --- Nobody answers


def test_an_unanswered_round_is_announced_again_to_those_who_are_there() -> None:
    core = RoundCore(rounds(cohort=2))
    awake(core, *BOARDS)
    order = by_ticket()
    core.tick(0)
    assert invited(core) == set(order[:2])
    for now, times in ((30, 1), (60, 2)):
        (again,) = core.tick(now)
        assert isinstance(again, Announce)
        assert (again.round, again.empty_deadlines) == (0, times)
    # The first two have been silent twice: others are asked on top.
    assert invited(core) == set(order[:4])


def test_a_board_that_died_without_a_word_costs_two_deadlines_and_not_one_a_round() -> None:
    core = RoundCore(rounds(cohort=2))
    awake(core, "a", "ghost")
    core.tick(0)
    for round_, now in enumerate((30, 60)):
        answer(core, "a")
        assert core.tick(now)[0] == closed(round_, 2, "a", 0, 30.0)
    answer(core, "a")
    assert core.tick(61)[0] == closed(2, 2, "a", 0, 1.0)
    core.board_awake("ghost")  # It is back.
    answer(core, "a")
    assert core.tick(62) == []


def test_a_board_that_is_merely_slow_is_waited_for_again() -> None:
    core = RoundCore(rounds(cohort=2))
    awake(core, "a", "slow")
    core.tick(0)
    for now in (30, 60):
        answer(core, "a")
        core.tick(now)
    core.board_slow("slow")
    core.board_slow("unheard of")
    answer(core, "a")
    core.tick(61)  # In this round it was not waited for.
    answer(core, "a")
    assert core.tick(62) == []
    assert core.awake == {"a", "slow"}


def test_a_silent_board_that_answers_in_time_counts_and_is_waited_for_again() -> None:
    core = RoundCore(rounds(cohort=2))
    awake(core, "a", "quiet")
    core.tick(0)
    for now in (30, 60):
        answer(core, "a")
        core.tick(now)
    answer(core, "quiet")
    assert core.tick(61) == []  # For a.
    answer(core, "a")
    assert core.tick(62)[0] == closed(2, 2, ["a", "quiet"], 0, 2.0)
    answer(core, "a")
    assert core.tick(63) == []


def test_whoever_was_asked_stays_asked_when_it_is_announced_again() -> None:
    core = RoundCore(rounds(cohort=1))
    *early, slow, last = by_ticket()
    awake(core, slow, last)
    core.tick(0)
    assert invited(core) == {slow}
    awake(core, *early)  # Their tickets are lower: one of them alone would make a second cohort.
    core.tick(30)
    assert core.verdict(0, slow, DIGEST) is None


def test_without_anybody_awake_it_waits_and_what_comes_late_still_counts() -> None:
    core = RoundCore(rounds(cohort=1))
    core.board_awake("a")
    core.tick(0)
    core.board_lost("a")
    assert core.tick(30) == []
    assert core.state is State.GATHERING
    answer(core, "a")
    assert core.tick(1000) == [
        announced(0, "a", 1),
        closed(0, 1, "a", 1, 1000.0),
        announced(1, "a"),
    ]


# --- Whom a round invites


def test_it_asks_more_than_it_needs_in_case_some_fail() -> None:
    core = RoundCore(rounds(cohort=4, extra=0.25))
    awake(core, *BOARDS)
    core.tick(0)
    order = by_ticket()
    assert invited(core) == set(order[:5])
    answer(core, *order[:4])
    assert core.tick(1)[0] == Close(0, 5, frozenset(UpdateKey(0, b) for b in order[:4]), 0, 1.0)


def test_fairness_asks_who_was_not_heard_for_longest() -> None:
    core = RoundCore(rounds(count=100, cohort=2, choose="fairness"))
    awake(core, *BOARDS)
    core.tick(0)
    for _ in range(2):
        last_seen: set[str] = set()
        for _ in range(3):
            boards = invited(core)
            assert len(boards) == 2
            last_seen |= boards
            answer(core, *boards)
            core.tick(1)
        assert last_seen == set(BOARDS)


def test_by_battery_a_full_board_is_asked_more_often_than_an_empty_one() -> None:
    core = RoundCore(rounds(count=1000, cohort=1, choose="battery"))
    core.board_awake("full", 90)
    core.board_awake("low", 10)
    core.tick(0)
    counts = dict.fromkeys(("full", "low"), 0)
    for _ in range(999):
        (board,) = invited(core)
        counts[board] += 1
        answer(core, board)
        core.tick(1)
    assert 0.85 < counts["full"] / 999 < 0.95  # By its weight, 0.9.


def test_made_up_names_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rounds.core.MOST_AWAKE", 3)
    core = RoundCore(rounds())
    awake(core, *BOARDS)
    assert core.awake == set(BOARDS[:3])


# --- Buffered rounds


def test_a_late_update_counts_in_the_round_that_is_open() -> None:
    core = RoundCore(buffered(cohort=3, quorum=2))
    awake(core, "a", "b", "c")
    core.tick(0)
    answer(core, "a", "b")
    close, again = core.tick(1)
    assert close == closed(0, 3, "ab", 0, 1.0)
    assert isinstance(again, Announce)
    answer_late(core, 0, "c")
    answer(core, "a")
    close, _ = core.tick(2)
    assert isinstance(close, Close)
    assert close.counted == {UpdateKey(0, "c"), UpdateKey(1, "a")}


def test_no_more_boards_are_at_work_than_the_cohort_has() -> None:
    core = RoundCore(buffered(cohort=3, quorum=2))
    awake(core, *BOARDS)
    core.tick(0)
    first, second, slow = by_ticket()[:3]
    answer(core, first, second)
    (_, again) = core.tick(1)
    assert isinstance(again, Announce)
    assert len(again.invited - {slow}) == 2


def test_an_update_that_is_too_old_is_refused_and_its_board_no_longer_waited_for() -> None:
    core = RoundCore(buffered(cohort=2, quorum=1, max_age=2))
    awake(core, "a", "slow")
    core.tick(0)
    for now in (1, 2, 3):
        assert core.verdict(0, "slow", DIGEST) is None
        answer(core, "a")
        core.tick(now)
    assert core.verdict(0, "slow", DIGEST) is RejectReason.STALE


def test_a_late_duplicate_is_known_and_a_late_conflict_too() -> None:
    core = RoundCore(buffered(cohort=2, quorum=1))
    awake(core, "a", "b")
    core.tick(0)
    answer(core, "a")
    core.tick(1)
    answer_late(core, 0, "b")
    core.tick(2)
    assert core.verdict(0, "b", DIGEST) is RejectReason.DUPLICATE
    assert core.verdict(0, "b", b"other") is RejectReason.CONFLICT
    assert core.verdict(0, "a", DIGEST) is RejectReason.DUPLICATE


def test_the_buffer_is_flushed_at_the_deadline_though_it_is_not_full() -> None:
    core = RoundCore(buffered(cohort=3, quorum=3))
    awake(core, "a", "b", "c")
    core.tick(0)
    answer(core, "a")
    assert core.tick(29) == []
    assert core.tick(30)[0] == closed(0, 3, "a", 0, 30.0)
    answer_late(core, 0, "b")
    assert core.awake == {"a", "b", "c"}  # To be slow is no sin here.


# --- What an operator says


def test_a_paused_round_is_withdrawn_and_what_comes_for_it_counts() -> None:
    core = RoundCore(rounds(cohort=2))
    awake(core, "a", "b")
    core.tick(0)
    assert core.pause() == [Withdraw()]
    assert core.pause() == []
    answer(core, "a", "b")
    assert core.tick(1000) == []
    core.resume()
    assert core.tick(1000) == [
        announced(0, "ab"),
        closed(0, 2, "ab", 0, 1000.0),
        announced(1, "ab"),
    ]


def test_a_stopped_fleet_loses_nothing_that_was_sent() -> None:
    core = RoundCore(rounds(cohort=2))
    awake(core, "a", "b")
    core.tick(0)
    answer(core, "a")
    assert core.stop(5.0) == [closed(0, 2, "a", 0, 5.0), Withdraw()]
    assert core.state is State.DONE
    assert core.tick(1e9) == []
    assert core.stop(6.0) == []
    core.resume()
    assert core.tick(1e9) == [announced(1, "ab")]


def test_no_round_opens_while_something_is_to_be_changed() -> None:
    core = RoundCore(rounds(cohort=2))
    awake(core, "a", "b")
    core.tick(0)
    answer(core, "a", "b")
    assert core.tick(1, hold=True) == [closed(0, 2, "ab", 0, 1.0)]
    assert core.state is State.GATHERING
    assert core.tick(2) == [announced(1, "ab")]


def test_a_fleet_whose_rounds_are_over_cannot_be_resumed() -> None:
    core = RoundCore(rounds(count=10), 10)
    core.resume()
    assert core.state is State.DONE
    assert core.pause() == []


# --- Verdicts


def test_verdicts_by_round_board_and_digest() -> None:
    core = RoundCore(rounds(cohort=2), round_=5)
    awake(core, *BOARDS)
    assert core.verdict(5, BOARDS[0], DIGEST) is RejectReason.UNINVITED  # Not announced yet.
    core.tick(0)
    first, second, *others = by_ticket(5)
    answer(core, first)
    assert core.verdict(4, first, DIGEST) is RejectReason.STALE
    assert core.verdict(6, first, DIGEST) is RejectReason.FUTURE
    assert core.verdict(5, others[0], DIGEST) is RejectReason.UNINVITED
    assert core.verdict(5, first, DIGEST) is RejectReason.DUPLICATE
    assert core.verdict(5, first, b"other") is RejectReason.CONFLICT
    assert core.verdict(5, second, DIGEST) is None
    assert core.verdict(5, second, DIGEST, first=DIGEST) is RejectReason.DUPLICATE
    assert core.verdict(5, second, DIGEST, first=b"other") is RejectReason.CONFLICT


# --- After a restart


def found(
    invited: str, answered: str, state: State = State.GATHERING, empty_deadlines: int = 0
) -> ResumePoint:
    """What a restart finds of round 4."""
    digests = dict.fromkeys(answered, DIGEST)
    cohort = Cohort(EVERYONE, b"", set(invited), empty_deadlines, digests)
    return ResumePoint(state, {4: cohort}, [UpdateKey(4, board) for board in answered])


@pytest.mark.parametrize("state", [State.PAUSED, State.DONE])
def test_what_an_operator_said_holds_after_a_restart(state: State) -> None:
    core = RoundCore(rounds(), 4, found("ab", "a", state))
    awake(core, "a", "b", "c")
    assert core.tick(1e9) == []
    assert core.state is state
    assert core.verdict(4, "b", DIGEST) is None
    core.resume()
    assert core.tick(1e9)[0] == announced(4, "abc")


def test_a_restarted_fleet_remembers_who_was_heard() -> None:
    known = BoardFacts(last_seen={"a": 3, "b": 2, "c": 1})
    core = RoundCore(rounds(cohort=1, choose="fairness"), 4, known=known)
    awake(core, "a", "b", "c")
    core.tick(0)
    assert invited(core) == {"c"}


def test_an_open_round_goes_on_after_a_restart_and_waits_for_who_was_asked() -> None:
    # Nobody is known to be awake yet; b and c are waited for all the same, until they are lost.
    core = RoundCore(rounds(cohort=3), 4, found("abc", "a", empty_deadlines=1), now=10.0)
    assert core.tick(11) == []
    assert core.verdict(4, "a", DIGEST) is RejectReason.DUPLICATE
    answer(core, "b")
    assert core.tick(12) == []
    core.board_lost("c")
    assert core.tick(13)[0] == closed(4, 3, "ab", 1, 3.0)


def test_a_round_that_was_complete_at_the_crash_closes_at_once() -> None:
    core = RoundCore(rounds(cohort=2), 4, found("ab", "ab"), now=10.0)
    assert core.tick(10)[0] == closed(4, 2, "ab", 0, 0.0)


def test_a_fleet_that_was_done_is_done() -> None:
    assert RoundCore(rounds(count=10), 10).state is State.DONE


# --- It never hangs

EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("awake"), st.sampled_from(BOARDS)),
        st.tuples(st.just("lost"), st.sampled_from(BOARDS)),
        st.tuples(st.just("answer"), st.sampled_from(BOARDS)),
        st.tuples(st.just("tick"), st.floats(0, 70)),
    ),
    max_size=60,
)


def play(core: RoundCore, events: list[tuple[str, object]]) -> float:
    """Play events, check every decision, and return the time."""
    now = 0.0
    for kind, value in events:
        if kind == "tick":
            assert isinstance(value, float)
            now += value
        else:
            assert isinstance(value, str)
            if kind == "awake":
                core.board_awake(value)
            elif kind == "lost":
                core.board_lost(value)
            elif core.verdict(core.round, value, DIGEST) is None:
                core.journaled({UpdateKey(core.round, value): DIGEST})
        expected = core.round
        for decision in core.tick(now):
            if isinstance(decision, Withdraw):
                assert core.state is State.DONE
                continue
            assert decision.round == expected
            if isinstance(decision, Close):
                assert decision.counted
                expected += 1
    return now


@given(EVENTS, st.integers(1, 4))
def test_whatever_happened_time_alone_brings_a_decision_or_nobody_is_awake(
    events: list[tuple[str, object]], cohort: int
) -> None:
    core = RoundCore(rounds(cohort=cohort))
    now = play(core, events)
    core.tick(now)
    decided = core.tick(now + 30.0)
    nobody = core.state is State.GATHERING and not core.awake
    assert decided or nobody or core.state is State.DONE


@given(EVENTS, st.integers(1, 4), st.sampled_from(BOARDS))
def test_whatever_happened_one_board_that_answers_brings_the_fleet_to_its_end(
    events: list[tuple[str, object]], cohort: int, faithful: str
) -> None:
    core = RoundCore(rounds(count=3, cohort=cohort))
    now = play(core, events)
    core.board_awake(faithful)
    # At worst, each round invites one more cohort at each deadline until it invites everyone.
    deadlines = 3 * (len(BOARDS) // cohort + 2) + 1
    for _ in range(deadlines):
        core.tick(now)
        while core.verdict(core.round, faithful, DIGEST) is None:
            core.journaled({UpdateKey(core.round, faithful): DIGEST})
            core.tick(now)
        now += 30.0
    core.tick(now)
    assert core.state is State.DONE
