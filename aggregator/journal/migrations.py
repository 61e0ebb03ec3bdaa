"""How a journal of an earlier schema is brought up to date. Each step is one transaction."""

import json
import sqlite3
from collections.abc import Mapping
from typing import Any, Final

from rounds.intake import digest_of

_COLUMNS: Final = {
    ("lineages", "life"): "incarnation",
    ("cohorts", "asked_below"): "ticket_limit",
    ("cohorts", "asked"): "invited",
    ("cohorts", "trial"): "canary_version",
    ("cohorts", "share"): "canary_share",
    ("boards", "heard"): "last_seen",
}
_ROLES: Final = {"trial": "canary", "taken back": "rolled back"}
_FACTS: Final = {
    "asked": "invited",
    "refused": "rejected",
    "trial": "canary",
    "loss_on_trial": "canary_loss",
}
_FORMAT_1, _FORMAT_2 = b"\x01", b"\x02"


def from_schema_2(db: sqlite3.Connection) -> None:
    """From format 1 of the wire to format 2: other words, and the same fields in every message."""
    for (table, old), new in _COLUMNS.items():
        db.execute(f"ALTER TABLE {table} RENAME COLUMN {old} TO {new}")
    for old, new in _ROLES.items():
        db.execute("UPDATE versions SET role = ? WHERE role = ?", (new, old))
    rows = db.execute("SELECT lineage, version, facts, delta FROM versions").fetchall()
    for lineage, version, facts, delta in rows:
        db.execute(
            "UPDATE versions SET facts = ?, delta = ? WHERE lineage = ? AND version = ?",
            (facts and _renamed_facts(facts), delta and _in_format_2(delta), lineage, version),
        )
    for key, payload in db.execute("SELECT rowid, payload FROM updates").fetchall():
        message = _in_format_2(payload)
        db.execute(
            "UPDATE updates SET payload = ?, digest = ? WHERE rowid = ?",
            (message, digest_of(message), key),
        )
    for number, text in db.execute("SELECT id, command FROM commands").fetchall():
        command = json.loads(text)
        if command["command"] == "plan":
            command["command"] = "apply"
        db.execute("UPDATE commands SET command = ? WHERE id = ?", (json.dumps(command), number))


def _in_format_2(message: bytes) -> bytes:
    """A message of format 1 as one of format 2: the number stands behind the array's first byte."""
    if message[1:2] != _FORMAT_1:
        raise ValueError(f"a message of format {message[1:2].hex()} in a journal of schema 2")
    return message[:1] + _FORMAT_2 + message[2:]


def _renamed_facts(text: str) -> str:
    """A closed round's facts under the names of today."""
    facts: Mapping[str, Any] = json.loads(text)
    renamed = {_FACTS.get(name, name): value for name, value in facts.items()}
    if renamed.get("canary") == "taken back":
        renamed["canary"] = "rolled back"
    return json.dumps(renamed)
