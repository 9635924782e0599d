"""What the version benchmark asks of a side, and the ends of it that all sides share.

Invariant: a side keeps what it needs to find a version again in `notes`, on local disk and outside
all measurements; everything else it reads from its store, in a process that did not write it.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from bench.versions_world import Step


@dataclass(frozen=True, slots=True)
class Where:
    """Where a side stores: a folder, or a bucket behind an endpoint."""

    folder: str  # the store's on local disk, or what the server keeps of it
    notes: str  # a folder for notes, and for what a side caches
    endpoint: str = ""
    bucket: str = ""
    key: str = ""
    secret: str = ""

    @property
    def far(self) -> bool:
        """Whether it is a server."""
        return bool(self.endpoint)

    @property
    def aws(self) -> dict[str, str]:
        """The options by which most S3 clients go there."""
        return {
            "aws_endpoint": self.endpoint,
            "aws_access_key_id": self.key,
            "aws_secret_access_key": self.secret,
            "aws_region": "us-east-1",
            "allow_http": "true",
        }


class View(ABC):
    """A version, opened."""

    @abstractmethod
    def rows(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the rows of ids that are alive, in their order."""

    @abstractmethod
    def load(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return all ids, in any order, and their rows."""


class Side(ABC):
    """A store of versions. Version 0 is the base; others are known by their step's number."""

    cow = False  # writes whole chunks, files or tables again: slow where changes are everywhere
    branches = True

    def __init__(self, where: Where) -> None:
        self.where = where
        self._notes = Path(where.notes) / "names.json"
        self.names: dict[str, Any] = orjson.loads(self._notes.read_bytes()) if self._notes.exists() else {}

    def note(self, version: int, name: Any) -> None:
        """Remember what the side calls a version."""
        self.names[str(version)] = name
        self._notes.write_bytes(orjson.dumps(self.names))

    @abstractmethod
    def create(self, base: NDArray[np.float32]) -> None:
        """Store version 0."""

    @abstractmethod
    def prepare(self, step: Step) -> Any:
        """Return the step in the side's own form: what is at hand when a commit begins."""

    @abstractmethod
    def commit(self, step: Step, ready: Any) -> Any:
        """Store the next version of its branch; return its name."""

    @abstractmethod
    def fork(self, version: int) -> None:
        """Begin the second branch."""

    @abstractmethod
    def open(self, version: int) -> View:
        """Open a version."""

    @abstractmethod
    def diff(self, before: int, after: int) -> NDArray[np.int64]:
        """Return the ids, increasing, whose rows differ, were born or deleted."""

    @abstractmethod
    def collect(self, kept: int) -> None:
        """Remove versions 0 up to but not including `kept`, and what only they need."""

    def is_data(self, path: str) -> bool:
        """Return whether a file (relative) holds rows rather than metadata."""
        return True


def files_of(folder: str) -> dict[str, tuple[int, int]]:
    """Return the size and time of change of every file below a folder, by relative path."""
    found: dict[str, tuple[int, int]] = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)
            state = os.stat(path)
            found[os.path.relpath(path, folder)] = state.st_size, state.st_mtime_ns
    return found


def synchronise(folder: str, before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> None:
    """Bring what changed between two looks to disk: files side by side, then their folders."""
    # a hint is rewritten in place and may be lost; Lance falls back to a listing
    changed = [path for path, state in after.items() if before.get(path) != state and "_hint" not in path]
    paths = [os.path.join(folder, path) for path in changed]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(_fsync, paths))
        list(pool.map(_fsync, {os.path.dirname(path) for path in paths}))


def evict(folder: str) -> None:
    """Drop the files below a folder from the page cache, as far as they are on disk."""
    for path in files_of(folder):
        handle = os.open(os.path.join(folder, path), os.O_RDONLY)
        try:
            os.fdatasync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def _fsync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
