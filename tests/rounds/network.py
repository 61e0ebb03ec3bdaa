"""A small network, and changes of it."""

import numpy as np
from numpy.typing import NDArray

from tests.support.specs import head, make_spec, relu

SPEC = make_spec(
    layers=(relu(200), relu(10), head(2)), count=10, cohort=3, deadline=20, step_min=0.5
)
SIZE = SPEC.global_count


def changes(seed: int, largest: int = 300) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(-largest, largest, SIZE)
