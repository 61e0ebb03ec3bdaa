"""An operator at the command line, a real broker, a real aggregator, and boards by a script.

Every command is the program that a user runs, in a process of its own.
"""

import base64
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from aggregator.store.store import Store
from localfleet import processes
from localfleet.processes import PROJECT
from protocol.commands import MAX_COMMAND_BYTES, Import, parse
from protocol.messages import Plan
from protocol.spec.spec import Spec
from protocol.topics import Topics
from runtime.modelfile import ModelFile
from runtime.settings import PREFIX
from tests.conftest import Broker
from tests.support.service import BOARDS, SPEC, TEXT, TOPICS, A, Aggregator, B, Boards, C, D
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.real

Done = subprocess.CompletedProcess[str]


@dataclass
class Operator:
    """Somebody at a terminal."""

    port: int
    folder: Path

    def begin(self, *words: object) -> subprocess.Popen[str]:
        """Start `tinymetafed` with these words; a command to a broker gets its address."""
        broker = ["--broker", f"127.0.0.1:{self.port}"] if speaks_to_a_broker(words) else []
        clean = {name: text for name, text in os.environ.items() if not name.startswith(PREFIX)}
        return subprocess.Popen(
            [Path(sys.executable).with_name("tinymetafed"), *map(str, words), *broker],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**clean, "COLUMNS": "100"},
        )

    def end(self, process: subprocess.Popen[str]) -> Done:
        out, err = process.communicate(timeout=PATIENCE)
        assert "Traceback" not in err
        return Done(process.args, process.returncode, out, err)

    def types(self, *words: object) -> Done:
        return self.end(self.begin(*words))


def speaks_to_a_broker(words: tuple[object, ...]) -> bool:
    if "--help" in words:
        return False
    return words[0] == "fleet" or words[1] in {"import", "rollback"}


@pytest.fixture
def operator(absent_broker: Broker, tmp_path: Path) -> Operator:
    return Operator(absent_broker.port, tmp_path)


@dataclass
class Fleet:
    """An aggregator at work, and boards who are awake and have answered round 0."""

    aggregator: Aggregator
    boards: Boards

    @property
    def state(self) -> Path:
        return self.aggregator.state

    def weights(self, version: int | str) -> NDArray[np.int16]:
        with Store.open(self.state) as store:
            lineage = store.lineage()
            return store.weights(lineage, store.version(lineage, str(version)).version)


@pytest.fixture
def fleet(broker: Broker, tmp_path: Path) -> Iterator[Fleet]:
    aggregator = Aggregator(tmp_path / "aggregator", broker.port)
    with Boards(broker.port) as boards, processes.stopping([aggregator.program]):
        aggregator.program.start()
        boards.are("ready", *BOARDS)
        boards.wait_for_round(0)
        boards.answer(0, *BOARDS)
        boards.wait_for_round(1)
        yield Fleet(aggregator, boards)


# --- Pause, resume, stop, status


def test_a_fleet_is_paused_resumed_and_stopped(fleet: Fleet, operator: Operator) -> None:
    done = operator.types("fleet", "pause", "--fleet", "test")
    assert (done.returncode, done.stdout) == (0, "the fleet is paused\n")
    fleet.boards.wait_for_progress(state="paused")
    done = operator.types("fleet", "pause", "--fleet", "test")
    assert (done.returncode, done.stderr) == (1, "tinymetafed: the fleet is still paused\n")
    done = operator.types("fleet", "resume", "--spec", fleet.state.parent / "spec.toml")
    assert (done.returncode, done.stdout) == (0, "the fleet is gathering\n")
    fleet.boards.wait_for_progress(state="collecting")
    fleet.boards.answer(1, A, B)
    fleet.boards.wait_for_receipt(1, B)
    done = operator.types("fleet", "stop", "--fleet", "test")
    assert (done.returncode, done.stdout) == (0, "the fleet is done\n")
    assert fleet.boards.wait_for_progress(state="done")["version"] == 2


