"""A round's life, told by events: when it opens, whom it asks, when it closes. It never hangs."""

from hypothesis import given
from hypothesis import strategies as st

from protocol.cohort import EVERYONE, is_asked, ticket
from protocol.spec import Rounds
from rounds.core import Announce, Close, OpenRound, Refusal, RoundCore, State

DIGEST = b"digest"
BOARDS = [f"board-{i}" for i in range(6)]


def rounds(*, count: int = 10, cohort: int = 2, quorum: int | None = None) -> Rounds:
    return Rounds(
        count=count, cohort=cohort, quorum=quorum, deadline=30.0, step_max=1.0, percent_down=20
    )


def by_ticket(round_: int = 0, boards: list[str] = BOARDS) -> list[str]:
    """Boards in the order in which the round asks them."""
    return sorted(boards, key=lambda board: ticket(board, round_))


def awake(core: RoundCore, *boards: str) -> None:
    for board in boards:
        core.board_awake(board)


def answer(core: RoundCore, *boards: str) -> None:
    for board in boards:
        assert core.verdict(core.round, board, DIGEST) is None
    core.journaled(dict.fromkeys(boards, DIGEST))


# --- Opening a round


def test_the_first_round_opens_when_a_cohort_is_awake() -> None:
    core = RoundCore(rounds(cohort=2))
    core.board_awake("a")
    assert core.tick(0) == []
    core.board_awake("b")
    assert core.tick(1) == [Announce(0, EVERYONE, frozenset("ab"), 0)]
    assert core.state is State.COLLECTING


def test_it_opens_for_fewer_a_deadline_after_the_first_board_awoke() -> None:
    core = RoundCore(rounds(cohort=2))
    assert core.tick(100) == []
    core.board_awake("a")
    assert core.tick(100) == []
    assert core.tick(129.9) == []
    assert core.tick(130) == [Announce(0, EVERYONE, frozenset("a"), 0)]


def test_that_wait_starts_again_when_the_only_board_was_lost_meanwhile() -> None:
    core = RoundCore(rounds(cohort=2))
    core.board_awake("a")
    core.tick(0)
    core.board_lost("a")
    core.tick(20)
    core.board_awake("b")
    assert core.tick(31) == []
    assert core.tick(61) == [Announce(0, EVERYONE, frozenset("b"), 0)]


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
    assert core.limit is not None
    assert core.asked == {board for board in boards if is_asked(board, at, core.limit)}
    assert len(core.asked) == min(cohort, len(boards))
    assert decisions == [Announce(at, core.limit, frozenset(core.asked), 0)]


# --- Closing it


def test_it_closes_when_the_cohort_has_answered_and_the_next_one_opens_at_once() -> None:
    core = RoundCore(rounds(cohort=2))
    awake(core, "a", "b")
    core.tick(0)
    answer(core, "a")
    assert core.tick(1) == []
    answer(core, "b")
    assert core.tick(2) == [
        Close(0, 2, frozenset("ab"), 0, 2.0),
        Announce(1, EVERYONE, frozenset("ab"), 0),
    ]


def test_it_closes_at_its_quorum() -> None:
    core = RoundCore(rounds(cohort=3, quorum=2))
    awake(core, "a", "b", "c")
    core.tick(0)
    answer(core, "a", "c")
    assert core.tick(1)[0] == Close(0, 3, frozenset("ac"), 0, 1.0)


def test_it_closes_at_its_deadline_with_what_is_there() -> None:
    core = RoundCore(rounds(cohort=2))
    awake(core, "a", "b")
    core.tick(0)
    answer(core, "a")
    assert core.tick(29.9) == []
    assert core.tick(30)[0] == Close(0, 2, frozenset("a"), 0, 30.0)


def test_it_closes_when_who_has_not_answered_is_lost() -> None:
    core = RoundCore(rounds(cohort=2))
    awake(core, "a", "b")
    core.tick(0)
    answer(core, "a")
    core.board_lost("b")
    assert core.tick(1)[0] == Close(0, 2, frozenset("a"), 0, 1.0)


def test_a_lost_board_that_answers_all_the_same_counts_and_is_awake() -> None:
    core = RoundCore(rounds(cohort=3))
    awake(core, "a", "b", "c")
    core.tick(0)
    core.board_lost("b")
    answer(core, "b")
    assert core.tick(1) == []
    answer(core, "a", "c")
    assert core.tick(1)[0] == Close(0, 3, frozenset("abc"), 0, 1.0)
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
    assert core.tick(32)[0] == Close(0, 2, frozenset("ab"), 0, 2.0)


