"""Copying write-ahead logs back into their files, off the appenders' path.

Invariant: at most one checkpoint per file runs in this process, and a file's
write-ahead log is reset once it has passed `CHECKPOINT_BYTES` and no reader needs it.

First PASSIVE, which copies and syncs while appends go on but never resets the log;
then TRUNCATE, which finds little left to copy and so locks writers out only briefly. For
the second the partition's gate is shut: SQLite waits for a lock by sleeping, and would
wait in vain between two busy writers (two of them at 80 MB/s and a reader: the log grew
to 442 MB without the gate).
"""

from __future__ import annotations

import os
import sqlite3
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from driftline.log.local.connections import close, connect, is_locked, translated
from driftline.log.local.heads import Heads

CHECKPOINT_BYTES = 32 << 20
"""Size of the write-ahead log that starts a checkpoint."""

CHECKPOINT_PAUSE_S = 0.1
"""Shortest time between two tries on one file: a reader may be in the way."""

GATE_S = 0.2
"""How long appenders and readers are asked to keep off at most, and TRUNCATE waits for them."""


class Checkpointer:
    """A thread that checkpoints the files it is told of."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="driftline-checkpoint")
        self._running: dict[Path, Future[bool]] = {}
        self._tried: dict[Path, float] = {}
        self._lock = Lock()

    def appended(self, path: Path, heads: Heads, partition: int) -> None:
        """Start a checkpoint of a partition's file if its write-ahead log has grown large."""
        if wal_bytes(path) < CHECKPOINT_BYTES:
            return
        with self._lock:
            running = self._running.get(path)
            if running is not None:
                if not running.done() or running.exception() is not None:
                    return
                del self._running[path]
            if time.monotonic() - self._tried.get(path, 0.0) < CHECKPOINT_PAUSE_S:
                return
            self._tried[path] = time.monotonic()
            self._running[path] = self._executor.submit(checkpoint, path, heads, partition)

    def raise_failure(self, path: Path) -> None:
        """Raise the error of the last checkpoint of `path`, once; the next one may succeed.

        Called before an append, so that a full disk stops the appender while the log is
        large rather than when it has filled the rest, and no append that succeeded fails.
        """
        with self._lock:
            running = self._running.get(path)
            if running is not None and running.done() and running.exception() is not None:
                del self._running[path]
                running.result()

    def close(self) -> None:
        """Wait for the running checkpoint and end the thread."""
        self._executor.shutdown()


def wal_bytes(path: Path) -> int:
    """Return the size of a file's write-ahead log."""
    try:
        return os.stat(f"{path}-wal").st_size
    except FileNotFoundError:
        return 0


def checkpoint(path: Path, heads: Heads, partition: int) -> bool:
    """Copy the write-ahead log into the file and reset it; False when others held it up.

    Raises LogUnavailableError when the copy cannot be written; the log itself stays whole.
    """
    connection = connect(path)
    try:
        with translated(path):
            try:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                heads.shut(partition, GATE_S)
                connection.execute(f"PRAGMA busy_timeout={int(GATE_S * 1000)}")
                busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            except sqlite3.OperationalError as error:
                if is_locked(error):  # another process is at it
                    return False
                raise
        return not busy
    finally:
        heads.shut(partition, 0)
        close(connection)
