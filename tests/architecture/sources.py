"""The project's Python files, parsed, and who imports whom."""

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Final

from localfleet.processes import PROJECT

Graph = dict[str, set[str]]
"""By module, the modules that it imports."""

BOARDS: Final = "micropython_client"
ARCHITECTURE: Final = PROJECT / "docs" / "architecture.md"


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def tools() -> dict[str, Any]:
    """Settings of each tool, from pyproject.toml."""
    text = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    found: dict[str, Any] = tomllib.loads(text)["tool"]
    return found


def packages() -> list[str]:
    """The host's packages, as pyproject.toml installs them."""
    found = tools()["setuptools"]["packages"]["find"]["include"]
    return [name.removesuffix("*") for name in found]


def rooms() -> dict[str, set[str]]:
    """The table of rooms, from the lowest: what each may import besides itself."""
    text = ARCHITECTURE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)/` \|[^|]*\| ([^|]*) \|$", text, re.MULTILINE)
    allowed: dict[str, set[str]] = {}
    for room, names in rows:
        is_all = names == "all above"
        allowed[room] = set(allowed) if is_all else set(re.findall(r"`(\w+)`", names))
    return allowed


def modules(folder: str, root: Path = PROJECT) -> dict[str, Path]:
    """A folder's modules by their full name; a package goes by its own, without `__init__`."""
    found = {}
    for path in sorted((root / folder).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(tree: ast.AST, known: dict[str, Path]) -> Iterator[str]:
    """Which of these modules a tree imports, wherever: in functions and for types, too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import; write the whole name"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if name in known:
                    yield name
                elif node.module in known:
                    yield node.module


def graph(known: dict[str, Path]) -> Graph:
    return {name: set(imported(parsed(path), known)) - {name} for name, path in known.items()}


def circle(imports: Graph) -> list[str]:
    """Modules that import each other in a circle, the first once more at the end; or none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []
