"""Claims are judged by the figures alone, and copied into the docs as experiments left them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments.claims import MethodResult, better, claims
from localfleet.processes import PROJECT


def result(mean: float, ci95: float, size: float, metric: str = "loss") -> dict[str, Any]:
    curve = [[1, size / 2, 2 * mean if metric == "loss" else mean / 2], [2, size, mean]]
    return {
        metric: {"mean": mean, "ci95": ci95},
        "bytes_up": size / 2,
        "bytes_down": size / 2,
        "operations": 10,
        "rounds": 2,
        "curve": curve,
    }


def sine(**others: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    parts = ("no-reconstruction", "no-top-p", "no-annealing", "no-online")
    variants = {f"tinymetafed/{part}": result(0.5, 0.05, 100) for part in parts}
    fleet = {"tinymetafed": result(0.4, 0.02, 100), "tinyreptile": result(0.9, 0.1, 1000)}
    return {"sine": fleet | variants | others}


def verdicts(found: dict[str, dict[str, dict[str, Any]]]) -> dict[str, str]:
    return {claim: verdict for claim, _, verdict in claims(found)}


def test_a_difference_counts_beyond_both_intervals() -> None:
    def read(mean: float, ci95: float, metric: str = "loss") -> MethodResult:
        return MethodResult.read(result(mean, ci95, 1, metric))

    assert better(read(0.4, 0.02), read(0.5, 0.05)) == pytest.approx(0.1)
    assert better(read(0.4, 0.06), read(0.5, 0.05)) == 0
    assert better(read(0.5, 0.02), read(0.4, 0.05)) < 0
    high, low = read(0.8, 0.01, "accuracy"), read(0.7, 0.01, "accuracy")
    assert better(high, low) > 0 > better(low, high)


def test_what_is_better_and_cheaper_held() -> None:
    said = {claim: (text, verdict) for claim, text, verdict in claims(sine())}
    text, verdict = said["fewer bytes, and faster convergence"]
    assert verdict == "held"
    assert "with 10.0% of its bytes" in text
    assert "reached in round 1, with 5.0% of its bytes" in text
    assert said["better than the baselines"][1] == "held"


def test_a_baseline_that_is_better_is_named() -> None:
    found = sine(fedrecon=result(0.2, 0.01, 800), scratch=result(0.41, 0.02, 0))
    said = {claim: (text, verdict) for claim, text, verdict in claims(found)}
    text, verdict = said["better than the baselines"]
    assert verdict == "did not hold"
    assert "fedrecon (0.200 ± 0.010) is better" in text
    assert "not distinguishable: scratch" in text


def test_a_part_that_makes_it_worse_did_not_hold() -> None:
    found = sine()
    found["sine"]["tinymetafed/no-annealing"] = result(0.3, 0.01, 100)
    found["sine"]["tinymetafed/no-top-p"] = result(0.39, 0.01, 200)
    said = verdicts(found)
    assert said["the annealed step helps"] == "did not hold"
    assert said["partial local reconstruction helps"] == "held"
    # It is there to save bytes: to be as good is enough.
    assert said["Top-P saves bytes at little cost"] == "held"


def test_a_method_run_again_with_other_samples_is_no_further_baseline() -> None:
    found = sine()
    found["sine"]["fedavg/1-shot"] = result(0.1, 0.01, 800)
    found["sine"]["tinyreptile/1000-rounds"] = result(0.1, 0.01, 800)
    said = {claim: text for claim, text, _ in claims(found)}
    assert said["better than the baselines"].startswith("sine: of 1 baselines none is better")


def leak(partition: str, percent: float, value: float, **others: Any) -> dict[str, Any]:
    figures = {"value": {"mean": value, "ci95": 0.1}}
    situation = {"network": "sine", "partition": partition, "rounds": 100, "percent": percent}
    return situation | {"value_bits": 8, "secret": "task", "local_known": False} | figures | others


def test_privacy_is_judged_by_the_last_round_with_the_width_that_ships() -> None:
    leaks = [
        leak("full", 100, 0.9),
        leak("partial", 10, 0.3),
        leak("partial", 10, 0.8, rounds=0),
        leak("partial", 10, 0.7, value_bits=4),
    ]
    ((claim, text, verdict),) = claims({"top-p": {"settings": [], "observer": leaks}})
    assert claim == "protects privacy"
    assert "from 0.90 with everything sent to 0.30 with reconstruction" in text
    assert verdict == "held"
    leaks[1] = leak("partial", 10, 0.85)
    assert [each.verdict for each in claims({"top-p": {"observer": leaks}})] == ["did not hold"]


def test_the_page_of_results_has_the_claims_of_the_committed_figures() -> None:
    docs = PROJECT / "docs"
    found = {
        file.parent.name: json.loads(file.read_text(encoding="utf-8"))
        for file in (docs / "results").glob("*/results.json")
    }
    page = (docs / "results.md").read_text(encoding="utf-8")
    block = page.partition("<!-- experiment: claims,")[2].partition("<!-- end -->")[0]
    lines = [line for line in block.splitlines() if line.startswith("| ")]
    assert lines[2:] == [f"| {' | '.join(each)} |" for each in claims(found)]


def test_nothing_is_said_of_what_was_not_made() -> None:
    assert claims({}) == []


def test_results_are_brought_into_the_docs_with_their_facts(tmp_path: Path) -> None:
    """The script runs on a copy of docs/results.md and on an experiment that is made up."""
    project = tmp_path / "project"
    (project / "docs").mkdir(parents=True)
    shutil.copy(PROJECT / "docs" / "results.md", project / "docs")
    shutil.copytree(PROJECT / "tools", project / "tools")
    made = tmp_path / "made" / "sine"
    (made / "runs").mkdir(parents=True)
    (made / "runs" / "a.json").write_text("{}")
    (made / "results.json").write_text(json.dumps(sine()["sine"]))
    (made / "rounds.png").write_bytes(b"picture")
    (made / "README.md").write_text(
        "# Sines\n\n- seeds: 5\n\n| method | loss |\n| --- | ---: |\n| ours | 0.4 |\n\n"
        "More.\n\n![Loss](rounds.png)\n"
    )
    script = project / "tools" / "results.py"
    command = [sys.executable, str(script), "--made", str(made.parent)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={"PYTHONPATH": str(PROJECT)}
    )
    assert "docs/results/sine" in done.stdout
    assert (project / "docs" / "results" / "sine" / "rounds.png").exists()
    assert not (project / "docs" / "results" / "sine" / "runs").exists()
    page = (project / "docs" / "results.md").read_text()
    assert "- seeds: 5\n\n| method | loss |" in page
    assert "![Loss](results/sine/rounds.png)" in page
    assert "[Sines, in full](results/sine/README.md)" in page
    assert "| fewer bytes, and faster convergence | sine: 0.400 ± 0.020 against" in page


def test_savings_are_judged_as_modelled() -> None:
    cheap, dear = {"seconds": 1.0, "joules": 0.1}, {"seconds": 4.0, "joules": 0.4}
    ours = result(0.4, 0.02, 100) | {"modelled": {"ESP32, each round": cheap}}
    theirs = result(0.9, 0.1, 1000) | {"modelled": {"ESP32, each round": dear}}
    found = {"energy": {"sine/tinymetafed": ours, "sine/tinyreptile": theirs}}
    ((claim, text, verdict),) = claims(found)
    assert claim == "60% less time, 70% less bytes, 50% less energy"
    assert "modelled; ESP32, each round: time 75%, bytes 90%, energy 75%" in text
    assert verdict == "held"
    theirs["modelled"]["ESP32, each round"] = cheap
    assert [verdict for _, _, verdict in claims(found)] == ["held in part"]
