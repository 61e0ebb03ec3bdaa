"""The typings of the boards' package say what its sources say, and an editor can use them.

A board cannot tell its functions' parameters, so the stubs are held against the sources: names,
parameters, defaults and docstrings; and against the package as real boards import it.
"""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from localfleet.parts import Bits
from localfleet.processes import PROJECT
from tests.support.parts import on_both_boards, run_board

SOURCES = PROJECT / "micropython_client" / "tinymetafed"
TYPINGS = PROJECT / "micropython_client" / "typings"
STUBS = sorted((TYPINGS / "tinymetafed").glob("*.pyi"))
Function = ast.FunctionDef | ast.AsyncFunctionDef

stubs = pytest.mark.parametrize("stub", STUBS, ids=lambda stub: stub.stem)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def source_of(stub: Path) -> ast.Module:
    return parsed(SOURCES / f"{stub.stem}.py")


def functions(of: ast.Module | ast.ClassDef) -> dict[str, Function]:
    return {node.name: node for node in of.body if isinstance(node, Function)}


def classes(of: ast.Module) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in of.body if isinstance(node, ast.ClassDef)}


def is_public(name: str) -> bool:
    return name == "__init__" or not name.startswith("_")


@dataclass(frozen=True)
class Signature:
    """What a stub and a source must have in common."""

    parameters: str
    is_async: bool
    decorators: tuple[str, ...]
    docstring: str | None

    @classmethod
    def of(cls, function: Function) -> "Signature":
        arguments = function.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            argument.annotation = None
        return cls(
            ast.unparse(arguments),
            isinstance(function, ast.AsyncFunctionDef),
            tuple(ast.unparse(decorator) for decorator in function.decorator_list),
            ast.get_docstring(function),
        )


def with_bases(name: str, module: ast.Module) -> Iterator[ast.ClassDef]:
    """A class of the sources and those of the package that it is made of."""
    found = classes(module).get(name)
    if found is None:
        imported = {
            alias.asname or alias.name: node.module
            for node in module.body
            if isinstance(node, ast.ImportFrom) and node.module
            for alias in node.names
        }
        if imported.get(name, "").startswith("tinymetafed."):
            yield from with_bases(name, parsed(SOURCES / f"{imported[name].split('.')[1]}.py"))
        return
    yield found
    for base in found.bases:
        if isinstance(base, ast.Attribute):
            yield from with_bases(base.attr, parsed(SOURCES / f"{ast.unparse(base.value)}.py"))
        else:
            yield from with_bases(ast.unparse(base), module)


def attributes(of: ast.ClassDef) -> set[str]:
    """Those that its constructor sets, and that have no underscore."""
    made = functions(of).get("__init__")
    return {
        node.attr
        for node in (ast.walk(made) if made else ())
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and ast.unparse(node.value) == "self"
        and is_public(node.attr)
    }


# --- Stub and source


@stubs
def test_a_module_says_the_same(stub: Path) -> None:
    """Its docstring, its public classes, and the functions that the stub has."""
    typed, source = parsed(stub), source_of(stub)
    assert ast.get_docstring(typed) == ast.get_docstring(source)
    for name, function in functions(typed).items():
        assert Signature.of(function) == Signature.of(functions(source)[name]), name
    wanted = {name for name in classes(source) if is_public(name)}
    if stub.stem != "inputs":  # The engine's own are there, too.
        assert set(classes(typed)) == wanted
    assert set(classes(typed)) <= wanted


@stubs
def test_a_class_says_the_same(stub: Path) -> None:
    """Each public method with its parameters, defaults and docstring, and each public attribute."""
    source = source_of(stub)
    for name, typed in classes(parsed(stub)).items():
        family = list(with_bases(name, source))
        assert ast.get_docstring(typed) == ast.get_docstring(family[0])
        inherited = {ast.unparse(base) for base in typed.bases} & {c.name for c in family[1:]}
        # What a base has that the stub names stands in that base's stub.
        own = [each for each in family if each.name not in inherited]
        methods = {
            method: function
            for each in reversed(own)
            for method, function in functions(each).items()
            if is_public(method)
        }
        if "__init__" not in functions(family[0]):
            methods.pop("__init__", None)
        assert set(functions(typed)) == set(methods), name
        for method, function in functions(typed).items():
            assert Signature.of(function) == Signature.of(methods[method]), f"{name}.{method}"
        annotated = {
            node.target.id
            for node in typed.body
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        }
        assert annotated == set().union(*(attributes(each) for each in own)), name


