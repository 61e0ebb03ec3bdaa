"""Streams are what they are called, boards learn from them, and the experiment reports it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from experiments.catalogue import EXPERIMENTS
from experiments.errors import ExperimentError
from experiments.harness import report
from experiments.harness.request import Request
from experiments.harness.scenario import Scenario
from experiments.harness.study import Study
from experiments.methods.tinymetafed import with_rates
from experiments.online import board_memory, streams
from experiments.online import run as online
from experiments.online.board_memory import BatchJob, given, measure, run_batch
from experiments.online.learners import (
    STREAMS,
    Learner,
    Pretraining,
    Search,
    StreamRun,
    StreamSet,
    learn,
    pretrain,
    search,
)
from experiments.online.result import Effort, LearnerResult, LearnerRun, Method
from experiments.online.streams import EVERY, LENGTH, Kind, Streams
from localfleet import toolchain
from protocol import fixed
from simulation.engine.fixed import Engine
from simulation.engine.float64 import FloatEngine
from simulation.engine.passes import Passes
from simulation.tasks.characters import CharacterTasks
from simulation.tasks.sines import SineTasks
from tests.support.parts import compile_client, real

SINE = Scenario(network="sine", rounds=2)
SPEC = SINE.spec
START = tuple(SPEC.start().tolist())
CHARACTERS, DRAWINGS = 30, 20


def sines(kind: Kind) -> Streams:
    return streams.draw(SineTasks(64), kind, 3, np.random.default_rng(0))


def run(
    kind: Kind,
    learner: Learner,
    *,
    boards: int,
    seed: int,
    start: tuple[int, ...] = START,
) -> dict[str, Any]:
    streams_of = StreamSet(scenario=SINE, kind=kind, published=start, boards=boards, seed=seed)
    return learn(StreamRun(streams=streams_of, learner=learner))


def misfit(x: np.ndarray, y: np.ndarray) -> float:
    """Root of the mean square of what no single sine explains of a board's samples."""
    x, y = x[:, 0] / 512, y[:, 0] / 512
    waves = np.stack([np.sin(x), np.cos(x)], axis=1)
    parts = np.linalg.lstsq(waves, y)[0]
    return float(np.sqrt(np.mean((y - waves @ parts) ** 2)))


def test_a_stationary_stream_is_of_one_sine() -> None:
    stream = sines("stationary")
    for board in range(3):
        assert misfit(stream.x[:, board], stream.y[:, board]) < 0.01
        both_x = np.concatenate([stream.x[:, board], stream.test_x[:, board]])
        both_y = np.concatenate([stream.y[:, board], stream.test_y[:, board]])
        assert misfit(both_x, both_y) < 0.01


