"""How host code is written, where ruff has no rule for it."""

import ast
from collections.abc import Iterator

import pytest

from localfleet.processes import PROJECT
from tests.architecture.sources import BOARDS, modules, packages, parsed

MOST_LINES = 60

FILES = [
    path
    for room in [*packages(), "benchmarks", "tools"]
    for path in modules(room).values()
    if path.parent.name != "on_board"  # Scripts of another language: a call costs a board time.
] + [PROJECT / BOARDS / "build.py"]

Function = ast.FunctionDef | ast.AsyncFunctionDef


def nodes() -> Iterator[tuple[str, ast.AST]]:
    """Every node of the host's code, and in which file it is."""
    for path in FILES:
        name = str(path.relative_to(PROJECT))
        yield from ((name, node) for node in ast.walk(parsed(path)))


def lines(function: Function) -> int:
    """Of its body, without the docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_no_function_is_too_long_to_be_read_at_once() -> None:
    long = [
        f"{file}:{node.lineno}: {node.name} has {lines(node)} lines"
        for file, node in nodes()
        if isinstance(node, Function) and lines(node) > MOST_LINES
    ]
    assert not long, "\n".join(long)


def unpacked_literals(argument: ast.AST) -> Iterator[int]:
    """Lines at which it spreads a tuple or list that stands there."""
    if isinstance(argument, ast.Starred):
        if isinstance(argument.value, ast.Tuple | ast.List):
            yield argument.lineno
        argument = argument.value
    if isinstance(argument, ast.Tuple | ast.List | ast.Set):
        for element in argument.elts:
            yield from unpacked_literals(element)


def arguments(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(keyword.value for keyword in call.keywords)]


def test_no_call_spreads_a_literal() -> None:
    """Of `f(*(a, b), c)` nobody can say which value is which parameter."""
    found = [
        f"{file}:{line}"
        for file, node in nodes()
        if isinstance(node, ast.Call)
        for argument in arguments(node)
        for line in unpacked_literals(argument)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "code", ["f(*(a, b), c)", "f([1, *[a, b]])", "f(x=((*(a, b),), 2))", "f(*[*(a, b)])"]
)
def test_a_spread_literal_is_found(code: str) -> None:
    call = ast.parse(code, mode="eval").body
    assert isinstance(call, ast.Call)
    assert any(line for argument in arguments(call) for line in unpacked_literals(argument))
