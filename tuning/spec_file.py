"""A spec's file with other values: its comments and its layout stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tomlkit

from protocol.spec import Spec
from tuning.space import RANGES, values_of

if TYPE_CHECKING:
    from typing import Any

    from tuning.space import Values


def rewritten(text: str, values: Values) -> str:
    """The text of a spec's file with these settings.

    A value is changed where it stands, and the comment behind it stays in its column where it can.
    """
    spec = Spec.from_toml(text)
    old, document = values_of(spec), tomlkit.parse(text)
    tables: Any = document
    for name, value in values.items():
        if value == old[name]:
            continue
        if name == "local":
            chosen = str(value).split(",")
            for number, layer in enumerate(spec.layers):
                if layer.parameters and layer.local != (str(number) in chosen):
                    _set(tables["model"]["layers"][number], "local", not layer.local)
        elif name == "optimizer":
            optimizer = tables["rounds"].setdefault(name, tomlkit.table())
            for key in [key for key in optimizer if key != "rule"]:
                del optimizer[key]
            _set(optimizer, "rule", value)
        else:
            _set(tables[RANGES[name][0] if name in RANGES else "training"], name, value)
    return tomlkit.dumps(document)


def _set(table: Any, key: str, value: object) -> None:  # noqa: ANN401 - one of tomlkit's tables
    before = table.item(key).as_string() if key in table else ""
    table[key] = value
    now = table.item(key)
    if now.trivia.comment:
        room = len(now.trivia.comment_ws) + len(before) - len(now.as_string())
        now.trivia.comment_ws = " " * max(1, room)
