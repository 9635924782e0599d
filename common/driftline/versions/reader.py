"""Reading a version: rows by id, or all of it shard by shard.

Invariant: what is read is what was at the barrier, to the bit; an object that is
missing or damaged is named, and everything that does not touch it stays readable.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from driftline.ids import shard_of
from driftline.versions.cache import ObjectCache
from driftline.versions.manifest import Manifest
from driftline.versions.parts import PartReader, Rows, empty_rows

_AT_ONCE = 16  # shards read side by side from a store that is not files of this machine


@dataclass(frozen=True, slots=True)
class Found:
    """Rows by id, in the order asked for."""

    rows: Rows
    found: NDArray[np.bool_]  # (n,); rows that do not exist are zeros


class TableReader:
    """One table of one version. Thread-safe."""

    def __init__(self, cache: ObjectCache, manifest: Manifest, table: str) -> None:
        self.manifest, self.name = manifest, table
        self.table = manifest.table(table)
        self._far = cache.far
        self._parts = [
            PartReader(cache, part, self.table.dim, self.table.state_size) for part in self.table.parts
        ]

    @property
    def shards(self) -> int:
        """Number of shards."""
        return len(self._parts)

    def part(self, shard: int) -> PartReader:
        """Return the reader of one shard."""
        return self._parts[shard]

    def rows(self, ids: NDArray[np.uint64]) -> Found:
        """Return the rows of `ids` (any order, duplicates allowed).

        Raises ObjectMissingError, DamagedObjectError, ObjectStoreUnavailableError.
        """
        count = len(ids)
        rows = replace(empty_rows(count, self.table.dim, self.table.state_size), ids=ids)
        found = np.zeros(count, np.bool_)
        shards = shard_of(ids, self.shards)

        def one(shard: int) -> None:
            here = np.flatnonzero(shards == shard)
            part = self._parts[shard]
            ordinals = part.dictionary.find(ids[here])
            at = part.locate(ordinals)
            some = part.take(ids[here], ordinals, at)
            rows.ordinals[here], rows.lsn[here] = some.ordinals, some.lsn
            rows.rows[here], rows.state[here] = some.rows, some.state
            found[here] = at.found

        touched = np.unique(shards).tolist()
        if self._far and len(touched) > 1:
            with ThreadPoolExecutor(min(_AT_ONCE, len(touched))) as pool:
                list(pool.map(one, touched))
        else:
            for shard in touched:
                one(shard)
        return Found(rows, found)

    def load(self, threads: int = 4) -> Rows:
        """Return all rows of the table, shard after shard, in no order of ids.

        Shards are read side by side. Takes their bytes once, and 10 bytes per ordinal besides; raises as
        `rows` does.
        """
        counts = [part.part.rows for part in self._parts]
        whole = empty_rows(sum(counts), self.table.dim, self.table.state_size)
        starts = np.cumsum([0, *counts]).tolist()
        targets = [whole.slice(start, end) for start, end in pairwise(starts)]
        with ThreadPoolExecutor(min(threads, max(len(counts), 1))) as pool:
            list(pool.map(PartReader.load, self._parts, targets))
        return whole

    def blocks(self, shard: int, rows: int = 65_536) -> Iterator[Rows]:
        """Yield all rows of a shard, at most `rows` at a time; shards may be read side by side."""
        return self._parts[shard].blocks(rows)
