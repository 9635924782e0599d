"""What a version costs: bytes are tested, times are printed."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
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
    open_repository,
    open_store,
    seal_part,
)

ROWS, DIM, SHARDS = 1_000_000, 64, 4
VERSIONS, CHANGED = 50, 20_000


class Table:
    """A table of a million rows as arrays."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(1)
        self.ids = self.rng.permutation(ROWS).astype(np.uint64) * np.uint64(7919)
        self.shard = shard_of(self.ids, SHARDS)
        self.ordinals = np.zeros(ROWS, np.uint32)
        for number in range(SHARDS):
            here = self.shard == number
            self.ordinals[here] = np.arange(np.count_nonzero(here))
        self.rows = self.rng.standard_normal((ROWS, DIM), np.float32)
        self.state = np.ones((ROWS, 1), np.float32)
        self.lsn = np.zeros(ROWS, np.uint64)

    def change(self, version: int) -> NDArray[np.int64]:
        """Change 2% of the rows; return which."""
        chosen = self.rng.choice(ROWS, CHANGED, replace=False)
        self.rows[chosen] += np.float32(0.01)
        self.lsn[chosen] = version
        return chosen

    def delta(self, shard: int, chosen: NDArray[np.int64], directory: Path) -> DeltaBuffer:
        delta = DeltaBuffer(DIM, 1, directory=directory)
        mine = chosen[self.shard[chosen] == shard]
        for start in range(0, len(mine), 8192):
            some = mine[start : start + 8192]
            delta.add(
                States(
                    "items",
                    shard,
                    self.ids[some],
                    self.ordinals[some],
                    self.lsn[some],
                    self.rows[some],
                    self.state[some],
                    np.full(len(some), 2, np.uint8),
                )
            )
        return delta


def stored(repository: Repository) -> int:
    return sum(info.size for info in repository.store.list(""))


@pytest.mark.slow
def test_a_version_costs_two_percent_more_than_its_rows_at_most(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = open_repository(open_store(f"file://{tmp_path}/objects"), "g")
    table = Table()
    version: Manifest | None = None
    seconds: list[float] = []
    sizes: list[int] = []

    def committed(number: int, chosen: NDArray[np.int64], parent: Manifest | None) -> Manifest:
        deltas = [table.delta(shard, chosen, tmp_path) for shard in range(SHARDS)]
        begin = time.perf_counter()

        def sealed(shard: int) -> PartManifest:
            spec = PartSpec("items", shard, DIM, 1, f"op-{number}")
            base = parent.tables["items"].parts[shard] if parent is not None else None
            place = Place({"next": number, "rows": int(np.count_nonzero(table.shard == shard))})
            return seal_part(spec, base, deltas[shard], place, repository.cache, repository.put)

        with ThreadPoolExecutor(SHARDS) as pool:
            parts = tuple(pool.map(sealed, range(SHARDS)))
        tables = {"items": TableManifest(DIM, 1, "schema", parts)}
        parents = (parent.version,) if parent is not None else ()
        done = commit(repository, Draft(f"op-{number}", "R", tables, parents=parents))
        seconds.append(time.perf_counter() - begin)
        sizes.append(stored(repository))
        return done

    version = committed(0, np.arange(ROWS), None)
    for number in range(1, VERSIONS + 1):
        version = committed(number, table.change(number), version)

    each = (sizes[-1] - sizes[0]) / VERSIONS
    changed = CHANGED * (4 * DIM + 4 + 12)
    some = table.rng.choice(ROWS, 1000, replace=False)
    reader = TableReader(repository.cache, version, "items")
    reads = []
    for _ in range(8):
        begin = time.perf_counter()
        found = reader.rows(table.ids[some])
        reads.append(time.perf_counter() - begin)
    with capsys.disabled():
        print(
            f"\n1M x 64, {VERSIONS} versions of 2%: {each / 1e6:.3f} MB each, {each / changed:.4f} of its "
            f"rows; commit p50 {np.median(seconds[1:]) * 1e3:.0f} ms; 1,000 ids at version {VERSIONS}: first "
            f"{reads[0] * 1e3:.1f} ms, then {min(reads[2:]) * 1e3:.1f} to {max(reads[2:]) * 1e3:.1f} ms"
        )

    assert each <= 1.02 * changed
    assert found.found.all()
    assert found.rows.rows.tobytes() == table.rows[some].tobytes()
    assert found.rows.lsn.tolist() == table.lsn[some].tolist()


def test_a_manifest_does_not_grow_with_history(tmp_path: Path) -> None:
    """Rows that are changed again and again leave their old segments without use."""
    repository = open_repository(open_store(f"file://{tmp_path}"), "g")
    version: Manifest | None = None
    sizes = []
    for number in range(120):
        delta = DeltaBuffer(2, 0)
        delta.add(
            States(
                "items",
                0,
                np.arange(50, dtype=np.uint64),
                np.arange(50, dtype=np.uint32),
                np.full(50, number, np.uint64),
                np.full((50, 2), number, np.float32),
                np.zeros((50, 0), np.float32),
                np.full(50, 2, np.uint8),
            )
        )
        base = version.tables["items"].parts[0] if version is not None else None
        spec = PartSpec("items", 0, 2, 0, f"op-{number}")
        part = seal_part(spec, base, delta, Place({"next": number}), repository.cache, repository.put)
        parents = (version.version,) if version is not None else ()
        tables = {"items": TableManifest(2, 0, "schema", (part,))}
        version = commit(repository, Draft(f"op-{number}", "R", tables, parents=parents))
        sizes.append(len(part.segments))

    assert max(sizes) <= 26
