"""What a sensor may say: taken in exactly, or skipped and counted; and the board goes on."""

import json
import math
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localfleet import processes
from localfleet.parts import Bits
from protocol import fixed
from runtime.watcher import Watcher
from simulation.replay import make_case, make_spec, replay
from tests.conftest import Broker
from tests.support.fleet import Fleet
from tests.support.parts import on_both_boards, run_board
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.real

MOST = fixed.ACTIVATION_MAX
THREE = [512, 1280, -1536]
TAKEN = {
    "a number each": [[256], [-512]],
    "a list each": [[256], [-512]],
    "a number and a list": [[256], [-512]],
    "lists": [THREE, [0, 128]],
    "a tuple and an array": [THREE, [0, 128]],
    "an array of doubles": [THREE, [0, 128]],
    "an array of integers": [[512, 1024, -1536], [0, 512]],
    "beyond the range": [[MOST, -MOST, MOST], [MOST, -MOST]],
    "the network's own format": [[0, 0, 512], [0, 512]],
    "a class": [[512, 1024, 1536], [3]],
    "the first class": [[512, 1024, 1536], [0]],
}
REFUSED = {
    "not a number": "x or y is not a finite number|x.0. is not a finite number",
    "no number for a label": "x or y is not a finite number|y.0. is not a finite number",
    "infinite": "not a finite number",
    "an integer too large for a float": "not a finite number",
    "not a number within": r"x\[1\] is not a finite number",
    "infinite within an array": r"x\[2\] is not a finite number",
    "an infinite label": r"y\[1\] is not a finite number",
    "too short": "x has 2 values; the model takes 3",
    "too long": "x has 4 values; the model takes 3",
    "empty": "x has 0 values; the model takes 3",
    "a label too short": "y has 1 values; the model takes 2",
    "several for a number": "x has 2 values; the model takes 1",
    "another model's format": "x has 4 values; the model takes 3",
    "a class too high": "y is class 4; the last is 3",
    "a class below zero": "y is class -1; the last is 3",
    "half a class": "y must be a class, an integer from 0 to 3",
    "no class": "y must be a class, an integer from 0 to 3",
    "a class in a list": "y must be a class, an integer from 0 to 3",
}
NO_NUMBERS = {
    *("a number for several", "nothing", "nothing for a label", "nothing for a number"),
    *("a text", "a text for a number", "lists in a list"),
}


@on_both_boards
def test_a_sample_is_taken_exactly_or_refused_with_the_reason(bits: Bits) -> None:
    correct = run_board("samples.py", bits, "odd", heap="256k")
    assert {name for name, *_ in correct} == TAKEN.keys() | REFUSED.keys() | NO_NUMBERS
    for name, *rest in correct:
        if name in TAKEN:
            assert rest == TAKEN[name], name
        elif name in NO_NUMBERS:
            assert rest[0] == "TypeError", name
        else:
            assert rest[0] == "ModelError", name
            assert re.search(REFUSED[name], rest[1]), (name, rest)


@on_both_boards
def test_a_network_learns_the_same_from_numbers_and_from_activations(bits: Bits) -> None:
    """Activations stay in the words of their object, and a board may have several objects."""
    correct = run_board("samples.py", bits, "forms", heap="256k")
    assert len(correct) == 3
    for from_numbers, from_both in correct:
        assert from_both == from_numbers


# --- Counts of a converter


def activations_of(counts: list[int], scale: float, offset: int) -> tuple[list[int], list[int]]:
    """What a board's converter must make of counts: its table, and the activations.

    scale * 512 is a mantissa of 14 bits over a power of two of at most 2**30.
    """
    shift = min(30, 13 - math.floor(math.log2(scale * 512)))
    mantissa = math.floor(scale * 512 * 2**shift + 0.5)
    away = np.clip(np.array(counts) - offset, -65535, 65535)
    words = (away * mantissa + (1 << shift >> 1)) >> shift
    return [mantissa, shift], np.clip(words, -MOST, MOST).tolist()


def bits_of(scale: float) -> int:
    bits: int = struct.unpack("<I", struct.pack("<f", scale))[0]
    return bits


def conversions() -> list[tuple[float, int, bool, list[int]]]:
    """Scales from end to end, exact in float32: boards have no more."""
    rng = np.random.default_rng(4)
    ends = [-32768, -32767, -1, 0, 1, 32766, 32767]
    unsigned_ends = [0, 1, 2, 32767, 32768, 65534, 65535]
    scales = [16.0, 1.0, 1 / 512, 3 / 1024, 1 / 32768, 2.0**-25, 2.0**-40, 1.5e-9]
    scales += [float(scale) for scale in 2.0 ** rng.uniform(-28, 4, 40)]
    made: list[tuple[float, int, bool, list[int]]] = []
    for scale in scales:
        narrow = float(np.float32(scale))
        for offset in (0, 2048, -65536, 65536, 32768):
            some = [*ends, *rng.integers(-32768, 32768, 20).tolist()]
            others = [*unsigned_ends, *rng.integers(0, 65536, 20).tolist()]
            made += [(narrow, offset, True, some), (narrow, offset, False, others)]
    return made


