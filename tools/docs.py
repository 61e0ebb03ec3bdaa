"""Write the tables of docs/ that the code decides: `python tools/docs.py` after changing either.

A table stands between two comments that name it; everything around is written by hand. With
``--check`` nothing is written, and the exit code is 1 where a table is not what the code says. With
``--update JOURNAL`` the first update in an aggregator's journal is explained byte by byte.
"""

import argparse
import ast
import inspect
import re
import sqlite3
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from enum import Enum
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.models import ArgumentInfo

from aggregator.metrics import Metrics
from cli.experiment import experiment
from cli.simulate import simulate
from cli.tune import tune
from experiments.catalogue import EXPERIMENTS
from experiments.methods.catalogue import METHODS
from protocol import fixed, messages, sparse
from protocol.spec.model import Conv, Dense, Depthwise, Inputs, Model, Pool
from protocol.spec.rounds import Canary, Rounds
from protocol.spec.spec import Spec, Training
from protocol.spec.strategy import Combine, Optimizer, Privacy
from rounds.core import TRANSITIONS

PROJECT = Path(__file__).resolve().parent.parent
DOCS = PROJECT / "docs"
EXAMPLE = DOCS / "update.hex"
BLOCK = re.compile(
    r"(<!-- table: (?P<name>[a-z-]+), written by tools/docs\.py -->\n).*?(<!-- end -->)", re.DOTALL
)
BYTES_IN_A_LINE = 16


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def plain(text: str) -> str:
    """A docstring's reStructuredText as Markdown, in one line."""
    text = re.sub(r":[a-z]+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", " ".join(text.split()))
    return text.replace("``", "`")


def attribute_docs(module: str, of: str) -> dict[str, str]:
    """The strings that stand below a class's attributes, which Python does not keep."""
    tree = ast.parse((PROJECT / module).read_text(encoding="utf-8"))
    (body,) = (
        node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == of
    )
    return docs_below(body)


def docs_below(body: list[ast.stmt]) -> dict[str, str]:
    """The strings that stand below assignments, by the name that is assigned to."""
    docs = {}
    for node, after in pairwise(body):
        match node, after:
            case (
                ast.AnnAssign(target=ast.Name(name)) | ast.Assign(targets=[ast.Name(name)]),
                ast.Expr(ast.Constant(str(text))),
            ):
                docs[name] = plain(text)
    return docs


# --- A round's life ---------------------------------------------------------------------------


def states() -> str:
    """rounds/core.py's table."""
    about_state = attribute_docs("rounds/core.py", "State")
    about_event = attribute_docs("rounds/core.py", "Event")
    return table_of_states(
        {
            f"**{state.value}**: {about_state[state.name]}": [
                [f"{event.name}: {about_event[event.name]}", after.value]
                for event, after in moves.items()
            ]
            for state, moves in TRANSITIONS.items()
        }
    )


def table_of_states(moves: Mapping[str, Sequence[Sequence[str]]]) -> str:
    """Each state's events, and what state follows."""
    rows = []
    for state, ends in moves.items():
        first = state
        for event, after in ends or [["", ""]]:
            rows.append([first, event, after])
            first = ""
    return table(["state", "what ends it", "then"], rows)


def reject_reasons() -> str:
    """Why an update is not counted."""
    docs = attribute_docs("rounds/core.py", "RejectReason")
    return table(["reason", "the update is"], ([f"`{k.lower()}`", v] for k, v in docs.items()))


# --- The spec ---------------------------------------------------------------------------------


def keys_of(part: type[BaseModel]) -> str:
    """The keys of a table of the spec that are values."""
    rows = [
        [f"`{name}`", _allowed(field), _default(field), str(field.description)]
        for name, field in part.model_fields.items()
        if field.description is not None and name != "layers"
    ]
    return table(["key", "value", "default", "meaning"], rows)


def layers() -> str:
    """The keys of each kind of layer."""
    rows = []
    for part in (Dense, Conv, Depthwise, Pool):
        about = f'`kind = "{get_args(part.model_fields["kind"].annotation)[0]}"`'
        rows.append([about, "", "", plain(str(part.__doc__))])
        rows += [
            [f"`{name}`", _allowed(field), _default(field), str(field.description)]
            for name, field in part.model_fields.items()
            if name != "kind"
        ]
    return table(["key", "value", "default", "meaning"], rows)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    return "-" if field.default is None else f"`{str(field.default).lower()}`"


