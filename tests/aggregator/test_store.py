"""The model store as its commands show it: what made a version, how versions differ, and files.

The journals are written by the aggregator's own code, and stay open while they are read.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aggregator.errors import StoreError
from aggregator.journal.journal import Journal
from aggregator.store import cheader
from aggregator.store.store import Store
from cli.main import app
from localfleet.processes import PROJECT
from protocol import fixed
from protocol.spec.spec import Spec
from rounds.core import UpdateKey
from rounds.learning import Basis, Sums
from rounds.sums import PartialSum
from runtime.errors import StateError
from runtime.modelfile import SCALE, ModelFile
from simulation.engine.fixed import Engine
from tests.support.journal import FACTS
from tests.support.networks import random_spec

TEXT = (PROJECT / "specs" / "sine.toml").read_text()
SPEC = Spec.from_toml(TEXT)
CANARY = TEXT + "\n[rounds.canary]\nshare = 0.5\ntolerance = 0.1\n"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `tinymetafed` here; its exit code, and what it printed on stdout and on stderr."""
    monkeypatch.setenv("COLUMNS", "120")

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tinymetafed", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            app()
        out, err = capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0), out, err

    return call


def learned(journal: Journal, spec: Spec, round_: int, *, is_canary: int = 0) -> None:
    """Close a round in which boards a and b taught every weight something.

    ``is_canary``: the mean loss, in loss units, of the one who tried out a version.
    """
    total = PartialSum(spec.global_count, weight=2, query=1, query_loss=100)
    total.changes += np.arange(spec.global_count) % 100 - 50
    sums: Sums = {Basis(0, is_canary=False): total}
    if is_canary:
        tried = PartialSum(spec.global_count, weight=1, query=1, query_loss=is_canary)
        sums = {**sums, Basis(0, is_canary=True): tried}
    learning = journal.learning(spec)
    verdict = learning.close(sums, [], round_).verdict
    facts = replace(FACTS, round=round_, canary=verdict.value if verdict else None)
    counted = [UpdateKey(round_, "a"), UpdateKey(round_, "b")]
    journal.close_round(learning, facts, counted, [])


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Three rounds, the third by a plan with another share, and a rollback to version 1."""
    journal = Journal(tmp_path)
    spec = journal.start(SPEC)
    learned(journal, spec, 0)
    learned(journal, spec, 1)
    spec = journal.adopt(Spec.from_toml(TEXT.replace("percent = 10", "percent = 50")))
    learned(journal, spec, 2)
    learning = journal.learning(spec)
    learning.replace(np.frombuffer(journal.weights(1) or b"", "<i2").astype(np.int16))
    journal.replace(learning, "rollback 1")
    yield journal
    journal.close()


# --- What made a version


@pytest.mark.usefixtures("journal")
def test_each_version_is_there_with_what_made_it(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        lineage = store.lineage()
        found = store.versions(lineage)
        assert [(v.version, v.origin, v.role) for v in found] == [
            (0, "start", "past"),
            (1, "round 0", "past"),
            (2, "round 1", "past"),
            (3, "round 2", "past"),
            (4, "rollback 1", "stable"),
        ]
        assert [v.facts.round if v.facts else None for v in found] == [None, 0, 1, 2, None]
        assert [v.cohort for v in found] == [None, *[["a", "b"]] * 3, None]
        assert store.version(lineage, "latest") == found[4]
        assert store.version(lineage, "2") == found[2]
        np.testing.assert_array_equal(store.weights(lineage, 0), SPEC.start())
        np.testing.assert_array_equal(store.weights(lineage, 4), store.weights(lineage, 1))
        percents = [store.spec(lineage, v.version).training.percent for v in found]
        assert percents == [10, 10, 10, 50, 50]
        assert store.spec(lineage, 3).lineage == lineage.number


def test_what_an_aggregator_does_meanwhile_is_seen_the_next_time(
    tmp_path: Path, journal: Journal
) -> None:
    with Store.open(tmp_path) as store:
        spec = store.spec(store.lineage(), 4)
        learned(journal, spec, 3)
        assert len(store.versions(store.lineage())) == 5
    with Store.open(tmp_path) as store:
        assert len(store.versions(store.lineage())) == 6


def test_the_latest_version_is_the_one_that_boards_work_on(tmp_path: Path) -> None:
    """Version 1 is the canary, does badly and is rolled back, and version 2 is the canary."""
    journal = Journal(tmp_path)
    spec = journal.start(Spec.from_toml(CANARY))
    learned(journal, spec, 0)
    learned(journal, spec, 1, is_canary=900)
    with Store.open(tmp_path) as store:
        roles = [version.role for version in store.versions(store.lineage())]
        assert roles == ["stable", "rolled back", "canary"]
        assert store.version(store.lineage(), "latest").version == 0
    journal.close()


@pytest.mark.usefixtures("journal")
def test_earlier_lineages_stay(tmp_path: Path, journal: Journal, run: Run) -> None:
    with Store.open(tmp_path) as store:
        first = store.lineage().number
    journal.adopt(Spec.from_toml(TEXT.replace("seed = 1", "seed = 2")))
    with Store.open(tmp_path) as store:
        assert [lineage.versions for lineage in store.lineages] == [1, 5]
        assert store.lineage(first) == store.lineages[1]
    code, out, _ = run("model", "list", "--state", tmp_path)
    assert code == 0
    assert f"lineage {first:08x}: 5 versions" in out
    assert "rollback 1" not in out
    assert "rollback 1" in run("model", "list", "--state", tmp_path, "--lineage", f"{first:08x}")[1]
    code, _, err = run("model", "list", "--state", tmp_path, "--lineage", "12345678")
    assert (code, err.startswith("tinymetafed: no lineage 12345678 is stored")) == (2, True)


# --- The commands that look


@pytest.mark.usefixtures("journal")
def test_list_shows_versions_for_people_and_for_scripts(tmp_path: Path, run: Run) -> None:
    code, out, _ = run("model", "list", "--state", tmp_path, "--last", 2)
    assert code == 0
    assert "rollback 1" in out
    assert "round 1" not in out
    assert "3 older ones" in out
    code, out, _ = run("model", "list", "--state", tmp_path, "--json")
    rows = json.loads(out)
    assert [row["version"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[1]["facts"]["loss"] == FACTS.loss
    assert rows[1]["cohort"] == ["a", "b"]


@pytest.mark.usefixtures("journal")
def test_show_has_the_settings_and_the_range_of_each_global_layer(tmp_path: Path, run: Run) -> None:
    code, out, _ = run("model", "show", "3", "--state", tmp_path)
    assert code == 0
    assert " ".join(out.split()).count("training.percent │ 50.0") == 1
    assert "a, b" in out
    with Store.open(tmp_path) as store:
        weights = store.weights(store.lineage(), 3)[:64] * SCALE
    assert f"{weights.min():.4g}" in out
    assert f"{weights.max():.4g}" in out


@pytest.mark.usefixtures("journal")
def test_diff_measures_weights_and_names_settings(tmp_path: Path, run: Run) -> None:
    code, out, _ = run("model", "diff", 2, 3, "--state", tmp_path)
    text = " ".join(out.split())
    assert code == 0
    assert "training.percent │ 10.0 │ 50.0" in text
    with Store.open(tmp_path) as store:
        weights = [store.weights(store.lineage(), version)[:64] for version in (2, 3)]
    change = (weights[1].astype(float) - weights[0]) / 4096
    changed = np.count_nonzero(change)
    assert 0 < changed < 64
    row = f"│ 0 │ 64 │ {changed} ({100 * changed / 64:.1f} %) │ {abs(change).max():.4g} │"
    assert row in text
    code, out, _ = run("model", "diff", 1, 4, "--state", tmp_path)
    assert "0 (0.0 %)" in out
    code, out, _ = run("model", "diff", 1, 2, "--state", tmp_path)
    assert "the same settings" in out


def test_what_is_not_there_is_said_in_one_line(tmp_path: Path, run: Run) -> None:
    state = tmp_path / "state"
    code, out, err = run("model", "list", "--state", state)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "journal.db: no such journal; give the aggregator's folder with --state" in err
    journal = Journal(state, keep_versions=1)
    with pytest.raises(StoreError, match="holds no model so far"), Store.open(state):
        pass
    spec = journal.start(SPEC)
    for round_ in range(3):
        learned(journal, spec, round_)
    wrong: list[tuple[tuple[object, ...], str]] = [
        (("show", "9"), "no version 9 in lineage"),
        (("show", "-1"), "No such option"),
        (("show", "newest"), "'newest' is no version; give its number, or latest"),
        (("diff", "1", "3"), "the weights of version 1 are not kept"),
        (("export", "3", "--to", tmp_path / "model.bin"), "ends neither in .npz nor in .h"),
        (("export", "3", "--to", tmp_path / "absent" / "model.h"), "model.h: cannot be written"),
        (("export", "3", "--to", tmp_path / "absent" / "m.npz"), "m.npz: cannot be written"),
    ]
    for words, complaint in wrong:
        code, _, err = run("model", *words, "--state", state)
        assert code == 2
        assert complaint in err
    assert "past, not kept" in run("model", "list", "--state", state)[1]
    assert "its weights are not kept" in run("model", "show", "1", "--state", state)[1]
    journal.close()


def test_a_journal_of_another_program_or_schema_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"not a database, but long enough" * 100)
    with pytest.raises(StateError, match=r"journal\.db: damaged"), Store.open(tmp_path):
        pass


# --- Files


def stored(tmp_path: Path, spec: Spec) -> ModelFile:
    """Version 1 of a fleet."""
    journal = Journal(tmp_path)
    spec = journal.start(spec)
    learned(journal, spec, 0)
    journal.close()
    with Store.open(tmp_path) as store:
        return store.model_file(store.lineage(), store.version(store.lineage(), "latest"))


def test_npz_has_an_array_for_each_layer_and_where_it_comes_from(tmp_path: Path, run: Run) -> None:
    model = stored(tmp_path, SPEC)
    path = tmp_path / "model.npz"
    code, out, _ = run("model", "export", "latest", "--to", path, "--state", tmp_path)
    assert (code, out) == (
        0,
        f"export: version 1 of lineage {model.lineage:08x} is in {path}\n",
    )
    with np.load(path) as arrays:
        assert sorted(arrays) == [
            *("fleet", "layer0_weights", "layer1_weights", "layer2_start", "lineage", "made"),
            *("origin", "scale", "spec", "version"),
        ]
        shapes = {name: arrays[name].shape for name in arrays if name.startswith("layer")}
        assert shapes == {
            "layer0_weights": (32, 2),
            "layer1_weights": (32, 33),
            "layer2_start": (1, 33),
        }
        parts = [arrays["layer0_weights"], arrays["layer1_weights"]]
        wire = np.concatenate([part.ravel() for part in parts])
        np.testing.assert_array_equal(wire, model.weights)
        np.testing.assert_array_equal(arrays["layer2_start"].ravel(), SPEC.local_start())
        assert (float(arrays["scale"]), int(arrays["version"])) == (1 / 4096, 1)
        assert int(arrays["lineage"]) == model.lineage
        assert json.loads(str(arrays["spec"]))["training"]["percent"] == 10


# --- C

RUNNER = """
#include <stdio.h>
#include <stdlib.h>
#include "model.h"
#include "run_model.c"
int main(int count, char **arguments)
{
    static float values[2][NAME_VALUES];
    for (int i = 1; i < count; i++) values[0][i - 1] = strtof(arguments[i], NULL);
    const float *y = tmf_run(name_layers, NAME_LAYERS, NAME_SCALE, values[0], values[1]);
    for (int i = 0; i < NAME_OUTPUTS; i++) printf("%.9g ", y[i]);
    for (const tmf_layer *l = name_layers; l < name_layers + NAME_LAYERS; l++) {
        const int row = l->kernel * l->kernel * (l->kind == TMF_SUMS ? l->channels : 1) + 1;
        printf("\\n");
        if (l->weights) for (int i = 0; i < l->outputs * row; i++) printf("%d ", l->weights[i]);
    }
    return 0;
}
"""


def in_c(
    folder: Path, model: ModelFile, name: str, x: list[float], compiler: str = "gcc"
) -> tuple[list[float], list[list[int]]]:
    """What a C program that includes the header makes of a sample, and each layer's weights."""
    cheader.write(model, folder / "model.h")
    program = RUNNER.replace("NAME", name.upper()).replace("name", name)
    source = folder / ("main.c" if compiler == "gcc" else "main.cpp")
    source.write_text(program)
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{PROJECT / 'docs'}"]
    standard = "-std=c99" if compiler == "gcc" else "-std=c++11"
    binary = folder / "main"
    subprocess.run([compiler, standard, *warnings, "-o", binary, source], check=True)
    done = subprocess.run([binary, *map(repr, x)], check=True, capture_output=True, text=True)
    first, *layers = done.stdout.split("\n")
    return [float(y) for y in first.split()], [[int(w) for w in line.split()] for line in layers]