@on_both_boards
def test_counts_are_scaled_rounded_and_saturated(bits: Bits, tmp_path: Path) -> None:
    cases = conversions()
    odd = [(0.0, 0, True, [1]), (-1.0, 0, True, [1]), (16.5, 0, True, [1]), (1.0, 65537, True, [1])]
    lines = [json.dumps([bits_of(scale), *case]) for scale, *case in cases + odd]
    (tmp_path / "counts").write_text("\n".join(lines) + "\n")
    correct = run_board("samples.py", bits, "counts", tmp_path / "counts", heap="256k")
    for (scale, offset, is_signed, counts), answer in zip(cases, correct, strict=False):
        table, words = activations_of(counts, scale, offset)
        assert answer == [[*table, offset, int(is_signed)], words], (scale, offset)
        # And that is what the scale means, to a unit.
        exact = np.clip((np.array(counts) - offset) * scale * 512, -MOST, MOST)
        near = np.abs(np.array(counts) - offset) <= 65535
        assert (np.abs(words - exact)[near] <= 1).all(), (scale, offset)
    assert correct[len(cases) :] == [
        *("scale must be above 0 and at most 16, not " + text for text in ("0.0", "-1.0", "16.5")),
        "offset must be from -65536 to 65536, not 65537",
        # Buffers of another length, and what is no buffer: see tests/board/samples.py.
        *("ModelError", "ModelError", "ModelError", "TypeError", "TypeError", "TypeError"),
    ]


# --- A stream that says the same for ever


@on_both_boards
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_a_constant_stream_saturates_nothing_that_wraps(
    bits: Bits, loss: str, tmp_path: Path
) -> None:
    # A sensor that is stuck at its end, and a label at the other, hundreds of times over.
    layers: list[Any] = [(6, True, False), (3, False, False), (2, False, True)]
    spec = make_spec(4, layers, loss=loss, support=300, query=300, rate_local=0.5, rate_global=0.5)
    cases = []
    for value, label in ((16.0, -16.0), (0.0, 16.0), (-16.0, 0.0)):
        x = np.full((600, 4), value)
        y = np.full((600, 2), label) if loss == "mse" else np.ones(600, np.int64)
        cases.append(make_case(spec, spec.start(), 3, x, y))
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    correct = run_board("replay.py", bits, tmp_path / "cases.json", heap="32M")
    assert correct == [replay(spec, case) for case in cases]
    for answer in correct:
        assert max(map(abs, [*answer["phi"], *answer["theta"]])) <= 2**15


# --- Through a real broker

SPEC = """
fleet = "odd"
seed = 3
[model]
inputs = 1
loss = "mse"
[[model.layers]]
outputs = 8
activation = "relu"
[[model.layers]]
outputs = 1
activation = "none"
local = true
[training]
support = 5
query = 6
rate_local = 0.02
rate_global = 0.02
percent = 50
[rounds]
count = 3
cohort = 2
deadline = 2
step_max = 1.0
percent_down = 100
"""
BOARDS = ["board-a", "board-b"]
ODD = 7
"""Odd samples in each round, see tests/board/odd_main.py."""


def test_odd_samples_are_skipped_and_counted_and_change_nothing(
    tmp_path: Path, broker: Broker
) -> None:
    """Between sound samples come odd ones, and the sensor fails now and then. In the last round one
    board's stream ends: it leaves, and nobody waits for it.
    """
    fleet = Fleet(tmp_path, broker, SPEC, BOARDS, "odd_main.py")
    leaver = fleet.boards["board-b"]
    short = tmp_path / "board-b" / "samples-2"
    short.write_text("\n".join(short.read_text().splitlines()[:7]) + "\n")
    skipped = f"skipped {ODD * fleet.spec.rounds.count}"
    with processes.stopping(fleet.programs):
        fleet.start()
        with Watcher(broker.port, fleet.topics) as watcher:
            progress = fleet.wait_until_done(watcher)
        for name in BOARDS:
            log = fleet.wait_for_line(name, skipped)
            assert log.count("a sample is skipped") == 1  # The others are only counted.
        assert "the samples have ended" in fleet.wait_for_line("board-b", "ended")
        assert leaver.process is not None
        assert leaver.process.wait(PATIENCE) == 0
    assert progress.accepted == 2 * fleet.spec.rounds.count - 1
    assert fleet.cohorts() == [set(BOARDS), set(BOARDS), {"board-a"}]
    fleet.assert_equals_oracle()


def test_a_board_whose_samples_end_early_sits_that_round_out(
    tmp_path: Path, broker: Broker
) -> None:
    """A function of the round has too few for round 1; for round 2 it has enough again."""
    fleet = Fleet(tmp_path, broker, SPEC, BOARDS)
    short = tmp_path / "board-b" / "samples-1"
    short.write_text("\n".join(short.read_text().splitlines()[:7]) + "\n")
    with processes.stopping(fleet.programs):
        fleet.start()
        with Watcher(broker.port, fleet.topics) as watcher:
            fleet.wait_until_done(watcher)
        fleet.wait_for_line("board-b", "round 1: its samples ended early")
    assert fleet.cohorts() == [set(BOARDS), {"board-a"}, set(BOARDS)]
    fleet.assert_equals_oracle()
