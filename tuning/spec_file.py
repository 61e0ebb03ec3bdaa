"""A spec's file with other values: its comments and its layout stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.errors import SpecError
from protocol.spec.spec import Spec
from tuning.errors import TuningError
from tuning.space import RANGES, applied, values_of

if TYPE_CHECKING:
    from typing import Any

    from tuning.space import Values


def rewritten(text: str, values: Values) -> str:
    """The text of a spec's file with these settings.

    A value is changed where it stands, and the comment behind it stays in its column where it can.

    Raises:
        TuningError: what was written is not what was asked for.
    """
    import tomlkit  # noqa: PLC0415 - of the extra `research`; --help does without

    spec = Spec.from_toml(text)
    old = values_of(spec)
    document: Any = tomlkit.parse(text)
    for name, value in values.items():
        if value == old[name]:
            continue
        if name == "local":
            chosen = str(value).split(",")
            for number, layer in enumerate(spec.layers):
                if layer.parameters and layer.local != (str(number) in chosen):
                    _set(document["model"]["layers"][number], "local", not layer.local)
        elif name == "optimizer":
            optimizer = document["rounds"].setdefault(name, {})
            for key in [key for key in optimizer if key != "rule"]:
                del optimizer[key]
            _set(optimizer, "rule", value)
        else:
            _set(document[RANGES[name][0] if name in RANGES else "training"], name, value)
    new = tomlkit.dumps(document)
    try:
        if Spec.from_toml(new) == applied(spec, values):
            return new
    except SpecError:
        pass
    raise TuningError(
        "the spec's file cannot be rewritten: give [training], [rounds] and each [[model.layers]] "
        "a line of its own, and each value under them, as in specs/sine.toml"
    )


def _set(table: Any, key: str, value: object) -> None:  # noqa: ANN401 - one of tomlkit's tables
    # Where parts of a table lie apart, tomlkit does not show its items: columns may shift.
    if key not in table or not hasattr(table, "item"):
        table[key] = value
        return
    before = table.item(key).as_string()
    table[key] = value
    now = table.item(key)
    if now.trivia.comment:
        room = len(now.trivia.comment_ws) + len(before) - len(now.as_string())
        now.trivia.comment_ws = " " * max(1, room)
