"""What a few seeds say is said with its interval."""

import pytest

from simulation.statistics import Estimate


def test_an_interval_is_students() -> None:
    # Five values: t = 2.776 for four degrees of freedom.
    estimate = Estimate.of([1.0, 2.0, 3.0, 4.0, 5.0])
    assert estimate.mean == 3.0
    assert estimate.ci95 == pytest.approx(2.7764 * (2.5 / 5) ** 0.5, rel=1e-4)
    assert Estimate.of([7.0]) == Estimate(7.0, 0.0)
