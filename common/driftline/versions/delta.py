"""The row states of one shard since the last version, the newest of each row.

Invariant: for each id it keeps the state of the greatest LSN that was added, whatever
came twice, late or in another order. Memory is bounded: per id 21 bytes and a hash
entry stay in memory; rows and optimizer states move to a temporary file, mapped,
beyond `memory` bytes, and what the mapping holds is given back as it grows.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from driftline.errors import InputError
from driftline.frames.states import TOMBSTONE, States
from driftline.shard.dictionary import Dictionary

_FIRST = 1024
_GIVE_BACK = 64 << 20
DEFAULT_MEMORY = 64 << 20


@dataclass(frozen=True, slots=True)
class DeltaIndex:
    """What a delta knows of each row besides its values; in no particular order."""

    ids: NDArray[np.uint64]
    ordinals: NDArray[np.uint32]
    lsn: NDArray[np.uint64]
    dead: NDArray[np.bool_]


class DeltaBuffer:
    """Collects row states of one shard.

    Parameters
    ----------
    dim, state_size: numbers of float32 per row.
    memory: bytes of rows and states kept in memory before they move to a file.
    directory: where that file is made (and at once unlinked); None for the system's.
    """

    def __init__(
        self, dim: int, state_size: int, *, memory: int = DEFAULT_MEMORY, directory: Path | None = None
    ) -> None:
        self.dim, self.state_size = dim, state_size
        self._memory, self._directory = memory, directory
        self._file: BinaryIO | None = None
        self._map: mmap.mmap | None = None
        self.clear(0)

    def close(self) -> None:
        """Give the file back, if there is one; the buffer is of no use afterwards."""
        self._map = None
        if self._file is not None:
            self._file.close()
            self._file = None

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self.close()

    def clear(self, floor: int) -> None:
        """Forget everything; from now on states with an LSN below `floor` are ignored (after a restore)."""
        self.floor = floor
        self._count = 0
        self._places = Dictionary()
        self._ids = np.empty(_FIRST, np.uint64)
        self._ordinals = np.empty(_FIRST, np.uint32)
        self._lsn = np.empty(_FIRST, np.uint64)
        self._dead = np.empty(_FIRST, np.bool_)
        self._values = np.empty((_FIRST, self.dim + self.state_size), np.float32)
        self.close()
        self._touched = 0

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Bytes of the rows and states collected, in memory or on disk."""
        return self._count * 4 * (self.dim + self.state_size)

    @property
    def spilled(self) -> bool:
        """Whether rows and states are on disk."""
        return self._file is not None

    def add(self, states: States) -> None:
        """Take row states, each id's newest. Raises InputError if they are of another width."""
        if states.rows.shape[1] != self.dim or states.state.shape[1] != self.state_size:
            raise InputError(
                f"states of {states.table}: rows of {states.rows.shape[1]} and {states.state.shape[1]}, "
                f"expected {self.dim} and {self.state_size}"
            )
        keep = _newest(states.ids, states.lsn)
        keep = keep[states.lsn[keep] >= np.uint64(self.floor)]
        slots = self._places.find(states.ids[keep], self._ids)
        new = slots < 0
        born = int(np.count_nonzero(new))
        slots[new] = np.arange(self._count, self._count + born, dtype=np.int32)
        self._grow(self._count + born)
        newer = new.copy()
        newer[~new] = states.lsn[keep][~new] >= self._lsn[slots[~new]]
        self._ids[slots[new]] = states.ids[keep][new]
        self._count += born
        self._places.insert(slots[new], self._ids, self._count)
        into, source = slots[newer], keep[newer]
        self._ordinals[into] = states.ordinals[source]
        self._lsn[into] = states.lsn[source]
        self._dead[into] = (states.flags[source] & TOMBSTONE) != 0
        self._values[into, : self.dim] = states.rows[source]
        self._values[into, self.dim :] = states.state[source]
        self._touch(len(into))

    def index(self) -> DeltaIndex:
        """Return what is known of each row; row i is place i for `take`."""
        some = slice(0, self._count)
        return DeltaIndex(self._ids[some], self._ordinals[some], self._lsn[some], self._dead[some])

    def take(self, places: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the rows (n, d) and states (n, s) at these places, as copies."""
        values = self._values[places]
        self._touch(len(places))
        return np.ascontiguousarray(values[:, : self.dim]), np.ascontiguousarray(values[:, self.dim :])

    def blocks(self, rows: int) -> Iterator[NDArray[np.int64]]:
        """Yield all places, `rows` at a time."""
        for start in range(0, self._count, rows):
            yield np.arange(start, min(start + rows, self._count))

    def _touch(self, rows: int) -> None:
        """Unmap what the file's mapping holds of it; the pages stay the file's own."""
        if self._map is None:
            return
        self._touched += rows * max(self._values.strides[0], mmap.PAGESIZE)
        if self._touched > _GIVE_BACK:
            self._map.madvise(mmap.MADV_DONTNEED)
            self._touched = 0

    def _grow(self, count: int) -> None:
        have = len(self._ids)
        if count <= have:
            return
        size = max(2 * have, count)
        # values first: a full disk is met there, and leaves everything as it was
        stride = 4 * (self.dim + self.state_size)
        if self._file is None and size * stride <= self._memory:
            values = np.empty((size, self.dim + self.state_size), np.float32)
            values[: self._count] = self._values[: self._count]
            self._values = values
        else:
            self._grow_file(size, stride)
        for name in ("_ids", "_ordinals", "_lsn", "_dead"):
            old = getattr(self, name)
            grown = np.empty(size, old.dtype)
            grown[: self._count] = old[: self._count]
            setattr(self, name, grown)

    def _grow_file(self, size: int, stride: int) -> None:
        file = self._file
        if file is None:
            file = tempfile.TemporaryFile(dir=self._directory, prefix="driftline-delta-")  # noqa: SIM115
        try:
            if self._file is None:
                file.write(self._values[: self._count].tobytes())
                file.flush()
            # given blocks now: a full disk must be an error here, not a signal when a page is written
            os.posix_fallocate(file.fileno(), 0, size * stride)
            mapped = mmap.mmap(file.fileno(), size * stride)
        except OSError:
            if self._file is None:
                with contextlib.suppress(OSError):  # what was buffered for it cannot be written either
                    file.close()
            raise
        self._file, self._map = file, mapped
        self._values = np.frombuffer(mapped, np.float32).reshape(size, self.dim + self.state_size)


def _newest(ids: NDArray[np.uint64], lsn: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the places of the newest state of each id."""
    order = np.lexsort((lsn, ids))
    last = np.ones(len(order), np.bool_)
    sorted_ids = ids[order]
    last[:-1] = sorted_ids[1:] != sorted_ids[:-1]
    return np.asarray(order[last])
