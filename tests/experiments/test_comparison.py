"""A comparison leaves results, tables, pictures and a page that say the same."""

import csv
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from experiments.catalogue import EXPERIMENTS
from experiments.comparison import run as comparison
from experiments.comparison.result import Effort
from experiments.experiment import Settings, make
from experiments.methods.catalogue import METHODS

TINY = Effort(
    rounds=6,
    search_runs=1,
    search_rounds=2,
    validation_tasks=10,
    test_tasks=20,
    curve_tasks=10,
    points=3,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of six rounds, for its form."""
    tiny = replace(
        EXPERIMENTS["sine"], run=partial(comparison.run, replace(comparison.SINE, quick=TINY))
    )
    settings = Settings(
        name="sine",
        data=(),
        seeds=2,
        quick=True,
        fresh=False,
        out=tmp_path_factory.mktemp("experiments"),
        processes=2,
        command="tinymetafed experiment sine",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EXPERIMENTS, "sine", tiny)
        return make(settings, Console(quiet=True)).page.parent


def test_results_say_of_every_method_what_it_came_to_and_cost(made: Path) -> None:
    results = json.loads((made / "results.json").read_text())
    assert list(results) == list(METHODS)
    for name, result in results.items():
        assert set(result) == {"loss", "bytes_up", "bytes_down", "operations", "rounds", "curve"}
        assert set(result["loss"]) == {"mean", "ci95"}
        rounds, total, value = result["curve"][-1]
        assert rounds == result["rounds"] == (0 if name == "scratch" else 6)
        assert total == pytest.approx(result["bytes_up"] + result["bytes_down"], abs=2)
        assert value == pytest.approx(result["loss"]["mean"])
    assert results["tinymetafed"]["bytes_up"] < 0.2 * results["tinyreptile"]["bytes_up"]


def test_tables_hold_every_run_and_every_setting_that_was_tried(made: Path) -> None:
    def rows(name: str) -> list[dict[str, str]]:
        with (made / f"{name}.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    assert len(rows("runs")) == 2 * len(METHODS)
    assert len(rows("search")) == len(METHODS)
    assert {row["method"] for row in rows("curves")} == set(METHODS)
    results = json.loads((made / "results.json").read_text())
    for row in rows("results"):
        assert float(row["loss"]) == results[row["method"]]["loss"]["mean"]


def test_pictures_are_there_for_print_and_for_the_web(made: Path) -> None:
    for name in ("rounds", "bytes", "operations", "parts"):
        with Image.open(made / f"{name}.png") as picture:
            assert min(picture.size) > 600
            assert len(picture.getcolors(2**20) or []) > 50
        drawn = (made / f"{name}.svg").read_text()
        assert "<svg" in drawn
        assert "tinymetafed" in drawn
    assert "fedrecon" in (made / "bytes.svg").read_text()
    assert "no-annealing" in (made / "parts.svg").read_text()


def test_the_page_names_how_it_was_made_and_what_was_found(made: Path) -> None:
    page = (made / "README.md").read_text()
    assert "- command: `tinymetafed experiment sine`" in page
    results = json.loads((made / "results.json").read_text())
    for name, result in results.items():
        assert f"| {name} | {result['loss']['mean']:.3f} ± " in page
    ratio = results["tinymetafed"]["loss"]["mean"] / results["tinyreptile"]["loss"]["mean"]
    assert f"| tinyreptile | {ratio:.2f} | " in page
    assert "1 runs of 2 rounds each" in page
    assert all(name in page for name in ("rounds.png", "bytes.png", "operations.png", "parts.png"))
