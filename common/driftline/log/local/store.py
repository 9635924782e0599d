"""One partition as one SQLite file: the statements, on a connection handed in.

Invariant: offsets are dense and only ever given out inside a write transaction, so
a batch is in the file whole, contiguous and in order, or not at all. The last record
is never deleted: it carries the next offset and the running maximum of the clock
through a trim.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from driftline.errors import OffsetError, StateError
from driftline.log.base import Bounds, Outgoing, Record
from driftline.log.local.codec import decode_headers, encode_headers
from driftline.log.local.connections import close, connect, retry_locked, translated

PAGE_BYTES = 32768
"""32 KiB pages: 412 MB/s of 38 KB records; the default 4 KiB: 151 MB/s."""

SCHEMA_VERSION = 1

_SCHEMA = (
    "CREATE TABLE log(offset INTEGER PRIMARY KEY, ts INTEGER NOT NULL, "
    "key BLOB, headers BLOB, value BLOB NOT NULL)",
    "CREATE TABLE trimmed(id INTEGER PRIMARY KEY CHECK (id = 0), begin INTEGER NOT NULL)",
    "INSERT INTO trimmed VALUES (0, 0)",
)
_LAST = "SELECT offset, ts FROM log ORDER BY offset DESC LIMIT 1"
_END = "SELECT coalesce(max(offset) + 1, 0) FROM log"
_BEGIN = "SELECT begin FROM trimmed"
_INSERT = "INSERT INTO log VALUES (?, ?, ?, ?, ?)"
_SELECT = "SELECT offset, ts, key, headers, value FROM log WHERE offset >= ? ORDER BY offset"
_DELETE = (
    "DELETE FROM log WHERE offset < min((SELECT begin FROM trimmed), "
    "(SELECT max(offset) FROM log), (SELECT min(offset) FROM log) + ?)"
)

SWEEP_RECORDS = 256
"""Records deleted per transaction, so that a trim never holds up appends for long."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Records read in one transaction, and the partition's end as that transaction saw it."""

    records: tuple[Record, ...]
    end: int


def create(path: Path) -> None:
    """Create an empty partition file; the caller makes it visible to others."""
    connection = connect(path, mode="rwc")
    try:
        with translated(path):
            connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
            # Nothing to lose yet, and a topic of 64 partitions should not cost 64 syncs.
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute("BEGIN")
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            connection.execute("COMMIT")
            connection.execute("PRAGMA journal_mode=WAL")
    finally:
        close(connection)


def open_partition(path: Path) -> sqlite3.Connection:
    """Open an existing partition file; raises StateError for another schema version."""
    connection = connect(path)
    try:
        with translated(path):
            # The first reader after a crash recovers the write-ahead log under a lock.
            (version,) = retry_locked(lambda: connection.execute("PRAGMA user_version").fetchone())
        if version != SCHEMA_VERSION:
            raise StateError(f"{path}: schema version {version}, this driftline reads {SCHEMA_VERSION}")
    except BaseException:
        close(connection)
        raise
    return connection


def append(connection: sqlite3.Connection, records: Sequence[Outgoing], now_ms: int) -> int:
    """Append a batch in one transaction and return the offset of its first record.

    Timestamps are max(the partition's last, `now_ms`). Raises sqlite3.Error, with nothing appended.
    """
    retry_locked(lambda: connection.execute("BEGIN IMMEDIATE"))
    try:
        last_offset, last_ts = connection.execute(_LAST).fetchone() or (-1, 0)
        ts = max(last_ts, now_ms)
        connection.executemany(
            _INSERT,
            (
                (offset, ts, record.key, encode_headers(record.headers), record.value)
                for offset, record in enumerate(records, last_offset + 1)
            ),
        )
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has already rolled back after some errors (a full disk).
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return int(last_offset) + 1


def read(connection: sqlite3.Connection, offset: int, max_bytes: int) -> Chunk:
    """Return records from `offset` on, up to and including the one that reaches `max_bytes`.

    Raises OffsetError when `offset` is outside [begin, end].
    """
    retry_locked(lambda: _begin_read(connection))
    try:
        bounds = _bounds(connection)
        if not bounds.begin <= offset <= bounds.end:
            raise OffsetError(
                f"offset {offset} is not in the log, which holds [{bounds.begin}, {bounds.end})"
            )
        records: list[Record] = []
        if offset < bounds.end:
            size = 0
            for at, ts, key, headers, value in connection.execute(_SELECT, (offset,)):
                records.append(Record(at, ts, key, value, decode_headers(headers)))
                size += len(value)
                if size >= max_bytes:
                    break
        return Chunk(tuple(records), bounds.end)
    finally:
        connection.execute("COMMIT")


def bounds(connection: sqlite3.Connection) -> Bounds:
    """Return what the partition holds, in one snapshot."""
    retry_locked(lambda: _begin_read(connection))
    try:
        return _bounds(connection)
    finally:
        connection.execute("COMMIT")


def end(connection: sqlite3.Connection) -> int:
    """Return the offset that the next append will get."""
    return int(retry_locked(lambda: connection.execute(_END).fetchone())[0])


def trim(connection: sqlite3.Connection, before: int) -> Bounds:
    """Move the begin up to `before`, at most to the end, and return the new bounds.

    The records below are out of reach at once; `sweep` frees their space.
    """
    retry_locked(lambda: connection.execute("BEGIN IMMEDIATE"))
    try:
        held = _bounds(connection)
        begin = max(held.begin, min(before, held.end))
        connection.execute("UPDATE trimmed SET begin = ?", (begin,))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return Bounds(begin, held.end)


def sweep(connection: sqlite3.Connection) -> int:
    """Free the space of up to `SWEEP_RECORDS` trimmed records and return how many they were.

    Safe to stop after any call: the next trim's sweep goes on.
    """
    return retry_locked(lambda: connection.execute(_DELETE, (SWEEP_RECORDS,))).rowcount


def _begin_read(connection: sqlite3.Connection) -> None:
    # A deferred BEGIN takes its snapshot at the first SELECT, which is what can find a lock.
    connection.execute("BEGIN")
    try:
        connection.execute(_BEGIN).fetchone()
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _bounds(connection: sqlite3.Connection) -> Bounds:
    (begin,) = connection.execute(_BEGIN).fetchone()
    (stop,) = connection.execute(_END).fetchone()
    return Bounds(begin, stop)
