"""The project as a user has it: a wheel, in a fresh environment, without a checkout."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.install import Environment, install
from cli.extras import ROOMS
from localfleet.processes import PROJECT
from runtime.settings import PREFIX
from tests.conftest import Broker
from tests.support.parts import compile_client
from tests.support.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.real, pytest.mark.timeout(300)]
PATIENCE = 60
PRIVATE = "[rounds.privacy]\nclip = 0.1\nnoise_multiplier = 2.0\ndelta = 1e-5\n"
REMEDY = "pip install 'tinymetafed[{}]'"

Done = subprocess.CompletedProcess[str]


class User:
    """Somebody at a terminal, in a folder of their own.

    Args:
        environment: where the project is installed.
        folder: empty.
    """

    def __init__(self, environment: Environment, folder: Path) -> None:
        self.environment = environment
        self.folder = folder
        kept = {
            name: text
            for name, text in os.environ.items()
            if not name.startswith((PREFIX, "PYTHON"))
        }
        self.variables = kept | {"COLUMNS": "100"}

    def types(self, *words: object, program: str = "tinymetafed") -> Done:
        return subprocess.run(
            [self.environment.bin / program, *map(str, words)],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.variables,
            timeout=PATIENCE,
            check=False,
        )

    @contextmanager
    def serving(self, *words: object) -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen(
            [self.environment.bin / "tinymetafed", "serve", *map(str, words)],
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=self.variables,
        ) as process:
            try:
                yield process
            finally:
                process.send_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    try:
        return install(PROJECT, tmp_path_factory.mktemp("install"))
    except subprocess.CalledProcessError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the package index is out of reach: {error}")


@pytest.fixture
def user(environment: Environment, tmp_path: Path) -> User:
    folder = tmp_path / "home"
    folder.mkdir()
    return User(environment, folder)


def test_it_is_small(environment: Environment) -> None:
    assert environment.downloaded <= 30e6
    assert environment.installed <= 90e6


def test_nothing_comes_from_the_checkout(user: User) -> None:
    script = (
        "import importlib, json, sys; from cli.extras import ROOMS;"
        "files = [importlib.import_module(room).__file__ for room in ROOMS];"
        "print(json.dumps([files, sys.path]))"
    )
    files, path = json.loads(user.types("-c", script, program="python").stdout)
    assert all(Path(file).is_relative_to(user.environment.folder) for file in files)
    assert not any(Path(entry).is_relative_to(PROJECT) for entry in path if entry)
    texts = [text for room in ROOMS for text in (PROJECT / room).rglob("*.md")]
    site = Path(files[0]).parents[1]
    assert texts
    assert all((site / text.relative_to(PROJECT)).is_file() for text in texts)


def test_a_fleet_is_served_and_steered(user: User, broker: Broker) -> None:
    """A plan that asks for privacy is refused, because its accountant is not installed; the one in
    force stays."""
    done = user.types("spec", "sine")
    (user.folder / "sine.toml").write_text(done.stdout)
    (user.folder / "private.toml").write_text(done.stdout + PRIVATE)
    address = ("--broker", f"127.0.0.1:{broker.port}")
    words = ("--state", "state", "--metrics", f"127.0.0.1:{free_port()}")
    with user.serving("--spec", "sine.toml", *address, *words) as process:
        assert process.stderr is not None
        assert any("connected to the broker" in line for line in process.stderr)
        status = user.types("fleet", "status", "--fleet", "demo", *address)
        assert "gathering" in status.stdout
        applied = user.types("fleet", "apply", "private.toml", *address)
        assert applied.returncode == 1
        assert REMEDY.format("privacy") in applied.stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    listed = user.types("model", "list", "--state", "state", "--json")
    assert [version["version"] for version in json.loads(listed.stdout)] == [0]


def test_a_private_fleet_is_refused_before_its_first_round(user: User) -> None:
    spec = user.types("spec", "sine").stdout + PRIVATE
    (user.folder / "private.toml").write_text(spec)
    done = user.types("serve", "--spec", "private.toml", "--broker", "127.0.0.1:1")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("tinymetafed: rounds.privacy: needs")
    assert REMEDY.format("privacy") in done.stderr
    assert "Traceback" not in done.stderr


def test_a_fleet_is_simulated(user: User) -> None:
    (user.folder / "sine.toml").write_text(user.types("spec", "sine").stdout)
    words = ("--spec", "sine.toml", "--boards", 8, "--rounds", 3, "--held-out", 4, "--json")
    done = user.types("simulate", *words)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])["summary"]
    assert summary["accepted"] == 3 * 8


def test_a_board_gets_its_files(user: User) -> None:
    """They are what `make client` compiles. A boot.py that is there holds a password, and stays."""
    compile_client()
    for architecture in ("armv6m", "xtensawin"):
        done = user.types("board", "files", "--arch", architecture, "--to", "pump")
        assert done.returncode == 0, done.stderr
        compiled = PROJECT / "build" / "client" / architecture / "tinymetafed"
        written = user.folder / "pump" / "lib" / "tinymetafed"
        assert {file.name: file.read_bytes() for file in written.iterdir()} == {
            file.name: file.read_bytes() for file in compiled.iterdir()
        }
        boot = user.folder / "pump" / "boot.py"
        if architecture == "armv6m":
            assert "network.WLAN" in boot.read_text()
            boot.write_text("mine")
        assert boot.read_text() == "mine"
    done = user.types("board", "files", "--arch", "riscv", "--to", "pump")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "there are armv6m, armv7m, rv32imc, x64, x86, xtensawin" in done.stderr


def test_what_is_not_installed_is_named_in_one_line(user: User) -> None:
    (user.folder / "sine.toml").write_text(user.types("spec", "sine").stdout)
    (user.folder / "omniglot.toml").write_text(user.types("spec", "omniglot").stdout)
    drawing = user.folder / "images" / "Greek" / "character01" / "0001_01.png"
    drawing.parent.mkdir(parents=True)
    drawing.write_bytes(b"")
    for words, needed in (
        (("experiment", "sine", "--quick"), REMEDY.format("research")),
        (("tune", "--spec", "sine.toml"), REMEDY.format("research")),
        (("simulate", "--spec", "omniglot.toml", "--data", "images"), REMEDY.format("research")),
        (("demo",), "this needs a checkout of the project"),
    ):
        done = user.types(*words)
        assert done.returncode == 2, words
        assert needed in done.stderr, words
        assert len(done.stderr.splitlines()) == 1, words
        assert user.types(words[0], "--help").returncode == 0, words


def test_a_package_of_the_same_name_is_told_apart(user: User) -> None:
    """One that Python finds first, as it may in an environment that several projects share."""
    other = user.folder / "protocol.py"
    other.write_text("")
    user.variables["PYTHONPATH"] = str(user.folder)
    done = user.types("--help")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert f"Python found protocol at {other}" in done.stderr
    assert "an environment of its own" in done.stderr