def test_the_last_round_ends_the_fleet() -> None:
    core = RoundCore(rounds(count=1, cohort=1))
    core.board_awake("a")
    core.tick(0)
    answer(core, "a")
    assert core.tick(1) == [Close(0, 1, frozenset("a"), 0, 1.0)]
    assert core.state is State.DONE
    assert core.tick(1e9) == []
    assert core.verdict(0, "a", DIGEST) is Refusal.STALE
    assert core.verdict(1, "a", DIGEST) is Refusal.UNINVITED


# --- Nobody answers


def test_an_unanswered_round_is_announced_again_to_another_cohort_on_top() -> None:
    core = RoundCore(rounds(cohort=2))
    awake(core, *BOARDS)
    order = by_ticket()
    core.tick(0)
    assert core.asked == set(order[:2])
    (again,) = core.tick(30)
    assert isinstance(again, Announce)
    assert (again.round, again.asked, again.empty_deadlines) == (0, frozenset(order[:4]), 1)
    (again,) = core.tick(60)
    assert isinstance(again, Announce)
    assert (again.limit, again.asked) == (EVERYONE, frozenset(BOARDS))


def test_whoever_was_asked_stays_asked_when_it_is_announced_again() -> None:
    core = RoundCore(rounds(cohort=1))
    *early, slow, last = by_ticket()
    awake(core, slow, last)
    core.tick(0)
    assert core.asked == {slow}
    awake(core, *early)  # Their tickets are lower: two of them alone would make a second cohort.
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
        Announce(0, EVERYONE, frozenset("a"), 1),
        Close(0, 1, frozenset("a"), 1, 1000.0),
        Announce(1, EVERYONE, frozenset("a"), 0),
    ]


# --- Verdicts


def test_verdicts_by_round_board_and_digest() -> None:
    core = RoundCore(rounds(cohort=2), round_=5)
    awake(core, *BOARDS)
    assert core.verdict(5, BOARDS[0], DIGEST) is Refusal.UNINVITED  # Not announced yet.
    core.tick(0)
    first, second, *others = by_ticket(5)
    answer(core, first)
    assert core.verdict(4, first, DIGEST) is Refusal.STALE
    assert core.verdict(6, first, DIGEST) is Refusal.FUTURE
    assert core.verdict(5, others[0], DIGEST) is Refusal.UNINVITED
    assert core.verdict(5, first, DIGEST) is Refusal.DUPLICATE
    assert core.verdict(5, first, b"other") is Refusal.CONFLICT
    assert core.verdict(5, second, DIGEST) is None
    assert core.verdict(5, second, DIGEST, first=DIGEST) is Refusal.DUPLICATE
    assert core.verdict(5, second, DIGEST, first=b"other") is Refusal.CONFLICT


# --- After a restart


def test_an_open_round_goes_on_after_a_restart_and_waits_for_who_was_asked() -> None:
    # Nobody is known to be awake yet; b and c are waited for all the same, until they are lost.
    open_ = OpenRound(EVERYONE, frozenset("abc"), 1, {"a": DIGEST})
    core = RoundCore(rounds(cohort=3), 4, open_, now=10.0)
    assert core.tick(11) == []
    assert core.verdict(4, "a", DIGEST) is Refusal.DUPLICATE
    answer(core, "b")
    assert core.tick(12) == []
    core.board_lost("c")
    assert core.tick(13)[0] == Close(4, 3, frozenset("ab"), 1, 3.0)


def test_a_round_that_was_complete_at_the_crash_closes_at_once() -> None:
    open_ = OpenRound(EVERYONE, frozenset("ab"), 0, {"a": DIGEST, "b": DIGEST})
    core = RoundCore(rounds(cohort=2), 4, open_, now=10.0)
    assert core.tick(10)[0] == Close(4, 2, frozenset("ab"), 0, 0.0)


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
                core.journaled({value: DIGEST})
        expected = core.round
        for decision in core.tick(now):
            assert decision.round == expected
            if isinstance(decision, Close):
                assert decision.answered
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
    # At worst, each round asks one more cohort at each deadline until it asks everyone.
    deadlines = 3 * (len(BOARDS) // cohort + 2) + 1
    for _ in range(deadlines):
        core.tick(now)
        while core.verdict(core.round, faithful, DIGEST) is None:
            core.journaled({faithful: DIGEST})
            core.tick(now)
        now += 30.0
    core.tick(now)
    assert core.state is State.DONE
