"""What a few seeds say: a mean, and how far the true one may lie from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, and how far the true one may lie from it."""

    mean: float
    ci95: float
    """Half of the 95 % interval (Student's t); 0 of a single value, of which nothing is known."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Of the same figure of several seeds."""
        mean = float(np.mean(values))
        if len(values) < 2:
            return cls(mean, 0.0)
        from scipy.stats import t as student  # noqa: PLC0415 - slow to load

        quantile = float(student.ppf(0.975, len(values) - 1))
        return cls(mean, quantile * float(np.std(values, ddof=1)) / math.sqrt(len(values)))

    def text(self, form: str = ".3f") -> str:
        """As a table shows it."""
        return f"{self.mean:{form}} ± {self.ci95:{form}}"
