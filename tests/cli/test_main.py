"""The table of commands: it says what they say of themselves, and spares importing them."""

import inspect
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from cli.extras import EXTRAS, ROOMS, explained
from cli.main import COMMANDS, loaded

PROJECT = Path(__file__).resolve().parents[2]
SETTINGS = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))


def imported(script: str) -> set[str]:
    """The packages that are loaded at the end of a script, in a process of its own."""
    script += "\nimport json, sys\nprint(json.dumps([name.split('.')[0] for name in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PROJECT
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_what_a_command_says_of_itself(name: str) -> None:
    said = inspect.cleandoc(loaded(name).help)
    assert COMMANDS[name].about == said.splitlines()[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_offers_to_change_the_users_shell(name: str) -> None:
    assert not [option for option in loaded(name).params if "completion" in str(option.name)]


def test_help_imports_no_command() -> None:
    modules = imported(
        "import sys\nfrom cli.main import app\nsys.argv = ['tinymetafed', '--help']\n"
        "try:\n    app()\nexcept SystemExit:\n    pass\n"
    )
    assert {"cli", "typer", "rich"} <= modules
    assert not {"numpy", "pydantic", "paho", "msgpack", "prometheus_client"} & modules
    assert not (set(ROOMS) - {"cli", "protocol"}) & modules


def test_the_service_imports_what_it_needs() -> None:
    modules = imported("import cli.main, cli.serve")
    assert {"numpy", "pydantic", "paho", "aggregator", "rounds"} <= modules
    assert not {"simulation", "experiments", "tuning", "localfleet", "provision"} & modules
    assert not {"rich", "matplotlib", "scipy", "dp_accounting"} & modules


def test_a_simulation_of_sines_needs_no_extra() -> None:
    modules = imported("import cli.simulate, simulation.tasks.held_out, simulation.run")
    assert not {module for extra in EXTRAS.values() for module in extra} & modules


def test_a_typing_error_is_answered_by_what_was_meant() -> None:
    script = "import sys; sys.argv = ['tinymetafed', 'simulat']; from cli.main import app; app()"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=PROJECT
    )
    assert done.returncode == 2
    assert "Did you mean 'simulate'?" in done.stderr


def test_extras_bring_the_modules_that_are_missed() -> None:
    extras = dict(SETTINGS["project"]["optional-dependencies"])
    assert set(extras.pop("dev")[0].split("[")[1].rstrip("]").split(",")) == set(extras)
    sources = packages_distributions()
    for extra, requirements in extras.items():
        wanted = {re.split(r"[=<>]", text)[0] for text in requirements}
        assert {sources[module][0] for module in EXTRAS[extra]} == wanted, extra
    assert extras.keys() == EXTRAS.keys()


def test_the_packages_are_those_that_are_installed() -> None:
    patterns = SETTINGS["tool"]["setuptools"]["packages"]["find"]["include"]
    assert sorted(pattern.rstrip("*") for pattern in patterns) == list(ROOMS)


def test_an_import_that_fails_for_another_reason_is_no_matter_of_extras() -> None:
    assert explained(ModuleNotFoundError("No module named 'numpy'", name="numpy")) is None
    assert explained(ImportError("broken")) is None
