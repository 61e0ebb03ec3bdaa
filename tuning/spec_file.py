"""A spec's file with other values: its comments and its layout stay."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from protocol.errors import SpecError
from protocol.spec import Spec
from tuning.errors import TuningError
from tuning.space import RANGES, applied, values_of

if TYPE_CHECKING:
    from tuning.space import Values

_TABLE = re.compile(r"^\s*(\[\[?)\s*([\w.]+)\s*\]")
_KEY = re.compile(r"^(?P<before>\s*(?P<key>\w+)\s*=\s*)(?P<value>[^#\s]+)(?P<gap>\s*)(?P<rest>.*)$")


def rewritten(text: str, values: Values) -> str:
    """The text of a spec's file with these settings.

    A value is changed where it stands, and the comment behind it stays in its column where it can.

    Raises:
        TuningError: they do not stand where they are looked for, on lines of their own.
    """
    spec = Spec.from_toml(text)
    old, lines = values_of(spec), text.splitlines()
    for name, value in values.items():
        if value == old[name]:
            continue
        if name == "local":
            chosen = str(value).split(",")
            for number, layer in enumerate(spec.layers):
                if layer.parameters and layer.local != (str(number) in chosen):
                    _set(lines, ("model.layers", number), "local", str(not layer.local).lower())
        elif name == "optimizer":
            _set_rule(lines, str(value))
        else:
            table = RANGES[name][0] if name in RANGES else "training"
            _set(lines, (table, 0), name, f"{value}")
    new = "\n".join(lines) + "\n"
    try:
        if Spec.from_toml(new) == applied(spec, values):
            return new
    except SpecError:
        pass
    raise TuningError(
        "the spec's file cannot be rewritten: give [training], [rounds] and each [[model.layers]] "
        "a line of its own, and each value under them, as in specs/sine.toml"
    )


def _set_rule(lines: list[str], rule: str) -> None:
    """Another optimizer, in place of the given one with its settings."""
    if not any(_is_optimizer(line) for line in lines):
        lines += ["", "[rounds.optimizer]", f'rule = "{rule}"']
        return
    kept, inside = [], False
    for line in lines:
        if _TABLE.match(line):
            inside = _is_optimizer(line)
        found = _KEY.match(line)
        if not (inside and found and found["key"] != "rule"):
            kept.append(line)
    lines[:] = kept
    _set(lines, ("rounds.optimizer", 0), "rule", f'"{rule}"')


def _is_optimizer(line: str) -> bool:
    header = _TABLE.match(line)
    return header is not None and header[2] == "rounds.optimizer"


def _set(lines: list[str], where: tuple[str, int], key: str, value: str) -> None:
    """Change a value, or add it at the end of its table."""
    table, seen, last = ("", 0), -1, None
    for at, line in enumerate(lines):
        if header := _TABLE.match(line):
            if header[1] == "[[" and header[2] == where[0]:
                seen += 1
            table = (header[2], seen if header[1] == "[[" else 0)
        elif table != where:
            continue
        elif (found := _KEY.match(line)) and found["key"] == key:
            room = max(1, len(found["value"]) + len(found["gap"]) - len(value))
            tail = " " * room + found["rest"] if found["rest"] else ""
            lines[at] = found["before"] + value + tail
            return
        if table == where and line.strip():
            last = at
    if last is not None:
        lines.insert(last + 1, f"{key} = {value}")
