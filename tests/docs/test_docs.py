"""What the documents say is so: links, commands, tables, figures and examples."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from cli import main
from cli.demo import _table
from localfleet import parts, processes
from localfleet.demo import Summary
from localfleet.processes import PROJECT
from protocol import sparse
from protocol.messages import Update
from protocol.spec.spec import Spec
from protocol.topics import Topics, shard_of
from tests.conftest import Broker
from tests.support.parts import compile_client, real
from tests.support.pins import MACHINE

PAGES = sorted(
    [PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    + list((PROJECT / "docs").glob("*.md"))
)
TOLERANCE = 0.1
"""By how much a measured figure may differ from the one written down."""

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def text_of(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The fenced code in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def code(text: str) -> list[str]:
    """Every line of code: fenced, indented, or between backticks."""
    fenced = "\n".join(blocks(text, "[a-z]*")).replace("\\\n", " ").splitlines()
    indented = re.findall(r"^    (\S.*)$", text, re.MULTILINE)
    return fenced + indented + re.findall(r"`([^`\n]+)`", text)


# --- Links, names, commands


@pages
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor:
            heads = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads]
            assert anchor in slugs, link


@pages
def test_named_files_exist(page: Path) -> None:
    folders = [path.name for path in PROJECT.iterdir() if path.is_dir() and path.name != "build"]
    named = re.findall(r"`([\w.-]+/[\w./-]*)`", page.read_text(encoding="utf-8"))
    for name in named:
        if name.split("/")[0] in folders and not name.startswith(".cache"):
            assert (PROJECT / name).exists(), name


@pages
def test_make_knows_the_targets(page: Path) -> None:
    known = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    for line in code(page.read_text(encoding="utf-8")):
        if match := re.match(r"make ((?:[a-z-]+ ?)+)", line):
            assert set(match[1].split()) <= known, line


SHOWN = ("serve", "demo", "simulate", "load", "fleet", "model", "board", "spec")


@pages
def test_the_command_knows_the_flags(page: Path) -> None:
    for line in code(page.read_text(encoding="utf-8")):
        if not (match := re.search(rf"(?:^|/)tinymetafed ((?:{'|'.join(SHOWN)}|-).*)", line)):
            continue
        subcommand, *words = shlex.split(match[1])
        command = main.loaded(subcommand)
        if hasattr(command, "commands") and words:
            names = words.pop(0).split("|")
            assert set(names) <= set(command.commands), line
            command = command.commands[names[0]]
        known = {flag for parameter in command.params for flag in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= known, line


# --- Tables


def test_the_generated_tables_are_what_the_code_says() -> None:
    command = [sys.executable, "tools/docs.py", "--check"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_topics_are_those_that_the_code_makes() -> None:
    shown = set(re.findall(r"^\| `(tmf/v1/[^`]*)` \|", text_of("docs/wire.md"), re.MULTILINE))
    topics = Topics("F")
    board, shard = "B", shard_of("B")
    made = {
        *(topics.plan, topics.round, topics.delta, topics.progress, topics.full("<chunk>")),
        *(topics.canary("<chunk>"), topics.command, topics.answer),
        *(topics.receipt(shard), topics.up(board), topics.state(board), topics.event(board)),
    }
    names = {"F": "<fleet>", board: "<board>", str(shard): "<shard>"}
    assert shown == {
        "/".join(names.get(level, level) for level in topic.split("/")) for topic in made
    }


def test_the_update_in_the_wire_format_is_one() -> None:
    payload = bytes.fromhex(text_of("docs/update.hex"))
    column = re.findall(r"^\| \d+ \| `([0-9a-f ]+)` \|", text_of("docs/wire.md"), re.MULTILINE)
    assert bytes.fromhex(" ".join(column)) == payload
    update = Update.unpack(payload)
    spec = Spec.from_file(PROJECT / "specs" / "sine.toml")
    assert update.lineage == spec.lineage
    decoded = sparse.decode(update.changes, spec.tensors)
    assert len(decoded.indices) == spec.plan.top
    assert list(decoded.indices[:2]) == [20, 36]  # Read by hand in the text.


def test_the_readme_shows_the_demos_table() -> None:
    summary = Summary(8, 300, 0, 0, 0, 0, 1, 0, 0, 0)
    console = Console(width=200)
    with console.capture() as capture:
        console.print(_table(summary))
    labels = re.findall(r"^│ ([^│]*?) +│", capture.get(), re.MULTILINE)
    assert len(labels) > 5
    readme = text_of("README.md")
    assert [label for label in labels if f"│ {label} " not in readme] == []


# --- Figures


def about(figure: int) -> object:
    return pytest.approx(figure, rel=TOLERANCE)


def heap_figures(script: Path) -> dict[str, int]:
    """What a script of names and figures prints on a 32-bit board with the compiled client."""
    compile_client()
    micropython = real(lambda: parts.micropython(32))
    environment = real(lambda: processes.micropython_path(32))
    done = subprocess.run(
        [*micropython, "-X", f"heapsize={processes.HEAP[32]}", script],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    printed = re.findall(r"^(.*) (\d+)$", done.stdout, re.MULTILINE)
    return {name: int(figure) for name, figure in printed}


@pytest.mark.real
def test_the_board_takes_the_heap_that_is_written_down(tmp_path: Path) -> None:
    page = text_of("docs/board.md")
    (script,) = (block for block in blocks(page, "python") if "mem_alloc" in block)
    (tmp_path / "memory.py").write_text(script)
    figures = heap_figures(tmp_path / "memory.py")
    assert len(figures) == 3
    for what, figure in figures.items():
        (written,) = re.findall(rf"^\| {what} \| (\d+) \|$", page, re.MULTILINE)
        assert figure == about(int(written)), what


def test_the_client_has_the_size_that_is_written_down() -> None:
    rows = re.findall(r"^\| (\w+) \| (\d+) \|$", text_of("docs/board.md"), re.MULTILINE)
    sizes = {name: int(size) for name, size in rows if name != "bytes_needed"}
    assert len(sizes) == 4
    compile_client()
    for name, written in sizes.items():
        files = (PROJECT / "build" / "client" / name).glob("**/*.mpy")
        assert sum(file.stat().st_size for file in files) == about(written), name


# --- Examples


@pytest.mark.real
def test_the_readmes_board_takes_part_in_a_round(broker: Broker, tmp_path: Path) -> None:
    """Its main.py and config.json as they stand there, with a sensor in place of the pin."""
    compile_client()
    readme = text_of("README.md")
    (program,) = (block for block in blocks(readme, "python") if "Client(" in block)
    (config,) = blocks(readme, "json")
    settings = json.loads(config) | {"broker": f"127.0.0.1:{broker.port}"}
    spec = text_of("specs/sine.toml")
    for key, value in {"fleet": '"pumps"', "inputs": "8", "count": "1", "cohort": "1"}.items():
        spec = re.sub(rf"(?m)^{key} = \S+", f"{key} = {value}", spec)
    (tmp_path / "spec.toml").write_text(spec)
    (tmp_path / "example.py").write_text(program)
    folder = tmp_path / "pump"
    folder.mkdir()
    (folder / "machine.py").write_text(MACHINE)
    board = settings.pop("board")
    with processes.stopping([]) as programs:
        aggregator = processes.aggregator(
            tmp_path, tmp_path / "spec.toml", broker.port, "--exit-when-done"
        )
        example = tmp_path / "example.py"
        pump = real(lambda: processes.board(folder, board, 32, settings, example))
        for started in (aggregator, pump):
            programs.append(started)
            started.start()
        assert aggregator.process is not None
        assert aggregator.process.wait(30) == 0
    assert "round 1 of 1: 1 of 1 boards" in aggregator.log.read_text()
    assert f"as {board}" in pump.log.read_text()