def _allowed(field: FieldInfo) -> str:
    kind: Any = field.annotation
    if kind == get_args(Inputs)[0]:
        return f"integer from 1 to {fixed.MAX_INPUTS:,}, or three of them in a list"
    if get_origin(kind) in {Union, UnionType}:
        (kind,) = (inner for inner in get_args(kind) if inner is not type(None))
    if get_origin(kind) is Literal:
        return " or ".join(
            f'`"{word}"`' if isinstance(word, str) else f"`{word}`" for word in get_args(kind)
        )
    if kind is bool:
        return "`true` or `false`"
    if kind is str:
        return "1 to 32 letters, digits, `.` `_` `-`"
    words = ["integer" if kind is int else "number"]
    for limit in field.metadata:
        for attribute, word in (("gt", "above"), ("ge", "from"), ("lt", "below"), ("le", "to")):
            if (value := getattr(limit, attribute, None)) is not None:
                words.append(f"{word} {value:,}")
    return " ".join(words)


# --- The board --------------------------------------------------------------------------------


def board_settings() -> str:
    """config.SETTINGS of the client; its module only imports on a board."""
    source = PROJECT / "micropython_client" / "tinymetafed" / "config.py"
    tree = ast.parse(source.read_text(encoding="utf-8"))
    values: list[ast.expr | None] = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and "SETTINGS" in ast.unparse(node)
    ]
    (found,) = values
    assert isinstance(found, ast.Dict)  # noqa: S101 - or this script is out of date
    rows = []
    for key, value in zip(found.keys, found.values, strict=True):
        assert key is not None  # noqa: S101
        assert isinstance(value, ast.Tuple)  # noqa: S101
        kind, default, meaning = value.elts
        given = ast.literal_eval(default)
        shown = "must be given" if given is None else f"`{given}`" if given else "-"
        word = {"str": "text", "int": "integer"}[ast.unparse(kind)]
        rows.append([f"`{ast.literal_eval(key)}`", word, shown, str(ast.literal_eval(meaning))])
    return table(["key", "value", "default", "meaning"], rows)


