"""What a command imports and may not find: a package of an extra, or a package of ours."""

import sys
from importlib.util import find_spec
from typing import Final

EXTRAS: Final = {
    "operator": ("mpremote",),
    "gateway": (),
    "privacy": ("dp_accounting",),
    "research": ("matplotlib", "optuna", "PIL", "scipy", "tomlkit"),
}
"""The extras of pyproject.toml, each with the modules that it brings."""
ROOMS: Final = (
    "aggregator",
    "cli",
    "experiments",
    "localfleet",
    "protocol",
    "provision",
    "rounds",
    "runtime",
    "simulation",
    "tuning",
)
"""The packages that are installed."""


def need(extra: str) -> None:
    """Make sure that an extra is installed, before any work is done that would be lost.

    Raises:
        ModuleNotFoundError: it is not; :func:`explained` says what to do.
    """
    for module in EXTRAS[extra]:
        if find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)


def explained(error: ImportError) -> str | None:
    """What an import that failed means, and what to do; None where nothing is known of it."""
    package = (error.name or "").partition(".")[0]
    for extra, modules in EXTRAS.items():
        if package in modules:
            return f"this needs {package}: pip install 'tinymetafed[{extra}]'"
    if package in ROOMS:
        found = getattr(sys.modules.get(package), "__file__", None) or "nowhere"
        return (
            f"{error}; Python found {package} at {found}: if that is another project's, install "
            f"TinyMetaFed into an environment of its own, as pipx and uv do"
        )
    return None
