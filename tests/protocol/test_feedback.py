"""Error feedback: what an update leaves unsent comes with a later one, and nothing counts twice."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localfleet.parts import Bits
from localfleet.processes import PROJECT
from protocol import feedback, fixed, sparse
from protocol.messages import Receipt, Round
from protocol.spec.spec import Spec
from tests.conftest import Broker
from tests.support.parts import on_both_boards, run_board

CASES = 60
each_width = pytest.mark.parametrize("value_bits", sparse.VALUE_BITS)


def dense(block: bytes, tensors: tuple[int, ...]) -> Any:
    changes = np.zeros(sum(tensors), np.int64)
    indices, values = sparse.decode(block, tensors)
    changes[indices] = values
    return changes


@each_width
def test_a_change_that_is_never_among_the_largest_arrives_in_the_end(value_bits: int) -> None:
    # One parameter moves by 100 in each round, the others by 30: only one may be sent at a time.
    changes = np.array([100, 30, 30, 30])
    residual = np.zeros(4, np.int16)
    arrived = np.zeros(4, np.int64)
    for _ in range(100):
        block, residual = feedback.encode(changes, residual, 1, (4,), value_bits)
        arrived += dense(block, (4,))
    without = sparse.top_indices(changes, 1)
    assert without.tolist() == [0]
    assert (np.abs(arrived - 100 * changes) < 400).all()


def test_what_rounding_takes_arrives_in_the_end() -> None:
    # Beside a change of 700, in 4 bits a step is 128: a change of 50 rounds to nothing each time.
    changes = np.array([700, 50])
    residual = np.zeros(2, np.int16)
    alone, together = np.zeros(2, np.int64), np.zeros(2, np.int64)
    for _ in range(100):
        alone += dense(sparse.encode(changes, np.array([0, 1]), (2,), 4), (2,))
        block, residual = feedback.encode(changes, residual, 2, (2,), 4)
        together += dense(block, (2,))
    assert alone[1] == 0
    assert (np.abs(together - 100 * changes) <= 64).all()


@given(
    tensors=st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple),
    value_bits=st.sampled_from(sparse.VALUE_BITS),
    share=st.sampled_from([0.05, 0.3, 1]),
    lost=st.sampled_from([0, 0.3]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=100)
def test_what_was_sent_and_what_is_left_is_all_there_was(
    tensors: tuple[int, ...], value_bits: int, share: float, lost: float, seed: int
) -> None:
    # Small enough that nothing saturates; some updates never leave the board.
    rng = np.random.default_rng(seed)
    parameters = sum(tensors)
    top = sparse.top_count(parameters, 100 * share)
    residual = np.zeros(parameters, np.int16)
    sent, wanted = np.zeros(parameters, np.int64), np.zeros(parameters, np.int64)
    for _ in range(40):
        changes = rng.integers(-300, 301, parameters)
        wanted += changes
        before = residual
        block, residual = feedback.encode(changes, residual, top, tensors, value_bits)
        if rng.random() < lost:
            residual = feedback.take_back(residual, block, tensors)
            assert (residual == before + changes).all()
        else:
            sent += dense(block, tensors)
        assert (sent + residual == wanted).all()


@pytest.mark.parametrize(("sign", "end"), [(1, fixed.WEIGHT_MAX), (-1, fixed.WEIGHT_MIN)])
def test_a_residual_saturates_and_does_not_wrap(sign: int, end: int) -> None:
    # Three parameters move as far as any can, again and again, and only one may be sent.
    largest = np.full(3, sign * sparse.LARGEST)
    residual = np.zeros(3, np.int16)
    for _ in range(4):
        _, residual = feedback.encode(largest, residual, 1, (3,), 16)
        assert (sign * residual.astype(int) >= -1).all()  # Of what was sent, rounding is left.
        assert end in residual


# --- The board's half


def make_case(rng: np.random.Generator) -> dict[str, Any]:
    """Rounds of one board: where its parameters ended, and whether the update left it."""
    tensors = rng.integers(1, 60, rng.integers(1, 4)).tolist()
    parameters = sum(tensors)
    amplitude = int(rng.choice([1, 10, 500, 20_000, 2**15]))
    base = rng.integers(-amplitude, amplitude, parameters)
    moves = rng.integers(-amplitude, amplitude, (8, parameters))
    moves[rng.random(moves.shape) < rng.choice([0, 0.5, 0.95])] = 0
    thetas = np.clip(base + moves, fixed.WEIGHT_MIN, fixed.WEIGHT_MAX)
    if rng.random() < 0.2:  # As far as any parameter can move, again and again.
        thetas = np.where(base < 0, fixed.WEIGHT_MAX, fixed.WEIGHT_MIN) + 0 * moves
        base = np.where(base < 0, fixed.WEIGHT_MIN, fixed.WEIGHT_MAX)
    return {
        "tensors": tensors,
        "base": base.tolist(),
        "value_bits": int(rng.choice(sparse.VALUE_BITS)),
        "top": int(rng.integers(1, parameters + 1)),
        "rounds": [(theta.tolist(), bool(rng.random() < 0.8)) for theta in thetas],
    }


def play(case: dict[str, Any]) -> list[Any]:
    """As tests/board/feedback.py does."""
    residual = np.zeros(len(case["base"]), np.int16)
    rounds = []
    for theta, is_sent in case["rounds"]:
        block, residual = feedback.encode(
            np.array(theta) - case["base"],
            residual,
            case["top"],
            case["tensors"],
            case["value_bits"],
        )
        if not is_sent:
            residual = feedback.take_back(residual, block, case["tensors"])
        rounds.append([block.hex(), residual.tolist()])
    return rounds


@pytest.mark.real
@on_both_boards
def test_a_board_sends_and_keeps_the_same(bits: Bits, tmp_path: Path) -> None:
    rng = np.random.default_rng(19)
    cases = [make_case(rng) for _ in range(CASES)]
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    answers = run_board("feedback.py", bits, tmp_path / "cases.json")
    left = set()
    for number, (case, answer) in enumerate(zip(cases, answers, strict=True)):
        expected = play(case)
        assert answer == expected, f"case {number}"
        left |= set(expected[-1][1])
    assert {fixed.WEIGHT_MIN, fixed.WEIGHT_MAX} <= left  # Else this never saturates.


@pytest.mark.real
@on_both_boards
def test_an_update_is_taken_back_only_if_it_was_never_sent(bits: Bits, broker: Broker) -> None:
    """Its round is over: before it could be sent, after it was sent, and after its receipt."""
    spec = Spec.from_file(PROJECT / "specs" / "sine.toml")
    training = spec.training.model_copy(update={"error_feedback": True, "value_bits": 4})
    spec = spec.model_copy(update={"training": training})
    now, after = (
        Round(spec.lineage, number, 0, 2**32, 9000, b"", 0, 0, 0).pack() for number in (3, 4)
    )
    receipt = Receipt(spec.lineage, 3, ("one",)).pack()
    messages = [part.hex() for part in (spec.plan.pack(), now, after, receipt)]
    told = run_board("giving_up.py", bits, f"{broker.port}", spec.fleet, *messages)
    assert [outcome["case"] for outcome in told] == ["never sent", "sent", "journaled"]
    for outcome in told:
        changes = np.array(outcome["changes"])
        carried = dense(bytes.fromhex(outcome["block"]), spec.tensors)
        assert carried.any()
        left = changes if outcome["case"] == "never sent" else changes - carried
        assert outcome["residual"] == left.tolist()
