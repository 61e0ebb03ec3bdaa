"""The journal's tables."""

from typing import Final

from aggregator.journal.migrations import from_schema_2
from runtime.database import Schema

JOURNAL: Final = Schema(
    file="journal.db",
    what="journal",
    writer="aggregator",
    application=0x544D466A,  # "TMFj"
    number=3,
    migrations={2: from_schema_2},
    tables="""
CREATE TABLE lineages (
    id INTEGER PRIMARY KEY, fleet TEXT NOT NULL, identity INTEGER NOT NULL,
    incarnation INTEGER NOT NULL, opened INTEGER NOT NULL, state TEXT NOT NULL,
    round INTEGER NOT NULL, file TEXT NOT NULL
);
CREATE TABLE plans (
    lineage INTEGER NOT NULL, version INTEGER NOT NULL, spec TEXT NOT NULL,
    PRIMARY KEY (lineage, version)
) WITHOUT ROWID;
CREATE TABLE cohorts (
    lineage INTEGER NOT NULL, round INTEGER NOT NULL, ticket_limit INTEGER NOT NULL,
    chosen BLOB NOT NULL, invited TEXT NOT NULL, empty_deadlines INTEGER NOT NULL,
    canary_version INTEGER NOT NULL, canary_share INTEGER NOT NULL,
    PRIMARY KEY (lineage, round)
) WITHOUT ROWID;
CREATE TABLE updates (
    lineage INTEGER NOT NULL, round INTEGER NOT NULL, board TEXT NOT NULL,
    counted INTEGER NOT NULL, nonce INTEGER NOT NULL, digest BLOB NOT NULL, payload BLOB NOT NULL,
    PRIMARY KEY (lineage, round, board)
);
CREATE INDEX counted ON updates (lineage, counted);
CREATE TABLE versions (
    lineage INTEGER NOT NULL, version INTEGER NOT NULL, made TEXT NOT NULL, origin TEXT NOT NULL,
    role TEXT NOT NULL, facts TEXT, cohort TEXT, published BLOB, fine BLOB, optimizer BLOB,
    delta BLOB,
    PRIMARY KEY (lineage, version)
);
CREATE TABLE boards (
    board TEXT PRIMARY KEY, up INTEGER NOT NULL, up_reported INTEGER NOT NULL,
    down INTEGER NOT NULL, down_reported INTEGER NOT NULL, last_seen INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE commands (id INTEGER PRIMARY KEY, command TEXT NOT NULL);
""",
)
