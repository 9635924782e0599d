"""SQLite connections of this process, with the errors of SQLite told as driftline's.

Invariant: no connection is used or closed in a process that inherited it. SQLite's
locks belong to a process but its bookkeeping is copied by fork, so a child that
touched an inherited file could believe in locks it does not hold, and the parent's
last close would delete the write-ahead log under it (https://sqlite.org/howtocorrupt.html
§2.6). After a fork such files are refused and the inherited connections are kept alive, unused.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from driftline.errors import ConfigError, LogUnavailableError, StateError

LOCK_TIMEOUT_S = 10.0
"""Longest wait for another process's transaction; they take milliseconds."""

LOCK_RETRY_S = (0.0002, 0.005)
"""First and longest pause between two tries for a lock. SQLite's own busy handler climbs
to 100 ms, which starves one of two busy writers."""

CACHE_KIB = 4096

_SETTINGS = (
    f"PRAGMA cache_size=-{CACHE_KIB}",
    "PRAGMA synchronous=NORMAL",
    "PRAGMA wal_autocheckpoint=0",  # checkpoints run in a thread of their own: see checkpoint.py
)

T = TypeVar("T")

_guard = threading.Lock()
_open: dict[int, tuple[str, sqlite3.Connection]] = {}
_inherited: list[sqlite3.Connection] = []
_refused: set[str] = set()


def _after_fork() -> None:
    # The parent's other threads are gone, and with them whoever might have held `_guard`.
    if _guard.locked():
        _guard.release()
    _refused.update(path for path, _ in _open.values())
    _inherited.extend(connection for _, connection in _open.values())
    _open.clear()


os.register_at_fork(after_in_child=_after_fork)


def connect(path: Path, mode: str = "rw") -> sqlite3.Connection:
    """Open a file in autocommit mode, without waiting for locks: see `retry_locked`.

    Raises ConfigError in a process forked while the file was open.
    """
    name = str(path)
    if name in _refused:
        raise ConfigError(
            f"{name} was open when this process was forked; SQLite forbids its use here: "
            "open the log after the fork, or start processes by the spawn method"
        )
    with translated(path):
        connection = sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?mode={mode}",
            uri=True,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
        )
        with _guard:
            _open[id(connection)] = (name, connection)
        try:
            for setting in _SETTINGS:
                # Even these read the schema, and find a lock while another recovers the file.
                retry_locked(partial(connection.execute, setting))
        except BaseException:
            close(connection)
            raise
    return connection


def close(connection: sqlite3.Connection) -> None:
    """Close a connection of this process; one inherited by fork is left alone."""
    with _guard:
        known = _open.pop(id(connection), None)
    if known is not None:
        connection.close()


def is_locked(error: sqlite3.Error) -> bool:
    """Return whether another connection's lock is the reason."""
    return _primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def retry_locked(action: Callable[[], T]) -> T:
    """Return what `action` returns, tried again while another process holds the lock.

    Raises sqlite3.OperationalError as it is once `LOCK_TIMEOUT_S` is over.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    pause, longest = LOCK_RETRY_S
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if not is_locked(error) or time.monotonic() > deadline:
                raise
        time.sleep(pause)
        pause = min(pause * 1.5, longest)


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into driftline's, naming the file and the way out."""
    try:
        yield
    except sqlite3.Error as error:
        code = _primary_code(error)
        if is_locked(error):
            raise LogUnavailableError(
                f"{path}: locked by another process for more than {LOCK_TIMEOUT_S:g} s"
            ) from error
        if code == sqlite3.SQLITE_FULL:
            raise LogUnavailableError(f"{path}: the disk is full ({error}); make room, then retry") from error
        if code == sqlite3.SQLITE_IOERR:
            raise LogUnavailableError(
                f"{path}: {error}; look for a full disk, a file size limit or a failing device"
            ) from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise StateError(f"{path}: damaged ({error}); restore it or start a new log") from error
        if code == sqlite3.SQLITE_CANTOPEN:
            raise LogUnavailableError(
                f"{path}: cannot be opened ({error}); check that it exists, its permissions, and `ulimit -n`"
            ) from error
        raise StateError(f"{path}: {error}") from error


def _primary_code(error: sqlite3.Error) -> int:
    # Errors of the module itself (a closed connection, say) carry no code.
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
