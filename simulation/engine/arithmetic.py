"""What boards compute with: fixed point, as they do, or float64, to hold it against."""

from __future__ import annotations

from typing import Final, Literal

from simulation.engine.fixed import Engine
from simulation.engine.float64 import FloatEngine

Arithmetic = Literal["fixed", "float64"]

ENGINES: Final[dict[Arithmetic, type[Engine | FloatEngine]]] = {
    "fixed": Engine,
    "float64": FloatEngine,
}
