"""A fleet in one process, bit for bit as boards compute.

``simulate(Settings(spec=...))`` plays a whole run; docs/simulation.md says how, and how to bring
data and a strategy of one's own. Both names are loaded when they are asked for: who imports a part
of this package does not load the rest.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulation.settings import Settings
    from simulation.simulator import simulate

__all__ = ["Settings", "simulate"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attributes are of any type
    match name:
        case "Settings":
            return import_module("simulation.settings").Settings
        case "simulate":
            return import_module("simulation.simulator").simulate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
