"""What can be known about docker-compose.yml and the image without running Docker.

A container engine is no part of a contributor's machine, so nothing here starts one.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from aggregator.settings import Settings
from localfleet.processes import PROJECT
from protocol.spec.spec import Spec
from runtime.settings import PREFIX, gather
from tests.support.ports import free_port

COMPOSE = PROJECT / "docker-compose.yml"
DOCKERFILE = PROJECT / "aggregator" / "Dockerfile"
SECONDS = 60


@pytest.fixture
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(COMPOSE)
    return loaded


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """What is mounted, by where."""
    parts = [volume.split(":") for volume in service["volumes"]]
    return {part[1]: part[0] for part in parts}


def steps(kind: str) -> list[str]:
    """The Dockerfile's instructions of a kind, each in one line."""
    text = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text(encoding="utf-8"))
    return re.findall(rf"^{kind} (.*)$", text, re.MULTILINE)


def check_schema(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    return subprocess.run([*command, path], capture_output=True, text=True, check=False)


# --- docker-compose.yml


def test_it_follows_the_compose_specification(tmp_path: Path) -> None:
    done = check_schema(COMPOSE)
    assert done.returncode == 0, done.stdout + done.stderr
    # The check can fail: a key that the specification does not have is found.
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text(COMPOSE.read_text(encoding="utf-8").replace("restart:", "restarts:"))
    assert check_schema(wrong).returncode == 1


def test_what_is_mounted_is_there(compose: dict[str, Any]) -> None:
    named = set()
    for service in compose["services"].values():
        for source in mounts(service).values():
            if source.startswith("."):
                assert (PROJECT / source).is_file(), source
            else:
                named.add(source)
    assert named == set(compose["volumes"])


def test_the_broker_is_configured_as_it_is_mounted(compose: dict[str, Any]) -> None:
    broker = compose["services"]["broker"]
    text = (PROJECT / "broker" / "mosquitto.conf").read_text(encoding="utf-8")
    options = dict(re.findall(r"^(\w+) (.+)$", text, re.MULTILINE))
    port = options["listener"].split()[0]
    assert broker["ports"] == [f"{port}:{port}"]
    assert options["persistence_location"] in mounts(broker)
    assert mounts(broker)["/mosquitto/config/mosquitto.conf"] == "./broker/mosquitto.conf"
    # The image's tag names a version: what was tried today is what starts next year.
    assert re.fullmatch(r"eclipse-mosquitto:\d+\.\d+\.\d+-alpine", broker["image"])


def test_the_aggregators_environment_is_made_of_settings(
    compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    aggregator = compose["services"]["aggregator"]
    environment = aggregator["environment"]
    for name, value in environment.items():
        assert name.removeprefix(PREFIX).lower() in Settings.model_fields, name
        monkeypatch.setenv(name, value)
    settings = gather(Settings, None, {})
    assert settings.broker.host in compose["services"]
    assert aggregator["depends_on"] == {settings.broker.host: {"condition": "service_healthy"}}
    assert str(settings.state) in mounts(aggregator)
    Spec.from_file(PROJECT / mounts(aggregator)[str(settings.spec)])
    # Metrics are asked for where they are served, from the machine itself only.
    assert settings.metrics is not None
    assert settings.metrics.host == "0.0.0.0"
    port = settings.metrics.port
    assert aggregator["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"http://127.0.0.1:{port}/health" in aggregator["healthcheck"]["test"][-1]


# --- The image


def test_the_image_has_a_python_that_will_do_and_a_state_folder_of_its_user(
    compose: dict[str, Any],
) -> None:
    (base,) = steps("FROM")
    version = tuple(map(int, base.removeprefix("python:").removesuffix("-slim").split(".")))
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = project["requires-python"].removeprefix(">=").split(".")
    assert version >= tuple(map(int, oldest))
    state = compose["services"]["aggregator"]["environment"]["TMF_STATE"]
    (user,) = steps("USER")
    assert any(f"--owner {user} {state}" in step for step in steps("RUN"))
    assert steps("VOLUME") == [state]
    assert (PROJECT / compose["services"]["aggregator"]["build"]["dockerfile"]) == DOCKERFILE


def pins(lock: str) -> dict[str, str]:
    """Each package with its version, its condition and its hashes."""
    text = (PROJECT / lock).read_text(encoding="utf-8")
    text = re.sub(r"^ *#.*\n", "", text, flags=re.MULTILINE)
    return dict(re.findall(r"^([\w.-]+)==(.*(?:\n .*)*)", text, re.MULTILINE))


def test_what_runs_is_what_was_tested() -> None:
    plain, image = pins("requirements.lock"), pins("requirements-privacy.lock")
    assert plain.items() < image.items() < pins("requirements-dev.lock").items()
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted, accountant = (
        {re.split(r"[=<>]", text)[0] for text in texts}
        for texts in (project["dependencies"], project["optional-dependencies"]["privacy"])
    )
    assert wanted <= plain.keys()
    assert accountant <= image.keys() - plain.keys()
    assert not {"pytest", "mypy", "ruff", "matplotlib"} & image.keys()


def build_context(target: Path) -> None:
    """Copy what .dockerignore lets through: names with ``!``, less what follows them."""
    lines = (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    for name in (rule[1:] for rule in rules if rule.startswith("!")):
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target / name)
    for rule in rules[1:]:
        if not rule.startswith(("!", "**")):
            (target / rule).unlink()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_the_image_installs_runs_the_aggregator(
    compose: dict[str, Any], tmp_path: Path
) -> None:
    """The Dockerfile's own commands, in a fresh environment in place of the image."""
    context = tmp_path / "context"
    context.mkdir()
    build_context(context)
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin" / "python"

    install, script = (step for step in steps("RUN") if re.match(r"python -m pip|printf", step))
    words = install.replace("/opt/tinymetafed", str(context)).split()
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    done = subprocess.run([*pip, *words[3:]], capture_output=True, text=True, check=False)
    if "No matching distribution" in done.stderr and not os.environ.get("CI"):
        pytest.skip("the package index is out of reach")
    assert done.returncode == 0, done.stderr
    private = "from cli.extras import need; need('privacy')"
    subprocess.run([python, "-c", private], cwd=context, check=True)
    entry = tmp_path / "tinymetafed"
    subprocess.run(script.replace("/usr/local/bin/tinymetafed", str(entry)), shell=True, check=True)  # noqa: S602

    aggregator = compose["services"]["aggregator"]
    (spec,) = (source for source in mounts(aggregator).values() if source.startswith("."))
    environment = aggregator["environment"] | {
        "PYTHONPATH": str(context),
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "TMF_BROKER": "mqtt://127.0.0.1:1",  # Nobody is there: it says so and waits.
        "TMF_SPEC": str(PROJECT / spec),
        "TMF_STATE": str(tmp_path / "state"),
        "TMF_METRICS": f"127.0.0.1:{(port := free_port())}",
    }
    kind, *check = aggregator["healthcheck"]["test"]
    assert kind == "CMD"
    check[-1] = re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{port}", check[-1])
    with subprocess.Popen([entry, "serve"], env=environment, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        said = b"".join(process.stderr.readline() for _ in range(3))
        assert subprocess.run(check, env=environment, check=False, timeout=SECONDS).returncode == 0
        process.send_signal(signal.SIGTERM)  # As `docker compose stop` does.
        assert process.wait(SECONDS) == 0
    assert b"fleet demo: version 0" in said
    assert b"no broker at 127.0.0.1:1" in said
    assert f"metrics at http://127.0.0.1:{port}/metrics".encode() in said
    quiet = subprocess.DEVNULL  # It can fail: nobody answers any more.
    assert subprocess.run(check, env=environment, stderr=quiet, check=False).returncode == 1