def test_the_status_is_what_the_aggregator_last_said(fleet: Fleet, operator: Operator) -> None:
    fleet.boards.wait_for_progress(round=1, state="collecting")
    done = operator.types("fleet", "status", "--fleet", "test")
    text = " ".join(done.stdout.split())
    assert done.returncode == 0
    for row in ("state │ collecting │", "rounds over │ 1 of 4 │", "updates accepted │ 4 │"):
        assert row in text
    fleet.aggregator.program.stop()
    assert operator.types("fleet", "status", "--fleet", "test").stdout == done.stdout


# --- What waits until no round is open


def test_a_plan_waits_for_the_open_round_and_then_is_in_force(
    fleet: Fleet, operator: Operator, tmp_path: Path
) -> None:
    spec_file = tmp_path / "new.toml"
    spec_file.write_text(TEXT.replace("percent = 10", "percent = 30"))
    waiting = operator.begin("fleet", "apply", spec_file)
    fleet.boards.answer(1, A, B, C)
    fleet.boards.wait("the command", lambda: fleet.boards.latest(TOPICS.command) is not None)
    assert waiting.poll() is None
    fleet.boards.answer(1, D)
    done = operator.end(waiting)
    assert done.returncode == 0
    assert done.stdout.endswith("goes by the new spec\n")
    fleet.boards.wait_for_progress(version=2)
    expected = Spec.from_file(spec_file).plan.top
    assert expected > SPEC.plan.top
    assert Plan.unpack(fleet.boards.latest(TOPICS.plan) or b"").top == expected


def test_a_version_goes_out_and_comes_back(
    fleet: Fleet, operator: Operator, tmp_path: Path
) -> None:
    """Version 1 is exported, changed by hand and imported as version 2; a rollback to version 0
    follows. The fleet is paused, so that neither waits. Boards get what was asked for."""
    file = tmp_path / "model.npz"
    state = fleet.state
    assert operator.types("fleet", "pause", "--fleet", "test").returncode == 0
    done = operator.types("model", "export", "latest", "--to", file, "--state", state)
    assert done.returncode == 0
    with np.load(file) as arrays:
        content = dict(arrays)
    content["layer0_weights"][7, 3] += 4096
    np.savez(file, **content)
    done = operator.types("model", "import", file)
    assert (done.returncode, done.stdout) == (0, "import is version 2\n")
    changed = fleet.weights(1)
    changed[7 * 4 + 3] += 4096
    np.testing.assert_array_equal(fleet.boards.model(2), changed)
    done = operator.types("model", "rollback", 0, "--fleet", "test")
    assert (done.returncode, done.stdout) == (0, "rollback 0 is version 3\n")
    np.testing.assert_array_equal(fleet.boards.model(3), SPEC.start())
    done = operator.types("model", "rollback", 9, "--fleet", "test")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "tinymetafed: rollback: no weights of version 9 are kept\n"
    done = operator.types("model", "diff", 1, 2, "--state", state)
    assert " ".join(done.stdout.split()).count("1 (0.1 %) │ 1 │") == 1


def test_not_waiting_is_possible_and_waiting_ends(fleet: Fleet, operator: Operator) -> None:
    done = operator.types("model", "rollback", 0, "--fleet", "test", "--no-wait")
    assert done.returncode == 0
    assert done.stdout.startswith("rollback: the broker has it")
    done = operator.types("model", "rollback", 1, "--fleet", "test", "--wait", 0.5)
    assert done.returncode == 2
    assert "no answer came within 0.5 s" in done.stderr
    assert "is carried out once no round is open" in done.stderr
    fleet.boards.answer(1, *BOARDS)  # Both were told, and are carried out in their order.
    np.testing.assert_array_equal(fleet.boards.model(4), fleet.weights(1))


