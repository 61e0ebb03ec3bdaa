"""The model store as people read it: every version of a fleet's model, with what made it.

It is the aggregator's journal, opened for reading only, whether or not an aggregator is at work.
"""

import json
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from aggregator.errors import StoreError
from aggregator.history import RoundFacts
from aggregator.journal.schema import JOURNAL
from protocol.spec.spec import Spec
from rounds.model import PUBLISHED_TYPE
from runtime.database import reading
from runtime.modelfile import ModelFile

LATEST: Final = "latest"
"""How the version is called on which boards work."""

_VERSIONS: Final = (
    "SELECT version, role, made, origin, facts, cohort, published IS NOT NULL FROM versions "
    "WHERE lineage = ?"
)


@dataclass(frozen=True)
class Lineage:
    """The life of a model."""

    number: int
    """32 bits that messages and the progress topic bear."""
    fleet: str
    round: int
    """Rounds that are over."""
    versions: int
    """How many it has."""
    key: int
    """In the journal."""


@dataclass(frozen=True)
class StoredVersion:
    """What is known of a version."""

    version: int
    role: str
    """``stable``: boards work on it. ``canary``: some try it out. ``past``, or ``rolled back``."""
    made: str
    """When: ISO 8601, UTC."""
    origin: str
    """What made it: ``start``, ``round 7``, ``rollback 5`` or ``import``."""
    facts: RoundFacts | None
    """Of the round that made it. Its losses are of the version that the round worked on."""
    cohort: list[str] | None
    """Boards whose updates are in it; None where no round made it, or they are not kept."""
    kept: bool
    """Whether its weights are."""


class Store:
    """The versions of a fleet's model; see :meth:`open`.

    Raises:
        StateError: in every method: the journal cannot be read.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        rows = db.execute(
            "SELECT id, fleet, incarnation, round, "
            "(SELECT count(*) FROM versions WHERE lineage = id) FROM lineages ORDER BY opened DESC"
        ).fetchall()
        self.lineages = [
            Lineage(self._spec(key, incarnation, 0).lineage, fleet, round_, versions, key)
            for key, fleet, incarnation, round_, versions in rows
        ]
        """The one in force first, the others as they were in force before; at least one."""
        self._incarnations = {key: incarnation for key, _, incarnation, _, _ in rows}

    @classmethod
    @contextmanager
    def open(cls, folder: Path) -> Iterator[Self]:
        """Read a state folder, as it is at this moment.

        Raises:
            StateError: there is no journal, or it cannot be read.
            StoreError: no aggregator has started a fleet there.
        """
        with reading(folder, JOURNAL) as db:
            store = cls(db)
            if not store.lineages:
                raise StoreError(f"{folder}: holds no model so far; start the aggregator first")
            yield store

    def lineage(self, number: int | None = None) -> Lineage:
        """The lineage with this number; by default the one in force.

        Raises:
            StoreError: there is none.
        """
        if number is None:
            return self.lineages[0]
        for lineage in self.lineages:
            if lineage.number == number:
                return lineage
        known = ", ".join(f"{lineage.number:08x}" for lineage in self.lineages)
        raise StoreError(f"no lineage {number:08x} is stored; there are: {known}")

    def versions(self, lineage: Lineage) -> list[StoredVersion]:
        """All that there are, in order."""
        rows = self._db.execute(f"{_VERSIONS} ORDER BY version", (lineage.key,))
        return [_read(*row) for row in rows]

    def version(self, lineage: Lineage, name: str) -> StoredVersion:
        """The version of this number, or ``latest``: the one on which boards work.

        Raises:
            StoreError: there is none.
        """
        if name == LATEST:
            row = self._db.execute(f"{_VERSIONS} AND role = 'stable'", (lineage.key,)).fetchone()
        elif name.isdecimal() and len(name) <= 10:
            row = self._db.execute(
                f"{_VERSIONS} AND version = ?", (lineage.key, int(name))
            ).fetchone()
        else:
            raise StoreError(f"{name!r} is no version; give its number, or {LATEST}")
        if row is None:
            raise StoreError(
                f"no version {name} in lineage {lineage.number:08x}; "
                f"`tinymetafed model list` shows those that there are"
            )
        return _read(*row)

    def spec(self, lineage: Lineage, version: int) -> Spec:
        """The spec by which a version was made, in the incarnation of its lineage."""
        return self._spec(lineage.key, self._incarnations[lineage.key], version)

    def weights(self, lineage: Lineage, version: int) -> NDArray[np.int16]:
        """A version's global parameters in weight units, shape (parameters,), in wire order.

        Raises:
            StoreError: they are not kept.
        """
        row = self._db.execute(
            "SELECT published FROM versions WHERE lineage = ? AND version = ?",
            (lineage.key, version),
        ).fetchone()
        if row is None or row[0] is None:
            raise StoreError(
                f"the weights of version {version} are not kept; the aggregator's --keep-versions "
                f"says for how long they are"
            )
        return np.frombuffer(zlib.decompress(row[0]), PUBLISHED_TYPE).astype(np.int16)

    def model_file(self, lineage: Lineage, version: StoredVersion) -> ModelFile:
        """A version with all that a file of it says.

        Raises:
            StoreError: its weights are not kept.
        """
        return ModelFile(
            spec=self.spec(lineage, version.version),
            lineage=lineage.number,
            version=version.version,
            made=version.made,
            origin=version.origin,
            weights=self.weights(lineage, version.version),
        )

    def _spec(self, key: int, incarnation: int, version: int) -> Spec:
        # A plan is put in force on top of a version, and makes those after it.
        (text,) = self._db.execute(
            "SELECT spec FROM plans WHERE lineage = ? AND version <= ? "
            "ORDER BY version DESC LIMIT 1",
            (key, max(0, version - 1)),
        ).fetchone()
        return Spec.model_validate_json(text).with_incarnation(incarnation)


def _read(  # noqa: PLR0913, PLR0917 - a row of the journal
    version: int,
    role: str,
    made: str,
    origin: str,
    facts: str | None,
    cohort: str | None,
    kept: int,
) -> StoredVersion:
    return StoredVersion(
        version,
        role,
        made,
        origin,
        None if facts is None else RoundFacts.from_json(facts),
        None if cohort is None else json.loads(cohort),
        bool(kept),
    )


def read_history(folder: Path) -> list[RoundFacts]:
    """The closed rounds of the lineage in force, in order.

    Raises:
        StateError: there is no journal, or it cannot be read.
        StoreError: no aggregator has started a fleet there.
    """
    with Store.open(folder) as store:
        versions = store.versions(store.lineage())
        return [version.facts for version in versions if version.facts is not None]
