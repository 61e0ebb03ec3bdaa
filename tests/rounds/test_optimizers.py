"""Each optimizer against its paper, written out plainly; and its memory across a restart."""

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from protocol.fixed import WEIGHT_BITS
from protocol.spec.spec import Spec
from protocol.spec.strategy import Optimizer as Settings
from rounds.model import GlobalModel
from rounds.optimizers import Floats, Momentum, cosine_step
from tests.rounds.network import SPEC, changes

UNIT = 2.0**-WEIGHT_BITS
RULES = ["step", "avgm", "adagrad", "adam", "yogi"]


def spec(**optimizer: Any) -> Spec:
    settings = SPEC.rounds.model_dump(exclude_defaults=True) | {"optimizer": optimizer}
    return Spec.model_validate(
        {
            "fleet": SPEC.fleet,
            "model": SPEC.model,
            "training": SPEC.training,
            "rounds": settings,
        }
    )


def trajectory(steps: list[tuple[int, float]], **optimizer: Any) -> list[Floats]:
    """Where the first ten parameters of the model go, in weight values."""
    model = GlobalModel(spec(**optimizer))
    found = []
    for seed, step in steps:
        before = model.fine.copy()
        model.advance(changes(seed).astype(float), step)
        found.append((model.fine - before)[:10] * UNIT)
    return found


def deltas(seed: int) -> list[float]:
    return [float(change) * UNIT for change in changes(seed)[:10]]


# Small enough that no weight comes to the end of its range, where it would be clipped.
steps = st.lists(st.tuples(st.integers(0, 1000), st.floats(0, 0.1)), min_size=1, max_size=6)


@given(steps, st.floats(0, 0.99))
def test_avgm_is_that_of_hsu_et_al_2019(steps: list[tuple[int, float]], beta: float) -> None:
    """v <- beta v + delta, w <- w + eta v: section 4.3, eta being 1 there."""
    v = [0.0] * 10
    for found, (seed, eta) in zip(
        trajectory(steps, rule="avgm", momentum=beta), steps, strict=True
    ):
        v = [beta * old + delta for old, delta in zip(v, deltas(seed), strict=True)]
        np.testing.assert_allclose(found, [eta * each for each in v], atol=1e-12)


def adagrad(v: float, delta: float, _beta2: float) -> float:
    return v + delta**2


def adam(v: float, delta: float, beta2: float) -> float:
    return beta2 * v + (1 - beta2) * delta**2


def yogi(v: float, delta: float, beta2: float) -> float:
    sign = (v > delta**2) - (v < delta**2)
    return v - (1 - beta2) * delta**2 * sign


@pytest.mark.parametrize("second", [adagrad, adam, yogi], ids=lambda second: second.__name__)
@given(steps=steps, beta1=st.floats(0, 0.99), beta2=st.floats(0, 0.99), tau=st.floats(1e-4, 0.1))
def test_adaptive_rules_are_those_of_reddi_et_al_2021(
    second: Callable[[float, float, float], float],
    steps: list[tuple[int, float]],
    beta1: float,
    beta2: float,
    tau: float,
) -> None:
    """Algorithm 2, with v from tau squared, the least that it allows."""
    settings = {"rule": second.__name__, "beta1": beta1, "tau": tau}
    if second is not adagrad:
        settings["beta2"] = beta2
    m, v = [0.0] * 10, [tau**2] * 10
    for found, (seed, eta) in zip(trajectory(steps, **settings), steps, strict=True):
        for i, delta in enumerate(deltas(seed)):
            m[i] = beta1 * m[i] + (1 - beta1) * delta
            if second is yogi:  # Where both are alike, a rounding decides the sign.
                assume(abs(v[i] - delta**2) > 1e-3 * delta**2)
            v[i] = second(v[i], delta, beta2)
            assert found[i] == pytest.approx(eta * m[i] / (sqrt(v[i]) + tau), abs=1e-9)


@pytest.mark.parametrize("rule", RULES)
def test_a_restart_changes_no_bit(rule: str) -> None:
    its = spec(rule=rule)
    model = GlobalModel(its)
    for seed in range(3):
        model.advance(changes(seed).astype(float), 0.01)
    copy = GlobalModel.restore(
        its, 3, model.fine.tobytes(), model.published.tobytes(), model.optimizer_state
    )
    one, other = (each.advance(changes(3).astype(float), 0.01) for each in (model, copy))
    assert one == other
    assert model.fine.tobytes() == copy.fine.tobytes()
    assert model.optimizer_state == copy.optimizer_state


def test_another_optimizer_starts_afresh() -> None:
    model = GlobalModel(spec(rule="adagrad"))
    model.advance(changes(0).astype(float), 0.01)
    saved = model.fine.tobytes(), model.published.tobytes()
    copy = GlobalModel.restore(spec(rule="yogi"), 1, *saved, model.optimizer_state)
    assert copy.fine.tobytes() == saved[0]
    assert copy.optimizer_state == GlobalModel(spec(rule="yogi")).optimizer_state


@pytest.mark.parametrize("rule", RULES)
def test_a_round_without_a_change_teaches_nothing(rule: str) -> None:
    model = GlobalModel(spec(rule=rule))
    model.advance(changes(0).astype(float), 0.01)
    fine, state = model.fine.tobytes(), model.optimizer_state
    model.advance(None, 0.01)
    assert (model.version, model.fine.tobytes(), model.optimizer_state) == (2, fine, state)


# --- The step


def test_the_step_falls_along_half_a_cosine() -> None:
    rules = SPEC.rounds
    assert cosine_step(rules, 0) == 2.0
    assert cosine_step(rules, 5) == pytest.approx(1.25)
    assert cosine_step(rules, 10) == pytest.approx(0.5)
    steps = [cosine_step(rules, round_) for round_ in range(11)]
    assert steps == sorted(steps, reverse=True)


def test_a_step_without_swing_is_constant() -> None:
    rules = SPEC.rounds.model_copy(update={"step_max": 0.5, "step_min": 0.5})
    assert {cosine_step(rules, round_) for round_ in range(7)} == {0.5}


def test_a_models_own_optimizer_goes_on_in_its_copy_and_starts_afresh_with_other_weights() -> None:
    own = Momentum(Settings(rule="avgm", momentum=0.5))
    by_spec = GlobalModel(spec(rule="avgm", momentum=0.5))
    by_object = GlobalModel(SPEC, own)  # Whose spec has the plain step.
    for seed in (1, 2):
        by_spec, by_object = by_spec.copy(), by_object.copy()
        for model in (by_spec, by_object):
            model.advance(changes(seed).astype(float), 0.05)
        assert by_object.fine.tobytes() == by_spec.fine.tobytes()
    weights = SPEC.start()
    afresh = by_object.replaced(weights)
    afresh.advance(changes(3).astype(float), 0.05)
    assert afresh.version == by_object.version + 2
    np.testing.assert_allclose(afresh.fine, weights + 0.05 * changes(3))
