"""A spec that cannot be used is refused, with its file, the line and the reason."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

from localfleet.processes import PROJECT
from protocol import fixed
from protocol.errors import SpecError
from protocol.messages import LOCAL, RELU
from protocol.spec import Spec

TEXT = """\
fleet = "demo"
seed = 1
[model]
inputs = 1
loss = "mse"
[[model.layers]]
outputs = 32
activation = "relu"
[[model.layers]]
outputs = 1
activation = "none"
local = true
[training]
support = 32
query = 32
rate_local = 0.02
rate_global = 0.01
percent = 10
[rounds]
count = 300
cohort = 8
deadline = 30
step_max = 3.0
step_min = 0.5
percent_down = 20
"""


def line(number: int, new: str) -> str:
    """The text with one line replaced."""
    lines = TEXT.splitlines()
    lines[number - 1] = new
    return "\n".join(lines)


def refusal(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        Spec.from_toml(text, "fleet.toml")
    return str(caught.value)


def test_the_text_is_a_spec_before_anything_is_wrong_with_it() -> None:
    assert Spec.from_toml(TEXT).fleet == "demo"


def test_the_shipped_spec_loads() -> None:
    spec = Spec.from_file(PROJECT / "specs" / "sine.toml")
    assert [(layer.inputs, layer.outputs) for layer in spec.layers] == [(1, 32), (32, 32), (32, 1)]
    assert spec.tensors == (64, 1056)
    assert spec.plan.top == 112  # A tenth of 1120.
    assert [flags for _, _, flags, _ in spec.plan.layers] == [RELU, RELU, LOCAL]


# --- One thing wrong


@pytest.mark.parametrize(
    ("number", "new", "where", "reason"),
    [
        # Names and types.
        (1, 'fleets = "demo"', "fleets", "is not a setting of a spec"),
        (1, 'fleet = "a/b"', "fleet", "should match"),
        (1, 'fleet = "demo\\n"', "fleet", "should match"),
        (1, "fleet = 7", "fleet", "valid string"),
        (2, "seed = true", "seed", "valid integer"),
        (2, "seed = -1", "seed", "greater than or equal to 0"),
        (2, "seed = 4294967296", "seed", "less than or equal to 4294967295"),
        (4, "inputs = 0", "model.inputs", "greater than or equal to 1"),
        (4, "inputs = 32768", "model.inputs", "less than or equal to 32767"),
        (5, 'loss = "mae"', "model.loss", "should be 'mse'"),
        (7, "outputs = 2049", "model.layers.0.outputs", "less than or equal to 2048"),
        (8, 'activation = "tanh"', "model.layers.0.activation", "'relu' or 'none'"),
        (10, "outputs = 1.0", "model.layers.1.outputs", "valid integer"),
        (12, "locally = true", "model.layers.1.locally", "is not a setting of a spec"),
        (12, 'local = "yes"', "model.layers.1.local", "valid boolean"),
        (14, "support = 0", "training.support", "greater than or equal to 1"),
        (15, 'query = "32"', "training.query", "valid integer"),
        (16, "rate_local = nan", "training.rate_local", "finite number"),
        (16, "rate_local = 0.0", "training.rate_local", "greater than 0"),
        (17, "rate_global = 0.51", "training.rate_global", "less than or equal to 0.5"),
        (18, "percent = 100.1", "training.percent", "less than or equal to 100"),
        (18, "percent = 0", "training.percent", "greater than 0"),
        (20, "count = 0", "rounds.count", "greater than or equal to 1"),
        (22, "deadline = inf", "rounds.deadline", "finite number"),
        (22, 'deadline = "30"', "rounds.deadline", "valid number"),
        (22, "deadline = 0", "rounds.deadline", "greater than 0"),
        (23, "step_max = -1.0", "rounds.step_max", "greater than or equal to 0"),
        (25, "percent_down = true", "rounds.percent_down", "valid number"),
    ],
)
def test_a_wrong_setting_is_named_with_its_line(
    number: int, new: str, where: str, reason: str
) -> None:
    told = refusal(line(number, new)).splitlines()
    assert any(
        re.fullmatch(rf"fleet\.toml:{number}: {re.escape(where)}: .*{re.escape(reason)}.*", one)
        for one in told
    ), told


@pytest.mark.parametrize(
    ("number", "where", "reason"),
    [
        (1, "fleet", "1: fleet: is missing"),
        (4, "inputs", "3: model.inputs: is missing"),
        (10, "outputs", "9: model.layers.1.outputs: is missing"),
        (16, "rate_local", "13: training.rate_local: is missing"),
        (21, "cohort", "19: rounds.cohort: is missing"),
    ],
)
def test_a_missing_setting_is_named_with_its_tables_line(
    number: int, where: str, reason: str
) -> None:
    assert where in TEXT.splitlines()[number - 1]
    assert refusal(line(number, "")) == f"fleet.toml:{reason}"


def test_a_missing_table_is_named() -> None:
    told = refusal(TEXT[: TEXT.index("[rounds]")])
    assert told == "fleet.toml:1: rounds: is missing"


def test_everything_wrong_is_told_at_once() -> None:
    told = refusal(line(4, "inputs = 0").replace("cohort = 8", "cohort = 0"))
    assert [one.split(":")[1] for one in told.splitlines()] == ["4", "21"]


# --- Things that do not go together


@pytest.mark.parametrize(
    ("text", "where", "reason"),
    [
        pytest.param(
            line(11, 'activation = "relu"'), "3: model", "last layer's activation", id="a ReLU last"
        ),
        pytest.param(line(12, ""), "3: model", "no layer is local", id="nothing local"),
        pytest.param(
            line(8, 'activation = "relu"\nlocal = true'), "3: model", "every layer", id="all local"
        ),
        pytest.param(line(21, "cohort = 8\nquorum = 9"), "19: rounds", "quorum 9", id="quorum"),
        pytest.param(line(24, "step_min = 4"), "19: rounds", "step_min 4", id="steps"),
        pytest.param(
            line(4, "inputs = 2047"),
            "1",
            "65536 global parameters",
            id="too many parameters",
        ),
        pytest.param(
            line(4, "inputs = 2046").replace("percent = 10\n", "percent = 90\n"),
            "1",
            "an update could take 67,",
            id="an update too long",
        ),
        pytest.param(
            line(10, "outputs = 64"), "1", "support 32 times 64 outputs", id="losses overflow"
        ),
    ],
)
def test_settings_must_go_together(text: str, where: str, reason: str) -> None:
    told = refusal(text)
    assert told.startswith(f"fleet.toml:{where}: ")
    assert reason in told


def test_the_largest_that_fits_is_taken() -> None:
    assert Spec.from_toml(line(4, "inputs = 2046")).global_count == 65504
    assert Spec.from_toml(line(10, "outputs = 63")).training.support * 63 == 2016


# --- No spec at all


@pytest.mark.parametrize(
    ("text", "where"),
    [
        pytest.param(line(4, "inputs = "), "line 4", id="no value"),
        pytest.param(line(3, "[model"), "line 3", id="an open bracket"),
        pytest.param(line(2, 'fleet = "again"'), "line 2", id="a setting twice"),
    ],
)
def test_what_is_not_toml_is_refused(text: str, where: str) -> None:
    told = refusal(text)
    assert told.startswith("fleet.toml: not TOML: ")
    assert where in told


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"absent\.toml: cannot be read .* such as specs/sine"):
        Spec.from_file(tmp_path / "absent.toml")
    with pytest.raises(SpecError, match="cannot be read"):
        Spec.from_file(tmp_path)


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    file = tmp_path / "latin.toml"
    file.write_bytes('# Gr\u00fc\u00dfe\nfleet = "demo"'.encode("latin-1"))
    with pytest.raises(SpecError, match=r"latin\.toml: cannot be read .*utf-8"):
        Spec.from_file(file)


# --- What follows from a spec


def test_the_lineage_changes_with_the_model_and_with_nothing_else() -> None:
    lineage = Spec.from_toml(TEXT).lineage
    for number, new in ((1, 'fleet = "other"'), (2, "seed = 2"), (7, "outputs = 33")):
        assert Spec.from_toml(line(number, new)).lineage != lineage
    for number, new in ((14, "support = 5"), (21, "cohort = 3"), (1, 'fleet = "demo"  # same')):
        assert Spec.from_toml(line(number, new)).lineage == lineage


def test_the_start_is_drawn_within_each_layers_limit() -> None:
    spec = Spec.from_toml(line(4, "inputs = 100"))
    start, local = spec.start(), spec.local_start()
    assert (len(start), len(local)) == (32 * 101, 33)
    assert np.abs(start.astype(int)).max() <= math.ceil(2**fixed.WEIGHT_BITS / 10)
    assert np.abs(local.astype(int)).max() <= math.ceil(2**fixed.WEIGHT_BITS / math.sqrt(32))
    assert len(np.unique(start)) > 500
    assert np.array_equal(start, Spec.from_toml(line(4, "inputs = 100")).start())
    reseeded = Spec.from_toml(line(4, "inputs = 100").replace("seed = 1", "seed = 2"))
    assert not np.array_equal(start, reseeded.start())
    assert not np.array_equal(local, reseeded.local_start())
