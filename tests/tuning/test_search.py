"""A search learns from scores, and chooses the best of what was tried."""

import math
from typing import TYPE_CHECKING

from tuning.search import Range, Search, best

if TYPE_CHECKING:
    from optuna.trial import Trial

RANGE = Range(0.001, 10.0)


def search(seed: int = 0) -> Search:
    return Search(
        lambda trial: {"x": RANGE.draw(trial, "x")}, start={"x": 5.0}, seed=seed, random=3
    )


def proposals(sought: Search, count: int) -> list[float]:
    """Scored by how far their logarithm is from that of 0.1."""
    values = []
    for _ in range(count):
        number, setting = sought.propose()
        values.append(float(setting["x"]))
        sought.finish(number, abs(math.log(values[-1] / 0.1)))
    return values


def test_a_search_begins_where_it_is_told_and_comes_closer() -> None:
    values = proposals(search(), 30)
    assert values[0] == 5.0
    apart = [abs(math.log(value / 0.1)) for value in values]
    assert sum(apart[-10:]) < sum(apart[:10])
    assert 0.08 < best(values, apart, minimise=True) < 0.125


def test_the_same_seed_proposes_the_same() -> None:
    assert proposals(search(7), 8) == proposals(search(7), 8) != proposals(search(8), 8)


def test_whole_numbers_are_drawn_within_their_range() -> None:
    epochs = Range(1, 8, whole=True)

    def draw(trial: "Trial") -> dict[str, float]:
        return {"epochs": epochs.draw(trial, "epochs")}

    sought = Search(draw, start={"epochs": 2}, seed=0)
    drawn = [float(sought.propose()[1]["epochs"]) for _ in range(40)]
    assert set(drawn) == set(map(float, range(1, 9)))


def test_a_run_that_does_worse_than_half_of_the_others_is_given_up() -> None:
    sought = search()
    for score in (1.0, 2.0, 3.0, 4.0):  # None of the first four is.
        number, _ = sought.propose()
        assert sought.report(number, score, 10)
        sought.finish(number, score)
    good, bad = sought.propose()[0], sought.propose()[0]
    assert sought.report(good, 2.0, 10)
    assert not sought.report(bad, 3.5, 10)


def test_what_diverged_is_never_the_best() -> None:
    assert best("abc", [math.nan, 2.0, math.inf], minimise=True) == "b"
    assert best("abc", [math.nan, 2.0, -math.inf], minimise=False) == "b"
    assert best("abc", [1.0, 1.0, 3.0], minimise=True) == "a"
