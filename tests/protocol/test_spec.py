"""A spec that cannot be used is refused, with its file, the line and the reason."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

from localfleet.processes import PROJECT
from protocol import fixed
from protocol.errors import SpecError
from protocol.spec.layers import LOCAL, RELU, Kind, LayerShape
from protocol.spec.spec import Spec

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
    places = [(layer.words_in, layer.words_out) for layer in spec.layers]
    assert places == [(1, 32), (32, 32), (32, 1)]
    assert spec.tensors == (64, 1056)
    assert spec.plan.top == 112  # A tenth of 1120.
    assert [layer[7] for layer in spec.plan.layers] == [RELU, RELU, LOCAL]


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
        (4, "inputs = 32761", "model.inputs", "less than or equal to 32760"),
        (4, "inputs = 1.5", "model.inputs", "valid integer"),
        (4, "inputs = true", "model.inputs", "valid integer"),
        (4, "inputs = [3, 3, 0]", "model.inputs.2", "greater than or equal to 1"),
        (4, "inputs = [3, 3]", "model.inputs.2", "is missing"),
        (4, "inputs = [3, 3, 1, 1]", "model.inputs", "at most 3 items"),
        (5, 'loss = "mae"', "model.loss", "should be 'mse' or 'cross_entropy'"),
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
        (18, "percent = 1\nclip = 0", "training.clip", "greater than 0"),
        (18, "percent = 1\nclip = 16.1", "training.clip", "less than or equal to 16"),
        (18, "percent = 1\nvalue_bits = 5", "training.value_bits", "should be 4, 8 or 16"),
        (18, "percent = 1\nerror_feedback = 1", "training.error_feedback", "valid boolean"),
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
        re.fullmatch(
            rf"fleet\.toml:{number + new.count(chr(10))}: {re.escape(where)}: "
            rf".*{re.escape(reason)}.*",
            one,
        )
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


# --- Layers

CNN = """\
fleet = "letters"
[model]
inputs = [14, 13, 2]
loss = "cross_entropy"
[[model.layers]]
kind = "conv"
kernel = 3
stride = 2
outputs = 8
activation = "relu"
[[model.layers]]
kind = "depthwise"
stride = 1
activation = "none"
[[model.layers]]
kind = "pool"
size = 2
[[model.layers]]
kind = "conv"
kernel = 1
outputs = 6
activation = "relu"
local = true
[[model.layers]]
kind = "dense"
outputs = 5
activation = "none"
[training]
support = 5
query = 5
rate_local = 0.02
rate_global = 0.01
percent = 10
clip = 1.0
value_bits = 4
error_feedback = true
[rounds]
count = 300
cohort = 8
deadline = 30
step_max = 3.0
percent_down = 20
"""
STRIDE, SIZE, KERNEL = (
    CNN.splitlines().index(text) + 1 for text in ("stride = 2", "size = 2", "kernel = 1")
)


def cnn(number: int, new: str) -> str:
    """The text of the convolutional network with one line replaced."""
    lines = CNN.splitlines()
    lines[number - 1] = new
    return "\n".join(lines)


def test_layers_stand_on_each_other() -> None:
    spec = Spec.from_toml(CNN)
    assert [(layer.rows, layer.columns, layer.outputs) for layer in spec.layers] == [
        *((6, 6, 8), (4, 4, 8), (2, 2, 8), (2, 2, 6), (1, 1, 5))
    ]
    assert [layer.kind for layer in spec.layers] == [
        *(Kind.SUMS, Kind.DEPTHWISE, Kind.POOL, Kind.SUMS, Kind.SUMS)
    ]
    # Windows of 3 x 3 x 2, of 3 x 3, none, of 8, of 2 x 2 x 6; a bias each.
    assert [layer.parameters for layer in spec.layers] == [8 * 19, 8 * 10, 0, 6 * 9, 5 * 25]
    assert spec.tensors == (8 * 19, 8 * 10, 5 * 25)
    assert (len(spec.start()), len(spec.local_start())) == (8 * 19 + 8 * 10 + 5 * 25, 6 * 9)


def test_a_plan_is_the_spec_in_integers() -> None:
    plan = Spec.from_toml(CNN).plan
    assert plan.layers == (
        (0, 14, 13, 2, 8, 3, 2, RELU, round(4096 / math.sqrt(18))),
        (1, 6, 6, 8, 8, 3, 1, 0, round(4096 / 3)),
        (2, 4, 4, 8, 8, 2, 2, 0, 4096),
        (0, 2, 2, 8, 6, 1, 1, LOCAL | RELU, round(4096 / math.sqrt(8))),
        (0, 1, 1, 24, 5, 1, 1, 0, round(4096 / math.sqrt(24))),
    )
    assert (plan.loss, plan.clip, plan.value_bits, plan.feedback) == (1, 2**14, 4, 1)
    plain = Spec.from_toml(TEXT).plan
    assert (plain.loss, plain.clip, plain.value_bits, plain.feedback) == (0, 2**15 - 1, 8, 0)


def test_a_layer_without_a_kind_is_dense() -> None:
    named = line(7, 'kind = "dense"\noutputs = 32')
    assert Spec.from_toml(named) == Spec.from_toml(TEXT)
    assert Spec.from_toml(named).lineage == Spec.from_toml(TEXT).lineage


@pytest.mark.parametrize(
    ("number", "new", "where", "reason"),
    [
        (6, 'kind = "lstm"', "", "kind must be 'dense', 'conv', 'depthwise' or 'pool'"),
        (6, "kind = 7", "", "kind must be 'dense', 'conv', 'depthwise' or 'pool'"),
        (KERNEL, "kernel = 2", "3.kernel", "should be 1 or 3"),
        (STRIDE, "stride = 0", "0.stride", "greater than or equal to 1"),
        (STRIDE, "stride = 9", "0.stride", "less than or equal to 8"),
        (STRIDE, "size = 2", "0.size", "is not a setting of a spec"),
        (9, "outputs = 2049", "0.outputs", "less than or equal to 2048"),
        (13, "kernel = 1", "1.kernel", "should be 3"),
        (13, "outputs = 8", "1.outputs", "is not a setting of a spec"),
        (SIZE, "size = 3", "2.size", "should be 2 or 4"),
        (SIZE, "size = 2\nlocal = true", "2.local", "is not a setting of a spec"),
        (SIZE, 'size = 2\nactivation = "relu"', "2.activation", "is not a setting of a spec"),
    ],
)
def test_a_wrong_layer_is_named_with_its_line(
    number: int, new: str, where: str, reason: str
) -> None:
    told = refusal(cnn(number, new)).splitlines()
    at = number + new.count("\n")
    if not where:  # Nothing in the table can be judged before its kind is known.
        at, where = number - 1, "0"
    start = f"fleet.toml:{at}: model.layers.{where}: "
    assert any(one.startswith(start) and reason in one for one in told), told


def test_a_layer_that_lacks_a_setting_is_named() -> None:
    assert refusal(cnn(KERNEL, "")) == "fleet.toml:18: model.layers.3.kernel: is missing"
    assert refusal(cnn(SIZE, "")) == "fleet.toml:15: model.layers.2.size: is missing"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(
            cnn(3, "inputs = [14, 2, 2]"),
            "layer 0 (conv): its 3 x 3 windows do not fit into the 14 x 2 pixels below it",
            id="a convolution",
        ),
        pytest.param(
            cnn(3, "inputs = 364"),
            "layer 0 (conv): its 3 x 3 windows do not fit into the 1 x 1 pixels",
            id="no grid at all",
        ),
        pytest.param(
            cnn(STRIDE, "stride = 8"),
            "layer 1 (depthwise): its 3 x 3 windows do not fit into the 2 x 2 pixels",
            id="a depthwise convolution",
        ),
        pytest.param(
            cnn(STRIDE, "stride = 4"),
            "layer 2 (pool): its 2 x 2 windows do not fit into the 1 x 1 pixels",
            id="a pool",
        ),
        pytest.param(
            cnn(3, "inputs = [9, 9, 3641]"),
            "layer 0 (conv): 32769 products in a sum",
            id="too many products in a window",
        ),
        pytest.param(
            TEXT.replace("inputs = 1", "inputs = [200, 200, 1]"),
            "layer 0 (dense): 40000 products in a sum",
            id="too many products in a row",
        ),
        pytest.param(
            cnn(STRIDE, "stride = 1").replace("outputs = 8", "outputs = 228"),
            "layer 0 (conv): 228 outputs share an input",
            id="too many windows meet",
        ),
    ],
)
def test_what_cannot_be_computed_is_refused(text: str, reason: str) -> None:
    told = refusal(text)
    assert re.match(r"fleet\.toml:[23]: model: layer ", told), told
    assert reason in told


def test_the_widest_convolution_is_taken() -> None:
    text = cnn(STRIDE, "stride = 1").replace("outputs = 8", "outputs = 227")
    text = text.replace("[model]", "heap = 100_000_000\n[model]")
    assert Spec.from_toml(text).layers[0].error_shift == fixed.WEIGHT_BITS - 1


# --- Things that do not go together


@pytest.mark.parametrize(
    ("text", "where", "reason"),
    [
        pytest.param(
            line(11, 'activation = "relu"'),
            "3: model",
            "last layer must be dense",
            id="a ReLU last",
        ),
        pytest.param(
            CNN[: CNN.index('[[model.layers]]\nkind = "dense"')] + CNN[CNN.index("[training]") :],
            "2: model",
            "last layer must be dense",
            id="a convolution last",
        ),
        pytest.param(
            cnn(CNN.splitlines().index("local = true") + 1, ""),
            "2: model",
            "no layer is local",
            id="nothing local but a pool",
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
        pytest.param(
            line(7, "outputs = 2000").replace("inputs = 1", "inputs = 16"),
            "1",
            "bytes of heap (",
            id="too large for a board",
        ),
    ],
)
def test_settings_must_go_together(text: str, where: str, reason: str) -> None:
    told = refusal(text)
    assert told.startswith(f"fleet.toml:{where}: ")
    assert reason in told


def test_the_largest_that_fits_is_taken() -> None:
    roomy = line(4, "inputs = 2046").replace("seed = 1", "heap = 1_000_000")
    assert Spec.from_toml(roomy).global_count == 65504
    assert Spec.from_toml(line(10, "outputs = 63")).training.support * 63 == 2016
    # Cross-entropy is one sum a sample, whatever the classes.
    many = line(10, "outputs = 64").replace('"mse"', '"cross_entropy"')
    assert Spec.from_toml(many.replace("support = 32", "support = 2047")).plan.support == 2047


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


@pytest.mark.parametrize("name", ["sine", "omniglot", "keywords"])
def test_a_spec_is_read_from_json_as_the_journal_keeps_it(name: str) -> None:
    spec = Spec.from_file(PROJECT / "specs" / f"{name}.toml")
    again = Spec.model_validate_json(spec.model_dump_json())
    assert again == spec
    assert again.lineage == spec.lineage


@pytest.mark.parametrize("name", ["sine", "omniglot", "keywords"])
def test_a_plan_tells_the_layers(name: str) -> None:
    spec = Spec.from_file(PROJECT / "specs" / f"{name}.toml")
    assert tuple(map(LayerShape.of_plan, spec.plan.layers)) == spec.layers
