"""A small handler for the contract of the chassis, and a worker process around it.

Invariant: effects and positions change in one SQLite transaction, which refuses a
batch that does not start at the stored position and an effect that is there already.
So whatever the table `effects` holds was applied exactly once, in order, and an
error of the chassis becomes an error of the worker.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from driftline.errors import FenceLostError, PositionError
from driftline_services.chassis import (
    Batch,
    ChassisApp,
    ChassisSettings,
    Flow,
    TopicPartition,
    make_app,
    run_worker,
)

SCHEMA = """
CREATE TABLE IF NOT EXISTS positions(topic TEXT, part INTEGER, next INTEGER, PRIMARY KEY(topic, part));
CREATE TABLE IF NOT EXISTS effects(topic TEXT, part INTEGER, offset INTEGER, value BLOB, worker TEXT,
    PRIMARY KEY(topic, part, offset));
CREATE TABLE IF NOT EXISTS calls(seq INTEGER PRIMARY KEY AUTOINCREMENT, worker TEXT, what TEXT,
    partitions INTEGER);
"""


class Store:
    """What the handlers of all workers of a test have done, in one SQLite file."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, timeout=10.0, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")  # survives kill -9, which is all that is asked
        self._db.executescript(SCHEMA)

    def position(self, tp: TopicPartition) -> int:
        row = self._db.execute("SELECT next FROM positions WHERE topic=? AND part=?", tp).fetchone()
        return int(row[0]) if row else 0

    def rewind(self, tp: TopicPartition, position: int) -> None:
        """Lose everything from `position` on, like a store that came back from an older copy."""
        with self._transaction():
            self._db.execute("DELETE FROM effects WHERE topic=? AND part=? AND offset>=?", (*tp, position))
            self._db.execute("INSERT OR REPLACE INTO positions VALUES(?,?,?)", (*tp, position))

    def add(self, batch: Batch, worker: str) -> None:
        with self._transaction():
            if self.position(batch.tp) != batch.start:
                raise FenceLostError(f"{batch.tp} is at {self.position(batch.tp)}, not {batch.start}")
            self._db.execute("INSERT OR REPLACE INTO positions VALUES(?,?,?)", (*batch.tp, batch.next))
            self._db.executemany(
                "INSERT INTO effects VALUES(?,?,?,?,?)",
                ((*batch.tp, record.offset, record.value, worker) for record in batch.records),
            )

    def note(self, worker: str, what: str, partitions: int) -> None:
        self._db.execute(
            "INSERT INTO calls(worker, what, partitions) VALUES(?,?,?)", (worker, what, partitions)
        )

    def calls(self, worker: str) -> list[tuple[str, int]]:
        rows = self._db.execute("SELECT what, partitions FROM calls WHERE worker=? ORDER BY seq", (worker,))
        return [(str(what), int(partitions)) for what, partitions in rows]

    def share(self, worker: str) -> int:
        """How many partitions the worker owns now."""
        calls = self.calls(worker)
        return calls[-1][1] if calls and calls[-1][0] == "load" else 0

    def values(self, tp: TopicPartition) -> list[bytes]:
        rows = self._db.execute("SELECT value FROM effects WHERE topic=? AND part=? ORDER BY offset", tp)
        return [bytes(row[0]) for row in rows]

    def count(self, topic: str | None = None, worker: str | None = None) -> int:
        row = self._db.execute(
            "SELECT count(*) FROM effects WHERE ifnull(?, topic)=topic AND ifnull(?, worker)=worker",
            (topic, worker),
        ).fetchone()
        return int(row[0])

    def close(self) -> None:
        self._db.close()

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)


class _Transaction:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")


class Recorder:
    """Records what it is given; `delay` seconds per batch, raising at offset `raise_at`.

    With `buffer` it keeps everything in memory until `release`.
    """

    def __init__(
        self,
        store: Store,
        worker: str = "w",
        *,
        delay: float = 0.0,
        raise_at: int | None = None,
        buffer: bool = False,
    ) -> None:
        self.store = store
        self.worker = worker
        self.delay = delay
        self._raise_at = raise_at
        self._buffer: list[Batch] | None = [] if buffer else None
        self.flow: Flow

    def bind(self, flow: Flow) -> None:
        self.flow = flow

    async def load(self, partitions: frozenset[TopicPartition]) -> Mapping[TopicPartition, int]:
        self.store.note(self.worker, "load", len(partitions))
        return {tp: self.store.position(tp) for tp in partitions}

    async def apply(self, batch: Batch) -> None:
        if self.delay:
            await asyncio.sleep(self.delay)
        if self._raise_at is not None and batch.start <= self._raise_at < batch.next:
            raise RuntimeError(f"told to raise at {self._raise_at}")
        if self._buffer is not None:
            self._buffer.append(batch)
            self.store.note(self.worker, "buffered", len(batch.records))
        else:
            self.store.add(batch, self.worker)
        self.flow.hint(batch.tp, batch.next)

    async def lost(self, tp: TopicPartition, error: PositionError) -> None:
        raise error

    async def release(self, partitions: frozenset[TopicPartition]) -> None:
        for batch in self._buffer or ():
            self.store.add(batch, self.worker)
        if self._buffer is not None:
            self._buffer.clear()
        self.store.note(self.worker, "release", len(partitions))


SETTINGS = ChassisSettings(
    session_timeout=6.0,
    heartbeat_interval=0.5,
    rebalance_timeout=12.0,
    drain_timeout=8.0,
    commit_interval=0.2,
)
"""Quick enough for tests; 6 s is the shortest session a broker allows by default."""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("group")
    parser.add_argument("store", type=Path)
    parser.add_argument("worker")
    parser.add_argument("topics", nargs="+")
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--raise-at", type=int)
    parser.add_argument("--buffer", action="store_true")
    parser.add_argument("--instance")
    given = parser.parse_args()

    @asynccontextmanager
    async def build() -> AsyncIterator[ChassisApp]:
        store = Store(given.store)
        handler = Recorder(
            store, given.worker, delay=given.delay, raise_at=given.raise_at, buffer=given.buffer
        )
        yield make_app(
            given.group, given.url, given.topics, handler, instance_id=given.instance, settings=SETTINGS
        )
        store.note(given.worker, "closed", os.getpid())
        store.close()

    return run_worker(build)


if __name__ == "__main__":
    sys.exit(main())
