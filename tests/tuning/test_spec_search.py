"""A search proposes settings of a spec, and skips what no board could do or pay for."""

from localfleet.processes import PROJECT
from protocol.spec.spec import Spec
from tuning.space import Space, applied, values_of
from tuning.spec_search import Budget, SpecSearch

SINE = PROJECT / "specs" / "sine.toml"
BUDGET = Budget(bytes=10**9, seconds=60, runs=60)


def test_a_partition_that_fits_no_board_is_skipped_before_it_costs_anything() -> None:
    """Shared parameters take more heap than local ones, and the board has no byte to spare."""
    spec = applied(Spec.from_file(SINE), {"local": "1,2", "percent": 1.0})
    assert set(Space(spec).partitions()) == {"2", "1,2"}
    heap = spec.heap_needed
    tight = Spec.model_validate(spec.model_dump() | {"heap": heap})
    search = SpecSearch(Space(tight, ["percent"]), BUDGET, seed=0)
    for _ in range(10):
        assert search.propose() is not None
    skipped = [each for each in search.candidates if each.skipped]
    assert skipped
    assert all("bytes of heap" in each.skipped for each in skipped)
    assert {each.values["local"] for each in skipped} == {"2"}  # What was drawn, as the CSV says.
    begun = [each for each in search.candidates if not each.skipped]
    assert {values_of(each.spec)["local"] for each in begun} == {"1,2"}


def test_every_optimizer_is_tried_with_steps_of_its_own() -> None:
    given = Spec.from_file(SINE)
    search = SpecSearch(Space(given), BUDGET, seed=1)
    for _ in range(40):
        assert search.propose() is not None
    steps: dict[str, list[float]] = {}
    for each in search.candidates:
        steps.setdefault(str(each.values["optimizer"]), []).append(float(each.values["step_max"]))
    assert search.candidates[0].values == values_of(given)
    assert set(steps) == {"step", "avgm", "adam"}
    assert 0.3 <= min(steps["step"]) <= max(steps["step"]) <= 10
    assert 0.03 <= min(steps["avgm"]) <= max(steps["avgm"]) <= 1
    assert 0.003 <= min(steps["adam"]) <= max(steps["adam"]) <= 0.3
    same = [each.spec for each in search.candidates if each.values["optimizer"] == "adam"]
    assert {spec.rounds.optimizer.tau for spec in same} == {given.rounds.optimizer.tau}