def board_states() -> str:
    """The table of the client's session.py, and what each state does."""
    source = PROJECT / "micropython_client" / "tinymetafed" / "session.py"
    body = ast.parse(source.read_text(encoding="utf-8")).body
    docs = docs_below(body)
    values = {
        target.id: node.value
        for node in body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    words = ast.literal_eval(values["STATES"])
    moves = values["_MOVES"]
    assert isinstance(moves, ast.Tuple)  # noqa: S101 - or this script is out of date
    ends: dict[str, list[list[str]]] = {f"_{word.upper()}": [] for word in words}
    for move in moves.elts:
        state, event, after = re.findall(r"_[A-Z]+", ast.unparse(move))
        ends[state].append([f"{event[1:]}: {docs[event]}", after[1:].lower()])
    return table_of_states(
        {f"**{state[1:].lower()}**: {docs[state]}": found for state, found in ends.items()}
    )


def formats() -> str:
    """protocol/fixed.py's formats."""
    rows = [
        ("sample, label, prediction", fixed.ACTIVATION_BITS, fixed.ACTIVATION_MAX),
        ("hidden value", fixed.ACTIVATION_BITS, fixed.ACTIVATION_MAX),
        ("weight, bias", fixed.WEIGHT_BITS, fixed.WEIGHT_MAX),
        ("error, of the mean squared error", fixed.ERROR_BITS["mse"], fixed.ERROR_MAX),
        ("error, of the cross-entropy", fixed.ERROR_BITS["cross_entropy"], fixed.ERROR_MAX),
        ("error times learning rate", fixed.STEP_BITS, fixed.STEP_MAX),
    ]
    cells = (
        [name, f"1/{2**bits:,}", f"{round((most + 1) / 2**bits)}"] for name, bits, most in rows
    )
    return table(["quantity", "one unit", "saturates at plus or minus"], cells)


# --- The service ------------------------------------------------------------------------------


def metrics() -> str:
    """What aggregator/metrics.py registers of its own; a histogram's ``le`` goes without saying."""
    registry = Metrics(Spec.from_file(PROJECT / "specs" / "sine.toml")).registry
    rows = []
    for metric in registry.collect():
        labels: dict[str, list[str]] = {}
        for sample in metric.samples:
            for label, value in sample.labels.items():
                if label != "le" and value not in labels.setdefault(label, []):
                    labels[label].append(value)
        if metric.name.startswith("tmf_"):
            name = metric.name + {"counter": "_total", "info": "_info"}.get(metric.type, "")
            kind = {"info": "gauge"}.get(metric.type, metric.type)
            told = "; ".join(
                f"{label}: {', '.join(values)}" if metric.type != "info" else label
                for label, values in labels.items()
            )
            rows.append([f"`{name}`", kind, told, metric.documentation])
    return table(["metric", "type", "labels", "what"], rows)


# --- On the wire ------------------------------------------------------------------------------


def topics() -> str:
    """The table in protocol/topics.py, which that file's tests hold true."""
    text = (PROJECT / "protocol" / "topics.py").read_text(encoding="utf-8")
    rows = re.findall(r"^``(tmf/v1/.*?)`` +(yes|no) +(.*)$", text, re.MULTILINE)
    return table(
        ["topic", "retained", "what"],
        ([f"`{topic}`", kept, plain(what)] for topic, kept, what in rows),
    )


def all_messages() -> str:
    """Every message of protocol/messages.py."""
    parts = []
    # A dataclass with slots is made twice; the last one of a name is the one that is used.
    for kind in {kind.__name__: kind for kind in messages.Message.__subclasses__()}.values():
        docs = attribute_docs("protocol/messages.py", kind.__name__)
        rows = [
            [f"`{field.name}`", _power(field.metadata["wanted"]), docs.get(field.name, "")]
            for field in fields(kind)
        ]
        about = plain(kind.__doc__ or "")
        head = ["field", "value", "meaning"]
        parts.append(f"#### {kind.__name__}\n\n{about}\n\n{table(head, rows)}")
    return "\n" + "\n".join(parts) + "\n"


def _power(wanted: str) -> str:
    return wanted.replace(f"{2**32 - 1}", "2**32 - 1").replace(f"{2**32}", "2**32")


def example_update() -> str:
    """The update in docs/update.hex, byte by byte."""
    return explained(bytes.fromhex(EXAMPLE.read_text(encoding="ascii")))


def explained(payload: bytes) -> str:
    """An update of a fleet with the sine task's model, byte by byte."""
    spec = Spec.from_file(PROJECT / "specs" / "sine.toml")
    update = messages.Update.unpack(payload)
    rows = [
        (payload[:1], "array", f"of {payload[0] & 15} elements"),
        (payload[1:2], "format", f"{payload[1]}"),
    ]
    at = 2
    for field in fields(update):
        value = getattr(update, field.name)
        if field.name == "changes":
            break
        size = _packed_size(payload, at)
        rows.append((payload[at : at + size], f"`{field.name}`", f"{value}"))
        at += size
    head = _packed_size(payload, at) - len(update.changes)
    rows.append((payload[at : at + head], "`changes`", f"{len(update.changes)} bytes follow"))
    rows += _explained_block(update.changes, spec.tensors)
    shown: list[list[str]] = []
    at = 0
    for part, what, value in rows:
        lines = [part[i : i + BYTES_IN_A_LINE] for i in range(0, len(part), BYTES_IN_A_LINE)]
        for number, line in enumerate(lines):
            first = number == 0
            shown.append(
                [f"{at}", f"`{line.hex(' ')}`", what if first else "", value if first else ""]
            )
            at += len(line)
    return table(["at", "bytes", "what", "value"], shown)


def _packed_size(data: bytes, at: int) -> int:
    """Bytes that the MessagePack value there takes."""
    head = data[at]
    if 0xA0 <= head <= 0xBF:
        return 1 + head - 0xA0
    fixed_sizes = {0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9}
    if head in {0xC4, 0xD9}:
        return 2 + data[at + 1]
    if head == 0xC5:
        return 3 + int.from_bytes(data[at + 1 : at + 3], "big")
    return fixed_sizes.get(head, 1)


def _explained_block(block: bytes, tensors: Sequence[int]) -> list[tuple[bytes, str, str]]:
    decoded = sparse.decode(block, tensors)
    parameters = sum(tensors)
    at = sparse.layout(block, parameters, len(tensors))
    told = "no entries" if at.inverted else "entries"
    scales = [block[3 + i // 2] >> 4 * (i % 2) & 15 for i in range(len(tensors))]
    first = ", ".join(str(index) for index in decoded.indices[:6])
    moved = ", ".join(f"{change:+d}" for change in decoded.changes[:6])
    rows = [
        (
            block[:1],
            "coding",
            f"{at.low_bits} low bits, gaps tell {told}, {at.value_bits}-bit values",
        ),
        (block[1:3], "entries", f"{at.entries} of {parameters} parameters"),
        (block[3 : at.low], "scales, a tensor each", ", ".join(f"2**{scale}" for scale in scales)),
        (block[at.low : at.high], "gaps, low parts", f"{at.low_bits} bits each"),
        (block[at.high : at.values], "gaps, high parts", f"indices {first}, ..."),
        (block[at.values :], "values", f"changes {moved}, ..."),
    ]
    return [row for row in rows if row[0]]


def flags_of(command: Callable[..., None]) -> str:
    """The flags of one of our commands."""
    hints = get_type_hints(command, include_extras=True)
    parameters = inspect.signature(command).parameters
    words = {
        bool: "",
        int: "integer",
        float: "number",
        Path: "path",
        list[Path]: "path",
        str: "names",
    }
    rows = []
    for name, hint in hints.items():
        if name == "return":
            continue
        kind, option = get_args(hint)
        if isinstance(option, ArgumentInfo):
            continue
        if get_origin(kind) is not list:
            kind = next(part for part in get_args(kind) or (kind,) if part is not type(None))
        value = words.get(kind) if kind in words else ", ".join(f"`{one.value}`" for one in kind)
        default = parameters[name].default
        shown = option.show_default if isinstance(option.show_default, str) else ""
        if not shown and kind is not bool and default not in {None, "", inspect.Parameter.empty}:
            shown = f"{default.value if isinstance(default, Enum) else default}"
        # In Annotated, what is given first is the flag's name.
        flag = option.default if isinstance(option.default, str) else f"--{name.replace('_', '-')}"
        rows.append([f"`{flag}`", str(value), shown, option.help])
    return table(["flag", "value", "default", "meaning"], rows)


def experiments() -> str:
    """The experiments by name."""
    rows = [
        [f"`{name}`", each.about, ", ".join([*each.needs, *(f"({one})" for one in each.may)])]
        for name, each in EXPERIMENTS.items()
    ]
    return table(["name", "what", "data (with which it does more)"], rows)


def methods() -> str:
    """What is compared."""
    spec = Spec.from_file(PROJECT / "specs" / "sine.toml")
    rows = [
        [f"`{name}`", method.about, ", ".join(f"`{one}`" for one in method.ranges(spec))]
        for name, method in METHODS.items()
    ]
    return table(["method", "how it learns", "settings that are searched"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "states": states,
    "rejections": reject_reasons,
    "spec": lambda: keys_of(Spec),
    "spec-model": lambda: keys_of(Model),
    "spec-layer": layers,
    "spec-training": lambda: keys_of(Training),
    "spec-rounds": lambda: keys_of(Rounds),
    "spec-canary": lambda: keys_of(Canary),
    "spec-combine": lambda: keys_of(Combine),
    "spec-optimizer": lambda: keys_of(Optimizer),
    "spec-privacy": lambda: keys_of(Privacy),
    "board-settings": board_settings,
    "board-states": board_states,
    "formats": formats,
    "metrics": metrics,
    "topics": topics,
    "messages": all_messages,
    "update": example_update,
    "simulate": lambda: flags_of(simulate),
    "experiment": lambda: flags_of(experiment),
    "experiments": experiments,
    "methods": methods,
    "tune": lambda: flags_of(tune),
}


def renewed(text: str) -> str:
    """A document with every table as the code has it now."""
    return BLOCK.sub(lambda found: found[1] + TABLES[found["name"]]() + found[3], text)


def main() -> int:
    """Write, check or explain; the exit code."""
    parser = argparse.ArgumentParser(description="Write the tables of docs/ that the code decides.")
    parser.add_argument("--check", action="store_true", help="only tell which are out of date")
    parser.add_argument("--update", metavar="JOURNAL", help="explain the first update in a journal")
    arguments = parser.parse_args()
    if arguments.update:
        db = sqlite3.connect(f"{Path(arguments.update).resolve().as_uri()}?mode=ro", uri=True)
        (payload,) = db.execute("SELECT payload FROM updates ORDER BY round, board").fetchone()
        db.close()
        print(explained(payload), end="")
        return 0
    stale = False
    for path in sorted(DOCS.glob("*.md")):
        old = path.read_text(encoding="utf-8")
        if (new := renewed(old)) == old:
            continue
        stale = True
        if arguments.check:
            name = path.relative_to(PROJECT)
            print(f"{name}: a table is not what the code says: run tools/docs.py", file=sys.stderr)
        else:
            path.write_text(new, encoding="utf-8")
    return 1 if stale and arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