def test_a_file_for_another_fleet_is_not_sent(
    fleet: Fleet, operator: Operator, tmp_path: Path
) -> None:
    """Of another lineage, of another network, and by its name of another fleet."""
    file = tmp_path / "model.npz"
    assert operator.types("fleet", "pause", "--fleet", "test").returncode == 0
    other = ModelFile(SPEC, 0x1234, 5, "then", "start", SPEC.start())
    other.write(file)
    done = operator.types("model", "import", file)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    lineage = f"{fleet.boards.plan().lineage:08x}"
    assert f"is of lineage 00001234, and fleet 'test' is in {lineage}" in done.stderr
    assert "--other-lineage" in done.stderr
    done = operator.types("model", "import", file, "--other-lineage")
    assert (done.returncode, done.stdout) == (0, "import is version 2\n")
    for text, complaint in (
        (
            TEXT.replace("outputs = 200", "outputs = 100"),
            "-> 100, kernel 1, stride 1, ReLU in the file, and sums 1 x 1 x 3 -> 200, kernel 1",
        ),
        (
            TEXT.replace("layers = [", 'layers = [\n{ outputs = 3, activation = "relu" },'),
            "the file's network has 3 layers and the fleet's 2",
        ),
    ):
        spec = Spec.from_toml(text)
        ModelFile(spec, 1, 5, "then", "start", spec.start()).write(file)
        done = operator.types("model", "import", file)
        assert done.returncode == 2
        assert complaint in done.stderr
    spec = Spec.from_toml(TEXT.replace('fleet = "test"', 'fleet = "others"'))
    ModelFile(spec, 1, 5, "then", "start", spec.start()).write(file)
    done = operator.types("model", "import", file)
    assert done.returncode == 2
    assert "no plan of fleet 'others' at 127.0.0.1" in done.stderr
    imports = [text for at, text in fleet.boards.received if at == TOPICS.command]
    assert [type(parse(text)) for text in imports].count(Import) == 1


LARGEST = (
    TEXT.replace("inputs = 3", "inputs = 256")
    .replace("outputs = 200", "outputs = 255")
    .replace("percent = 10", "percent = 1")
    .replace('fleet = "test"', 'fleet = "test"\nheap = 1000000000')
)


def test_the_largest_model_that_a_spec_allows_is_imported(
    broker: Broker, operator: Operator, tmp_path: Path
) -> None:
    spec = Spec.from_toml(LARGEST)
    assert spec.global_count == 65_535
    weights = np.random.default_rng(3).integers(-(2**15), 2**15, spec.global_count)
    model = ModelFile(spec, 1, 0, "then", "start", weights.astype(np.int16))
    model.write(tmp_path / "model.npz")
    aggregator = Aggregator(tmp_path / "aggregator", broker.port, LARGEST)
    with Boards(broker.port) as boards, processes.stopping([aggregator.program]):
        aggregator.program.start()
        boards.plan()
        done = operator.types("model", "import", tmp_path / "model.npz", "--other-lineage")
        assert (done.returncode, done.stdout) == (0, "import is version 1\n")
        with Store.open(aggregator.state) as store:
            np.testing.assert_array_equal(store.weights(store.lineage(), 1), weights)
        too_long = tmp_path / "long.toml"
        too_long.write_text(LARGEST + "#" * MAX_COMMAND_BYTES)
        done = operator.types("fleet", "apply", too_long)
        assert done.returncode == 2
        assert f"at most {MAX_COMMAND_BYTES:,} are taken" in done.stderr


def test_the_broker_lets_every_command_pass() -> None:
    conf = (PROJECT / "broker" / "mosquitto.conf").read_text()
    (limit,) = (line.split()[1] for line in conf.splitlines() if line.startswith("max_packet_size"))
    topic = len(Topics("x" * 32).command)
    assert int(limit) >= 1 + 4 + 2 + topic + 2 + 8 + MAX_COMMAND_BYTES
    largest = Import(id="x" * 64, weights=base64.b64encode(bytes(2 * 65_535)).decode())
    assert len(largest.model_dump_json()) <= MAX_COMMAND_BYTES


