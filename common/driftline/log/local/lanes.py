"""Threads that own SQLite connections, so that no event loop ever waits for a disk.

Invariant: what is submitted for one partition runs in the order of submission, since
a partition always goes to the same lane and a lane is one thread.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from driftline.errors import DriftlineError
from driftline.log.local.connections import close, translated

CONNECTIONS_PER_LANE = 64
"""Open files per lane, least recently used closed first: two descriptors each, and
`ulimit -n` is 1024 on many machines."""

T = TypeVar("T")


class Lane:
    """One thread with its connections, opened on first use by `opener`."""

    def __init__(self, name: str, opener: Callable[[Path], sqlite3.Connection]) -> None:
        self._opener = opener
        self._connections: OrderedDict[Path, sqlite3.Connection] = OrderedDict()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)

    def submit(self, path: Path, action: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Run `action` on the connection to `path` after everything submitted before.

        The future raises driftline's errors; see `connections.translated`.
        """
        return self._executor.submit(self._run, path, action)

    def submit_each(
        self, paths: Sequence[Path], action: Callable[[sqlite3.Connection], T]
    ) -> Future[list[T]]:
        """Run `action` on the connection to each path, in one turn of the thread."""
        return self._executor.submit(lambda: [self._run(path, action) for path in paths])

    def close(self) -> None:
        """Finish what was submitted, then close the connections; blocks meanwhile."""
        self._executor.submit(self._close_all).result()
        self._executor.shutdown()

    def _run(self, path: Path, action: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._connections.get(path)
        if connection is None:
            connection = self._connections[path] = self._opener(path)
            while len(self._connections) > CONNECTIONS_PER_LANE:
                _, oldest = self._connections.popitem(last=False)
                close(oldest)
        else:
            self._connections.move_to_end(path)
        try:
            with translated(path):
                return action(connection)
        except DriftlineError as error:
            if isinstance(error.__cause__, sqlite3.Error):
                # After an I/O error a fresh connection rereads the file's state.
                close(self._connections.pop(path))
            raise

    def _close_all(self) -> None:
        while self._connections:
            _, connection = self._connections.popitem()
            close(connection)


class Lanes:
    """A few lanes, with every partition assigned to one of them."""

    def __init__(self, name: str, count: int, opener: Callable[[Path], sqlite3.Connection]) -> None:
        self._lanes = [Lane(f"{name}-{index}", opener) for index in range(count)]

    def of(self, topic: str, partition: int) -> Lane:
        """Return the lane of a partition: the same in every call, neighbours spread."""
        return self._lanes[(zlib.crc32(topic.encode()) + partition) % len(self._lanes)]

    def close(self) -> None:
        for lane in self._lanes:
            lane.close()