def check_in_c(folder: Path, model: ModelFile, name: str, compiler: str = "gcc") -> None:
    """In C the weights are the same, and the outputs near those of a board's fixed point."""
    rng = np.random.default_rng(5)
    x = rng.uniform(-1, 1, model.spec.layers[0].words_in)
    outputs, layers = in_c(folder, model, name, x.tolist(), compiler)
    expected = {place: array.ravel().tolist() for place, _, array in model.layers()}
    assert layers == [expected.get(place, []) for place in range(len(model.spec.layers))]
    engine = Engine(model.spec, 1)
    engine.load(model.weights, local=False)
    engine.load(model.spec.local_start(), local=True)
    on_a_board = engine.forward(fixed.to_activation(x[None]))[-1][0]
    assert engine.saturated["activations"] == 0
    np.testing.assert_allclose(outputs, on_a_board / 2**fixed.ACTIVATION_BITS, atol=0.02)


@pytest.mark.parametrize("name", ["sine", "omniglot", "keywords"])
def test_firmware_in_c_runs_an_exported_model(tmp_path: Path, name: str) -> None:
    model = stored(tmp_path, Spec.from_file(PROJECT / "specs" / f"{name}.toml"))
    check_in_c(tmp_path, model, f"tmf_{model.spec.fleet}")


@pytest.mark.parametrize("seed", range(12))
def test_a_random_network_runs_in_c(tmp_path: Path, seed: int) -> None:
    spec = random_spec(np.random.default_rng(seed))
    model = ModelFile(spec, 1, 1, "then", "start", spec.start())
    check_in_c(tmp_path, model, "tmf_replay")


def test_every_fleets_name_is_one_in_c_and_in_cpp(tmp_path: Path) -> None:
    spec = Spec.from_toml(TEXT.replace('fleet = "demo"', 'fleet = "9-pumps.hall_B"'))
    model = ModelFile(spec, 1, 1, "then", "start", spec.start())
    check_in_c(tmp_path, model, "tmf_9_pumps_hall_B")
    check_in_c(tmp_path, model, "tmf_9_pumps_hall_B", "g++")