def test_the_states_are_those_of_the_table() -> None:
    (words,) = (
        node.value
        for node in parsed(SOURCES / "session.py").body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "STATES"
    )
    (typed,) = (
        node.value
        for node in parsed(TYPINGS / "tinymetafed" / "client.pyi").body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "_State"
    )
    assert isinstance(typed, ast.Subscript)
    assert ast.literal_eval(typed.slice) == ast.literal_eval(words)


# --- Boards and editors


@pytest.mark.real
@on_both_boards
def test_a_board_has_what_the_typings_name(bits: Bits, tmp_path: Path) -> None:
    """Every module, class, function and method, and what the package exports."""
    names: dict[str, list[str]] = {}
    for stub in STUBS:
        typed = parsed(stub)
        module = "tinymetafed" if stub.stem == "__init__" else f"tinymetafed.{stub.stem}"
        names[module] = [*functions(typed), *classes(typed)]
        names[module] += [f"{c.name}.{m}" for c in classes(typed).values() for m in functions(c)]
    (exported,) = (
        ast.literal_eval(node.value)
        for node in parsed(TYPINGS / "tinymetafed" / "__init__.pyi").body
        if isinstance(node, ast.Assign)
    )
    names["tinymetafed"] += [*exported, "__version__"]
    (tmp_path / "names.json").write_text(json.dumps(names))
    assert run_board("names.py", bits, tmp_path / "names.json") == []


PROGRAM = """
from array import array
from tinymetafed import Client, ModelError
from tinymetafed.samples import Counts
from tinymetafed.speech import Features

counts = Counts(8, 1 / 8192, 32768, is_signed=False)
buffer = array("H", range(8))
features = Features()


def samples():
    while True:
        yield counts.read(buffer), 2
        yield features, 3
        yield [0.5, 0.25], 1.0


def samples_of(round_: int):
    return samples()


client = Client({"broker": "mqtt://192.168.1.10", "fleet": "pumps"})
client.begin(samples(), battery=lambda: 87)
while client.state != "stopped":
    if not client.step(20) and client.state == "idle":
        client.rest()
client.run(samples_of, idle=lambda: print(client.predict(0.5), client.skipped))
"""
"""One that an editor finds nothing wrong with."""

MISTAKES = [
    ('client.state == "idle"', 'client.state == "raining"'),
    ("battery=lambda: 87", "battery=87"),
    ("client.step(20)", 'client.step("20")'),
    ("client.rest()", "client.sleep()"),
    ("client.run(samples_of,", "client.run([1, 2, 3],"),
    ("counts.read(buffer), 2", "counts.read(2), 2"),
]


def found_by_an_editor(program: Path) -> str:
    """What mypy has to say on it, with nothing but the typings."""
    options = ["--check-untyped-defs", "--strict-equality", "--no-incremental"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", *options, program],
        cwd=program.parent,
        env=os.environ | {"MYPYPATH": str(TYPINGS)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_an_editor_knows_the_package(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(PROGRAM)
    assert found_by_an_editor(tmp_path / "main.py").startswith("Success")


@pytest.mark.parametrize(("sound", "mistake"), MISTAKES)
def test_an_editor_sees_a_mistake(tmp_path: Path, sound: str, mistake: str) -> None:
    assert sound in PROGRAM
    (tmp_path / "main.py").write_text(PROGRAM.replace(sound, mistake))
    assert "Found 1 error in 1 file" in found_by_an_editor(tmp_path / "main.py")
