"""What is compared learns as its paper says, and what it costs is counted right."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from experiments.harness.scenario import Scenario
from experiments.methods import cost
from experiments.methods.baselines import Baseline, Habits, samples_of, whole
from experiments.methods.catalogue import METHODS, Learner, for_spec
from experiments.methods.runs import MethodRun, MethodSearch, play, search
from experiments.methods.tinymetafed import TinyMetaFed, recipe, without_local
from localfleet.processes import PROJECT
from protocol.fixed import Words
from protocol.spec.spec import Spec
from simulation.boards import Crew, Trainer
from simulation.conditions import Conditions, Poisoning
from simulation.engine.fixed import Engine
from simulation.engine.float64 import FloatEngine
from simulation.engine.passes import Passes
from simulation.run import Run
from simulation.tasks.base import Tasks
from simulation.tasks.held_out import sine_tasks

SINE = Scenario("sine", 3)
SPEC = SINE.spec
SETTINGS = {
    "rate_local": SPEC.training.rate_local,
    "rate_global": SPEC.training.rate_global,
    "step_max": SPEC.rounds.step_max,
}


def played(learner: Learner) -> Learner:
    for _ in learner.play():
        pass
    return learner


def test_tinymetafed_is_what_simulate_plays() -> None:
    tasks, _ = sine_tasks(SPEC)
    fleet = TinyMetaFed(recipe(SPEC, SETTINGS), tasks, 5)
    played(fleet)
    names = [f"board-{n}" for n in range(8)]
    run = Run(
        SPEC, names, Crew(Trainer(SPEC, names, tasks, Engine, Poisoning(), 5)), Conditions(), 5
    )
    records = list(run.rounds())
    assert np.array_equal(fleet._run.model.published, run.model.published)
    assert fleet.bytes_up == sum(record.bytes_up for record in records)


def test_a_part_taken_out_is_gone_and_nothing_else() -> None:
    settings = SETTINGS | {"epochs": 2.0}
    full = recipe(SPEC, settings).spec
    assert full == SPEC
    assert not recipe(SPEC, settings, "reconstruction").spec.has_local
    dense = recipe(SPEC, settings, "top-p").spec
    assert (dense.training.percent, dense.rounds.percent_down) == (100, 100)
    assert dense.plan.top == dense.global_count
    level = recipe(SPEC, settings, "annealing").spec.rounds
    assert level.step_max == level.step_min == SPEC.rounds.step_max
    plain = recipe(SPEC, settings, "optimizer").spec.rounds
    assert (SPEC.rounds.optimizer.rule, plain.optimizer.rule) == ("adam", "step")
    assert recipe(SPEC, settings, "online").passes == Passes(8, 2)
    assert recipe(SPEC, settings, "online").spec == SPEC


@dataclass(frozen=True)
class Spied(Tasks):
    """Tasks that remember what boards were given."""

    tasks: Tasks
    given: list[tuple[Words, Words]] = field(default_factory=list)

    def samples(self, board: int, round_: int, rng: np.random.Generator) -> tuple[Words, Words]:
        self.given.append(self.tasks.samples(board, round_, rng))
        return self.given[-1]


def test_baselines_see_the_samples_of_the_fleet() -> None:
    tasks, _ = sine_tasks(SPEC)
    ours, theirs = Spied(tasks), Spied(tasks)
    played(TinyMetaFed(recipe(SPEC, SETTINGS), ours, 3))
    played(Baseline(Habits(spec=whole(SPEC, 0.01)), theirs, 3))
    assert len(ours.given) == 3 * 8
    assert np.array_equal(ours.given, theirs.given)


def test_fedsgd_steps_along_the_mean_gradient_of_all_samples() -> None:
    tasks, _ = sine_tasks(SPEC)
    rate, samples = 0.05, 64
    rounds = SPEC.rounds.model_copy(update={"count": 1, "cohort": 3})
    spec = whole(SPEC.model_copy(update={"rounds": rounds}), rate)
    fedsgd = Baseline(Habits(spec=spec, passes=Passes(samples)), tasks, 1)
    start = fedsgd.shared.copy()
    played(fedsgd)
    # One network that sees every sample of the three boards as one batch.
    x, y = samples_of(tasks, range(3), 0, 1)
    alone = FloatEngine(spec, 1)
    alone.load(start, local=False)
    alone.step(x.reshape(1, -1, 1), y.reshape(1, -1, 1), local=False)
    assert fedsgd.shared == pytest.approx(alone.flat(local=False)[0], abs=1e-6)


def test_tinyreptile_goes_from_board_to_board() -> None:
    tasks, _ = sine_tasks(SPEC)
    rounds = SPEC.rounds.model_copy(update={"count": 1, "cohort": 2})
    spec = whole(SPEC.model_copy(update={"rounds": rounds}), 0.01)
    serial = Baseline(Habits(spec=spec, step=0.5, serial=True), tasks, 1)
    expected = serial.shared.copy()
    played(serial)
    for board in range(2):
        engine = FloatEngine(spec, 1)
        engine.load(expected, local=False)
        x, y = samples_of(tasks, [board], 0, 1)
        for sample, label in zip(x, y, strict=True):
            engine.step(sample, label, local=False)
        expected += 0.5 * (engine.flat(local=False)[0] - expected)
    assert serial.shared == pytest.approx(expected)


def test_reptile_takes_no_step_any_more_after_the_last_round() -> None:
    tasks, _ = sine_tasks(SPEC)
    reptile = Baseline(Habits(spec=whole(SPEC, 0.01), step=1.0, falls=True), tasks, 1)
    moved = []
    before = reptile.shared.copy()
    for _ in reptile.play():
        moved.append(np.linalg.norm(reptile.shared - before))
        before = reptile.shared.copy()
    # A third of a whole step in the last of three rounds.
    assert moved[2] < 0.6 * moved[0]


def test_fedrecon_keeps_its_local_layer_to_itself() -> None:
    method, (tasks, _) = METHODS["fedrecon"], SINE.tasks()
    fedrecon = method.learner(
        spec=SPEC, settings=method.first(SPEC), tasks=tasks, seed=0, arithmetic="float64"
    )
    assert isinstance(fedrecon, Baseline)
    assert fedrecon.shared.shape == (1120,)
    played(fedrecon)
    assert 3 * 8 * 4 * 1120 < fedrecon.bytes_up < 3 * 8 * (4 * 1120 + 60)


def test_a_network_without_local_layers_is_the_same_network() -> None:
    spec = Scenario("sine", 1).spec
    shared = without_local(spec)
    assert shared.global_count == sum(layer.parameters for layer in spec.layers) == 1153
    assert spec.global_count == 1120
    assert not shared.has_local
    assert spec.has_local


def test_operations_of_a_step_are_its_products() -> None:
    first, second, last = (64, 32 * 33, 33)  # Weights and biases of 1-32-32-1.
    forward = first + second + last
    layers = SPEC.layers
    assert cost.step_operations(layers, local=True) == forward + last
    assert cost.step_operations(layers, local=False) == forward + second + last + first + second
    all_learn = without_local(SPEC).layers
    assert cost.step_operations(all_learn, local=False) == 2 * forward + second + last
    assert cost.round_operations(SPEC, Passes(epochs=2)) == 2 * 32 * (
        cost.step_operations(layers, local=True) + cost.step_operations(layers, local=False)
    )


def test_storing_samples_takes_memory() -> None:
    weights, values = 1153, 64 + 1
    online = cost.baseline_memory(without_local(SPEC), Passes())
    assert 4 * (weights + values) < online < 4 * (weights + 2 * values + 10)
    again = cost.baseline_memory(without_local(SPEC), Passes(epochs=2))
    assert again == online + 4 * 64 * 2
    assert cost.baseline_memory(without_local(SPEC), Passes(8)) == again + 4 * weights


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns_sines_or_says_that_it_learns_alone(name: str) -> None:
    scenario = Scenario("sine", 40)
    method = METHODS[name]
    run = MethodRun(
        scenario=scenario,
        method=name,
        settings=method.first(scenario.spec),
        seed=1,
        test_tasks=50,
        points=3,
        curve_tasks=50,
        arithmetic="float64",
    )
    outcome = play(run)
    values = [point["value"] for point in outcome["curve"]]
    assert all(np.isfinite(values))
    if name == "scratch":
        assert (outcome["rounds"], outcome["bytes_up"], outcome["operations"]) == (0, 0, 0)
        return
    assert outcome["rounds"] == 40
    assert outcome["bytes_up"] > 0 < outcome["bytes_down"]
    for what in ("rounds", "bytes_up", "bytes_down", "operations"):
        assert np.diff([point[what] for point in outcome["curve"]]).min() >= 0
    assert outcome["curve"][-1]["rounds"] == 40


def test_a_search_finds_better_than_it_began_with() -> None:
    scenario = Scenario("sine", 20, choosing=True)
    wanted = MethodSearch(scenario=scenario, method="fedavg", runs=8, validation_tasks=50)
    found = search(wanted)
    values = [run["value"] for run in found["runs"]]
    assert len(values) == 8
    assert found["runs"][0]["settings"] == METHODS["fedavg"].first(SPEC)
    assert found["value"] == min(values) < values[0]
    assert search(wanted) == found


def test_settings_that_are_run_several_times_are_judged_by_the_mean() -> None:
    scenario = Scenario("sine", 5, choosing=True)
    found = search(
        MethodSearch(scenario=scenario, method="fedavg", runs=1, validation_tasks=20, repeats=2)
    )
    runs = [
        play(
            MethodRun(
                scenario=scenario,
                method="fedavg",
                settings=METHODS["fedavg"].first(SPEC),
                seed=seed,
                test_tasks=20,
                arithmetic="float64",
            )
        )
        for seed in (1000, 1001)
    ]
    assert found["value"] == pytest.approx((runs[0]["value"] + runs[1]["value"]) / 2)
    assert runs[0]["value"] != runs[1]["value"]


def test_methods_with_our_optimizer_are_left_out_where_it_is_the_plain_step() -> None:
    plain = Spec.from_file(PROJECT / "specs" / "keywords.toml")
    assert set(for_spec(SPEC)) - set(for_spec(plain)) == {
        "tinymetafed/plain-step",
        "tinyreptile/optimizer",
    }
    assert for_spec(SPEC) == list(METHODS)


@pytest.fixture
def characters(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    path = tmp_path / "characters.npz"
    np.savez(path, images=rng.integers(0, 2, (60, 20, 105, 105)) > 0)
    return path


def test_settings_are_chosen_by_characters_that_no_test_has(characters: Path) -> None:
    (learned, test), (chosen_from, validation) = (
        Scenario("omniglot", 1, characters, choosing=choosing).tasks() for choosing in (False, True)
    )

    def of(tasks: object) -> set[bytes]:
        return {one.tobytes() for one in tasks.drawings[:, 0]}  # type: ignore[attr-defined]

    assert of(learned) | of(test) >= of(chosen_from) | of(validation)
    assert of(chosen_from) | of(validation) == of(learned)
    assert not of(validation) & (of(test) | of(chosen_from))


def test_one_shot_is_one_drawing_of_each_character(characters: Path) -> None:
    scenario = Scenario("omniglot", 1, characters, shots=1)
    assert scenario.spec.training.support == 5
    x, y = scenario.tasks()[0].samples(0, 0, np.random.default_rng(0))
    assert len(x) == 5 + 25
    assert sorted(y[:5, 0]) == [0, 1, 2, 3, 4]
