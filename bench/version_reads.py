"""Reading rows by id at the last of many versions.

`python -m bench.version_reads [--store DIRECTORY]` commits a table of a million rows and 50 versions of
2 % of them on local files, unless the directory holds them from an earlier run, and prints how long
reads of 1,000 ids at version 50 take: the first one of a process, and warm, each of other ids.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from driftline.frames.states import States
from driftline.ids import shard_of
from driftline.versions import (
    DeltaBuffer,
    Draft,
    Manifest,
    PartManifest,
    PartSpec,
    Place,
    Repository,
    TableManifest,
    TableReader,
    commit,
    head,
    open_repository,
    open_store,
    seal_part,
)

TABLE, STATE = "items", 1
_FRAME = 8192


class Versions:
    """Commits versions of one table of `rows` rows, of `dim` numbers each."""

    def __init__(self, repository: Repository, rows: int, dim: int, shards: int) -> None:
        self._repository, self._dim, self._shards = repository, dim, shards
        self._rng = np.random.default_rng(1)
        self._ids = ids_of(rows)
        self._shard = shard_of(self._ids, shards)
        self._ordinals = np.zeros(rows, np.uint32)
        for shard in range(shards):
            here = self._shard == shard
            self._ordinals[here] = np.arange(np.count_nonzero(here))

    def commit(self, number: int, chosen: NDArray[np.int64], parent: Manifest | None) -> Manifest:
        """Give the rows at `chosen` new values, and commit that."""
        parts = tuple(self._part(shard, number, chosen, parent) for shard in range(self._shards))
        tables = {TABLE: TableManifest(self._dim, STATE, "schema", parts)}
        parents = (parent.version,) if parent is not None else ()
        return commit(self._repository, Draft(f"op-{number}", "R", tables, parents=parents))

    def draw(self, count: int) -> NDArray[np.int64]:
        """Return the places of `count` rows."""
        return self._rng.choice(len(self._ids), count, replace=False)

    def _part(
        self, shard: int, number: int, chosen: NDArray[np.int64], parent: Manifest | None
    ) -> PartManifest:
        delta, mine = DeltaBuffer(self._dim, STATE), chosen[self._shard[chosen] == shard]
        for start in range(0, len(mine), _FRAME):
            some = mine[start : start + _FRAME]
            rows = self._rng.standard_normal((len(some), self._dim), np.float32)
            lsn, flags = np.full(len(some), number, np.uint64), np.full(len(some), 2, np.uint8)
            ids, ordinals = self._ids[some], self._ordinals[some]
            delta.add(States(TABLE, shard, ids, ordinals, lsn, rows, rows[:, :STATE], flags))
        spec = PartSpec(TABLE, shard, self._dim, STATE, f"op-{number}")
        base = parent.tables[TABLE].parts[shard] if parent is not None else None
        place = Place({"next": number, "rows": int(np.count_nonzero(self._shard == shard))})
        return seal_part(spec, base, delta, place, self._repository.cache, self._repository.put)


def ids_of(rows: int) -> NDArray[np.uint64]:
    """Return the ids of the table, in no order."""
    shuffled = np.random.default_rng(0).permutation(rows).astype(np.uint64)
    return shuffled * np.uint64(7919)


def run(directory: Path, rows: int, dim: int, shards: int, versions: int, reads: int) -> None:
    """Commit what is not there yet, read, print."""
    repository = open_repository(open_store(f"file://{directory}/objects"), "g")
    version = head(repository, "main")
    if version is None or version.depth < versions:
        table = Versions(repository, rows, dim, shards)
        version = table.commit(0, np.arange(rows), None)
        for number in range(1, versions + 1):
            version = table.commit(number, table.draw(rows // 50), version)
    ids, rng = ids_of(rows), np.random.default_rng(2)

    def read(reader: TableReader) -> float:
        some = rng.choice(ids, 1000, replace=False)
        begun = time.perf_counter()
        found = reader.rows(some)
        taken = time.perf_counter() - begun
        assert found.found.all()
        return 1e3 * taken

    reader = TableReader(repository.cache, version, TABLE)
    first = read(reader)
    second = read(reader)
    for shard in range(shards):  # touches nearly every page once
        for _ in reader.blocks(shard):
            pass
    for _ in range(100):
        read(reader)
    warm = np.array([read(reader) for _ in range(reads)])
    p50, p99 = np.percentile(warm, [50, 99])
    print(
        f"{rows:,} rows x {dim}, {versions} versions of 2 %, {shards} shards; 1,000 ids at {version.version}:"
    )
    print(f"first read of the process {first:.1f} ms, the next {second:.1f} ms (it makes an index)")
    print(
        f"warm, {reads} reads of other ids each: p50 {p50:.2f} ms, p99 {p99:.2f} ms, max {warm.max():.2f} ms"
    )


def main() -> None:
    """Run it as asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.version_reads", description=__doc__)
    parser.add_argument("--store", type=Path, help="kept there, for a next run")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--versions", type=int, default=50)
    parser.add_argument("--reads", type=int, default=3000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as temporary:
        directory = asked.store or Path(temporary)
        run(directory, asked.rows, asked.dim, asked.shards, asked.versions, asked.reads)


if __name__ == "__main__":
    main()