# --- When something is away


def test_a_command_reaches_an_aggregator_that_was_away(fleet: Fleet, operator: Operator) -> None:
    fleet.aggregator.program.stop()
    done = operator.types("fleet", "pause", "--fleet", "test", "--wait", 0.5)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "no answer came within 0.5 s" in done.stderr
    assert "It stays queued for it" in done.stderr
    fleet.aggregator.program.start()
    fleet.boards.wait_for_progress(state="paused")


@pytest.mark.usefixtures("broker")
def test_a_fleet_that_nobody_serves_is_no_fleet(operator: Operator) -> None:
    done = operator.types("fleet", "stop", "--fleet", "pumps")
    assert done.returncode == 2
    assert "no aggregator has served fleet 'pumps'" in done.stderr
    done = operator.types("fleet", "status", "--fleet", "pumps")
    assert done.returncode == 2
    assert "no progress of fleet 'pumps'" in done.stderr


def test_an_absent_broker_is_named(operator: Operator) -> None:
    done = operator.types("fleet", "pause", "--fleet", "test")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"no broker at 127.0.0.1:{operator.port}" in done.stderr
    assert "is --broker right?" in done.stderr


def test_what_listens_there_but_is_no_broker_is_named(operator: Operator) -> None:
    with socket.create_server(("127.0.0.1", operator.port)) as server:

        def hang_up() -> None:
            server.accept()[0].close()

        threading.Thread(target=hang_up).start()
        done = operator.types("fleet", "pause", "--fleet", "test")
    assert done.returncode == 2
    assert "answers, but not as an MQTT broker does" in done.stderr


def test_a_broker_that_refuses_us_is_named(absent_broker: Broker, operator: Operator) -> None:
    config = absent_broker.folder / "mosquitto.conf"
    config.write_text(config.read_text().replace("allow_anonymous true", "allow_anonymous false"))
    absent_broker.start()
    done = operator.types("fleet", "pause", "--fleet", "test", "--username", "me")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "refuses us" in done.stderr
    assert "check --username and TMF_PASSWORD" in done.stderr


def test_who_may_not_command_is_told_so(absent_broker: Broker, operator: Operator) -> None:
    """Whoever is nobody may read here, and write nothing."""
    access = absent_broker.folder / "access"
    access.write_text("topic read tmf/#\n")
    config = absent_broker.folder / "mosquitto.conf"
    config.write_text(f"{config.read_text()}\nacl_file {access}\n")
    absent_broker.start()
    done = operator.types("fleet", "pause", "--fleet", "test")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "does not take the command pause from us (Not authorized)" in done.stderr


# --- What the words must be


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("fleet", "pause"), "fleet: is missing; give --fleet or --spec"),
        (("fleet", "pause", "--fleet", "a b"), "fleet: String should match pattern"),
        (("fleet", "apply", "absent.toml"), "absent.toml: cannot be read"),
        (("fleet", "status", "--spec", "absent.toml"), "absent.toml: cannot be read"),
        (("model", "import", "absent.npz"), "absent.npz: no such file"),
        (("model", "rollback", "1"), "fleet: is missing"),
        (("model", "rollback", "latest", "--fleet", "x"), "should be a valid integer"),
    ],
)
def test_a_wrong_word_is_named(operator: Operator, words: tuple[str, ...], complaint: str) -> None:
    done = operator.types(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize("group", ["fleet", "model"])
def test_help_says_what_each_command_is_for(operator: Operator, group: str) -> None:
    text = " ".join(operator.types(group, "--help").stdout.split())
    words = {
        "fleet": ["pause", "resume", "stop", "apply", "status"],
        "model": ["list", "show", "diff", "export", "import", "rollback"],
    }
    for word in words[group]:
        assert f"│ {word} " in text