def test_a_switching_stream_is_of_a_sine_after_the_other() -> None:
    stream = sines("switching")
    for board in range(3):
        parts = [slice(at, at + EVERY) for at in range(0, LENGTH, EVERY)]
        assert all(misfit(stream.x[part, board], stream.y[part, board]) < 0.01 for part in parts)
        across = slice(EVERY // 2, EVERY // 2 + EVERY)
        assert misfit(stream.x[across, board], stream.y[across, board]) > 0.1
        last_x = np.concatenate([stream.x[parts[-1], board], stream.test_x[:, board]])
        last_y = np.concatenate([stream.y[parts[-1], board], stream.test_y[:, board]])
        assert misfit(last_x, last_y) < 0.01


def test_a_drifting_stream_moves_little_at_a_time_and_far_in_all() -> None:
    stream = sines("drifting")
    whole = [misfit(stream.x[:, board], stream.y[:, board]) for board in range(3)]
    near = [misfit(stream.x[:12, board], stream.y[:12, board]) for board in range(3)]
    assert min(whole) > 0.1
    assert all(few < 0.2 * far for few, far in zip(near, whole, strict=True))


def drawn(kind: Kind) -> tuple[np.ndarray, np.ndarray, Streams]:
    """Which character and which drawing each sample is, of a data set that says so itself."""
    numbers = np.arange(CHARACTERS * DRAWINGS).reshape(CHARACTERS, DRAWINGS, 1, 1)
    tasks = CharacterTasks(np.tile(numbers, (1, 1, 2, 2)), 5, 25, 25)
    stream = streams.draw(tasks, kind, 2, np.random.default_rng(0))
    return stream.x[:, :, 0] // DRAWINGS, stream.x[:, :, 0] % DRAWINGS, stream


@pytest.mark.parametrize("kind", online.KINDS)
def test_no_stream_has_a_test_sample(kind: Kind) -> None:
    _, _, stream = drawn(kind)
    for board in range(2):
        assert not set(stream.x[:, board, 0]) & set(stream.test_x[:, board, 0])
        assert np.bincount(stream.test_y[:, board, 0]).tolist() == [5] * 5
        characters = {
            (x // DRAWINGS, y)
            for (x, *_), (y,) in zip(stream.test_x[:, board], stream.test_y[:, board], strict=True)
        }
        assert len(characters) == 5  # A class is a character, and the one it was at the end:
        if kind != "drifting":
            end = stream.x[-EVERY:, board, 0] // DRAWINGS, stream.y[-EVERY:, board, 0]
            assert set(zip(*end, strict=True)) == characters


def test_characters_stay_switch_or_are_replaced_little_by_little() -> None:
    character, drawing, stream = drawn("switching")
    for at in range(0, LENGTH, EVERY):
        part = slice(at, at + EVERY)
        assert [len(set(character[part, board])) for board in range(2)] == [5, 5]
        # None comes twice in a task.
        assert len(set(stream.x[part, 0, 0])) == EVERY
    assert drawing.max() < DRAWINGS
    character, _, _ = drawn("stationary")
    first = set(character[:, 0].tolist())
    assert len(first) == 5
    character, _, _ = drawn("drifting")
    old = np.isin(character[:, 0], list(first))
    assert old[: LENGTH // 3].mean() > 0.7
    assert old[-LENGTH // 3 :].mean() < 0.3
    assert len(set(character[:, 0].tolist())) == 10


@pytest.mark.parametrize(
    "learner", [Learner(stored=1, rate=0.02), Learner(stored=32, rate=0.05, epochs=3)]
)
def test_a_board_on_a_stream_is_the_whole_network(learner: Learner) -> None:
    # Learned by hand, layer upon layer; the experiment computes the frozen layers once.
    done = run("switching", learner, boards=4, seed=3)
    spec = with_rates(SPEC, learner.rate, 0.01)
    stream = streams.draw(SineTasks(64), "switching", 4, np.random.default_rng((3, STREAMS)))
    engine = Engine(spec, 4) if learner.stored == 1 else FloatEngine(spec, 4)
    engine.load(np.array(START), local=False)
    engine.load(spec.local_start(), local=True)
    engine.seed([fixed.fnv1a(f"3/{board}") for board in range(4)])
    errors = []
    for at in range(LENGTH):
        apart = engine.forward(stream.x[at])[-1] - stream.y[at]
        errors.append(np.mean((apart / 512) ** 2))
        if learner.stored == 1:
            engine.step(stream.x[at], stream.y[at], local=True)
        elif (at + 1) % 32 == 0:
            some = slice(at - 31, at + 1)
            Passes(8, 3).learn(engine, stream.x[some], stream.y[some], local=True)
    assert done["errors"] == pytest.approx(errors, rel=1e-9)
    tests = [engine.forward(x)[-1] - y for x, y in zip(stream.test_x, stream.test_y, strict=True)]
    assert done["final"] == pytest.approx(np.mean((np.array(tests) / 512) ** 2), rel=1e-9)


def test_who_stores_samples_knows_nothing_of_them_until_the_batch_is_full() -> None:
    slow, quick = (
        run("stationary", Learner(stored=32, rate=rate), boards=20, seed=1)["errors"]
        for rate in (0.001, 0.05)
    )
    assert slow[:32] == quick[:32]
    assert np.mean(quick[-32:]) < np.mean(slow[-32:])


def test_more_epochs_cost_more_operations() -> None:
    once, often = (
        run("stationary", Learner(stored=8, rate=0.01, epochs=epochs), boards=2, seed=1)
        for epochs in (1, 5)
    )
    online = run("drifting", Learner(stored=1, rate=0.01), boards=2, seed=1)
    assert often["operations"] == 5 * once["operations"]
    assert once["operations"] == online["operations"]


def test_too_few_characters_are_refused() -> None:
    tasks = CharacterTasks(np.zeros((19, DRAWINGS, 2, 2), np.int64), 5, 25, 25)
    with pytest.raises(ExperimentError, match="19 characters are held out, but a stream takes 20"):
        streams.draw(tasks, "stationary", 1, np.random.default_rng(0))


def test_the_settings_with_the_least_error_are_chosen() -> None:
    given_streams = StreamSet(scenario=SINE, kind="stationary", published=START, boards=10, seed=7)
    job = Search(streams=given_streams, stored=8, rates=(0.0001, 0.02, 50.0), epochs=(1, 3))
    best = search(job)
    errors = {(rate, epochs): error for rate, epochs, error in best["candidates"]}
    assert len(errors) == 6
    assert errors[best["rate"], best["epochs"]] == min(errors.values())
    assert best["rate"] == 0.02


def test_a_fleets_start_helps_its_boards() -> None:
    learned = tuple(pretrain(Pretraining(scenario=replace(SINE, rounds=30), seed=1))["published"])
    learner = Learner(stored=1, rate=0.02)
    fresh, pretrained = (
        np.mean(run("stationary", learner, boards=50, seed=1, start=start)["errors"])
        for start in (START, learned)
    )
    assert pretrained < 0.9 * fresh


def test_adaptation_is_counted_from_the_switch() -> None:
    errors = np.ones((streams.TASKS, EVERY))
    errors[:, :20] = 10
    one = LearnerRun(errors=errors.ravel().tolist(), final=1.0, operations=1)
    result = LearnerResult(
        scenario=SINE,
        kind="switching",
        method=Method(stored=1),
        learner=Learner(stored=1, rate=0.02),
        candidates=[],
        runs=[one, one],
    )
    assert result.settled() == 1
    assert result.adapts_in(1) == 28  # Twenty, and as many as a mean is of.
    assert result.adapts_in(0.5) is None


@pytest.mark.real
@pytest.mark.parametrize("network", board_memory.NETWORKS)
def test_a_batch_of_one_is_learned_on_a_board_as_a_step_is(network: str) -> None:
    compile_client()
    real(lambda: toolchain.qemu("cortex-m0"))
    job = BatchJob(network=network, stored=1)
    batch = run_batch(job)
    assert batch is not None
    spec = job.spec
    x, y = given(spec, 1)
    engine = Engine(spec, 1)
    engine.load(spec.local_start(), local=True)
    engine.seed([board_memory.SEED])
    for local in (True, False):
        if local:  # The board's global weights are cleared until it takes the published ones.
            engine.load(spec.start(), local=False)
        engine.step(x, y, local=local)
    assert batch["proof"] == [int(engine.flat(local=local).sum()) for local in (True, False)]


@pytest.mark.slow
@pytest.mark.real
def test_a_rounds_samples_fit_beside_a_small_network_only() -> None:
    compile_client()
    real(lambda: toolchain.qemu("cortex-m0"))
    small = measure(BatchJob(network="sine", stored=64))
    assert small["fits"]
    assert small["samples"] >= 64 * 4  # Two bytes for x, and two for y.
    assert small["arrays"] - small["samples"] >= 4 * SPEC.global_count
    large = measure(BatchJob(network="omniglot", stored=50))
    assert not large["fits"]
    assert large["samples"] >= 50 * (2 * 14 * 14 + 1)
    assert large["online"] < large["free"] < large["online"] + large["arrays"]


@pytest.mark.slow
def test_the_experiment_reports_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online, "QUICK", {"sine": Effort(rounds=2, boards=4)})
    monkeypatch.setattr(online, "RATES", (0.01, 0.05))
    monkeypatch.setattr(online, "FEW_RATES", (0.01,))
    monkeypatch.setattr(online, "EPOCHS", (2, 4))
    monkeypatch.setattr(board_memory, "NETWORKS", ("sine",))
    with Study(tmp_path, 1, Console(quiet=True)) as study:
        done = EXPERIMENTS["online"].make(Request(data={}, seeds=2, quick=True), study)
    report.write(done, tmp_path, {"seeds": "2"})
    records = json.loads((tmp_path / "results.json").read_text())["learners"]
    results = {(record["learner"], record["stream"]): record for record in records}
    assert list(results) == [(each.name, kind) for kind in online.KINDS for each in online.METHODS]
    page = (tmp_path / "README.md").read_text()
    assert "$" not in page
    for (learner, kind), result in results.items():
        along = result["loss"]
        assert f"| sine, {kind} | {learner} | {along['mean']:.3f} ± {along['ci95']:.3f} | " in page
        assert [samples for samples, _, _ in result["curve"]] == list(range(12, LENGTH + 1, 12))
        assert np.mean([value for *_, value in result["curve"]]) == pytest.approx(along["mean"])
    batch, each = results["batch-8", "drifting"], results["online", "drifting"]
    assert batch["operations"] == each["operations"]
    assert (batch["stored"], batch["epochs"], each["stored"]) == (8, 1, 1)
    assert batch["rate"] in {0.01, 0.05}
    assert (tmp_path / "sine-switching.png").stat().st_size > 10_000
    assert "## Memory" in page
