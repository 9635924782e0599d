"""Committed offsets of consumer groups: a hint for where to start looking.

Invariant: a commit is stored whole, and the last one wins; nothing that must be
exact reads it (the position in Redis is the truth).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from driftline.log.local.connections import close, connect, retry_locked, translated

Offsets = Mapping[tuple[str, int], int]

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS committed(topic TEXT NOT NULL, partition INTEGER NOT NULL, "
    "offset INTEGER NOT NULL, PRIMARY KEY(topic, partition)) WITHOUT ROWID"
)
_UPSERT = "INSERT OR REPLACE INTO committed VALUES (?, ?, ?)"


def group_file(root: Path, group: str) -> Path:
    """Return the file of a consumer group."""
    return root / "groups" / f"{group}.sqlite"


def open_group(path: Path) -> sqlite3.Connection:
    """Open the file of a group, created if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = connect(path, mode="rwc")
    try:
        with translated(path):
            retry_locked(lambda: connection.execute("PRAGMA journal_mode=WAL").fetchone())
            # Some 100 bytes per commit: SQLite's own checkpoints do.
            connection.execute("PRAGMA wal_autocheckpoint=1000")
            retry_locked(lambda: connection.execute(_SCHEMA))
    except BaseException:
        close(connection)
        raise
    return connection


def commit(connection: sqlite3.Connection, offsets: Offsets) -> None:
    """Store `offsets`, (topic, partition) -> next offset, in one transaction."""
    retry_locked(lambda: connection.execute("BEGIN IMMEDIATE"))
    try:
        connection.executemany(_UPSERT, ((topic, part, offset) for (topic, part), offset in offsets.items()))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def committed(connection: sqlite3.Connection) -> dict[tuple[str, int], int]:
    """Return everything the group has committed."""
    rows = retry_locked(
        lambda: connection.execute("SELECT topic, partition, offset FROM committed").fetchall()
    )
    return {(topic, partition): offset for topic, partition, offset in rows}
