"""driftline's side of the version benchmark, and the simplest peer: whole tables in safetensors, zstd."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from bench.versions_side import Side, View, Where
from bench.versions_world import BRANCH, DIM, Step
from driftline.frames.states import TOMBSTONE, States
from driftline.ids import lsn, shard_of
from driftline.versions import (
    DeltaBuffer,
    Draft,
    Manifest,
    PartSpec,
    Place,
    Repository,
    TableManifest,
    TableReader,
    collect,
    commit,
    create_branch,
    diff,
    open_repository,
    open_store,
    retire,
    seal_part,
)

SHARDS = 1  # a table of this size takes no more; a row of a version is in one of them anyhow
FRAME_ROWS = 512  # rows of a gradient frame: rows of one have one LSN
TABLE = "items"
U64 = np.uint64


class Ours(Side):
    """driftline: a delta per version and shard; shards are sealed side by side."""

    def __init__(self, where: Where) -> None:
        super().__init__(where)
        self._turned = 0.0
        self._repository: Repository | None = None
        self._ordinals: list[dict[int, int]] = []
        self._next = [0] * SHARDS
        self._live = [0] * SHARDS
        self._offset = 0

    @property
    def repository(self) -> Repository:
        """Its versions, opened when first used: opening is part of what is measured."""
        if self._repository is None:
            where = self.where
            if where.far:
                options = {
                    "endpoint": where.endpoint,
                    "access_key_id": where.key,
                    "secret_access_key": where.secret,
                    "region": "us-east-1",
                }
                store = open_store(f"s3://{where.bucket}/default", options)
            else:
                store = open_store(f"file://{where.folder}")
            cache = Path(where.notes) / "cache" if where.far else None
            self._repository = open_repository(store, "default", cache=cache, now=self._now)
        return self._repository

    def _now(self) -> float:
        import time

        return time.time() + self._turned

    def create(self, base: NDArray[np.float32]) -> None:
        self._ordinal = np.zeros(2 * len(base) + 4096, np.uint32)
        none = np.zeros(0, np.int64)
        empty = np.zeros((0, DIM), np.float32)
        step = Step(0, "main", none, empty, np.arange(len(base)), base, none)
        self.note(0, self.commit(step, self.prepare(step)))

    def prepare(self, step: Step) -> list[DeltaBuffer]:
        """Return the deltas as a versioner has collected them from the updates topic."""
        ids = np.concatenate([step.ids, step.new_ids])
        self._grow(int(ids.max(initial=0)) + 1)
        # in the order in which trainers touch rows, which is not that of their ids
        order = (
            np.random.default_rng(step.number).permutation(len(ids)) if step.number else np.arange(len(ids))
        )
        ids, values = ids[order], np.concatenate([step.values, step.new_values])[order]
        born = np.isin(ids, step.new_ids)
        shards, dead_shards = shard_of(ids.astype(U64), SHARDS), shard_of(step.dead.astype(U64), SHARDS)
        deltas = [DeltaBuffer(DIM, 0) for _ in range(SHARDS)]
        for shard, delta in enumerate(deltas):
            here = shards == shard
            new = ids[here & born]
            self._ordinal[new] = np.arange(self._next[shard], self._next[shard] + len(new))
            self._next[shard] += len(new)
            mine, rows, dead = ids[here], values[here], step.dead[dead_shards == shard]
            for start in range(0, len(mine), FRAME_ROWS):
                self._offset += 1
                some = slice(start, start + FRAME_ROWS)
                delta.add(self._states(shard, mine[some], rows[some], 0))
            self._offset += 1
            delta.add(self._states(shard, dead, np.zeros((len(dead), DIM), np.float32), int(TOMBSTONE)))
            self._live[shard] += len(new) - len(dead)
        return deltas

    def _states(self, shard: int, ids: NDArray[np.int64], rows: NDArray[np.float32], flag: int) -> States:
        count = len(ids)
        return States(
            TABLE,
            shard,
            ids.astype(U64),
            self._ordinal[ids],
            np.full(count, lsn(1, self._offset), U64),
            rows,
            np.zeros((count, 0), np.float32),
            np.full(count, flag, np.uint8),
        )

    def commit(self, step: Step, ready: Any) -> str:
        deltas: list[DeltaBuffer] = ready
        repository, txn = self.repository, f"op-{step.number}"
        parent = self._parent(step)
        base = parent.tables[TABLE].parts if parent is not None else (None,) * SHARDS

        def sealed(shard: int) -> Any:
            spec = PartSpec(TABLE, shard, DIM, 0, txn)
            position = {"next": self._offset, "gen": 1}
            place = Place(position, {}, self._offset)
            return seal_part(spec, base[shard], deltas[shard], place, repository.cache, sink)

        with repository.puts() as sink, ThreadPoolExecutor(SHARDS) as pool:
            parts = tuple(pool.map(sealed, range(SHARDS)))
        draft = Draft(
            txn,
            "R",
            {TABLE: TableManifest(DIM, 0, "schema", parts)},
            branch=step.branch,
            parents=(parent.version,) if parent is not None else (),
            op=step.number,
        )
        self._last = commit(repository, draft)
        return self._last.version

    def _parent(self, step: Step) -> Manifest | None:
        if step.number == 0:
            return None
        return self._last

    def _grow(self, ids: int) -> None:
        if ids > len(self._ordinal):
            self._ordinal = np.concatenate([self._ordinal, np.zeros(ids, np.uint32)])

    def fork(self, version: int) -> None:
        create_branch(self.repository, BRANCH, self.names[str(version)])
        self._last = self.repository.manifest(self.names[str(version)])

    def open(self, version: int) -> View:
        return _OurView(self._reader(version))

    def _reader(self, version: int) -> TableReader:
        return TableReader(self.repository.cache, self.repository.manifest(self.names[str(version)]), TABLE)

    def diff(self, before: int, after: int) -> NDArray[np.int64]:
        found = list(diff(self._reader(before), self._reader(after)))
        ids = np.concatenate([each for part in found for each in (part.changed, part.added, part.removed)])
        return np.sort(ids.astype(np.int64))

    def collect(self, kept: int) -> None:
        retire(self.repository, [self.names[str(version)] for version in range(kept)])
        collect(self.repository)
        self._turned += self.repository.grace * 1.5  # what two runs a day apart do, without the day
        collect(self.repository)

    def is_data(self, path: str) -> bool:
        return "/seg/" in f"/{path}"


class _OurView(View):
    def __init__(self, reader: TableReader) -> None:
        self._reader = reader

    def rows(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        found = self._reader.rows(ids.astype(U64))
        assert found.found.all(), "all ids asked for are alive"
        return found.rows.rows

    def load(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        loaded = self._reader.load()
        return loaded.ids.astype(np.int64), loaded.rows


class FullSafetensors(Side):
    """Every version whole: safetensors of byte planes, zstd level 1 on two threads."""

    cow = True

    def create(self, base: NDArray[np.float32]) -> None:
        self._values = {"main": dict_of(base)}
        self._branch = "main"
        self.note(0, self._write(0))

    def prepare(self, step: Step) -> Any:
        return step

    def commit(self, step: Step, ready: Any) -> int:
        ids, rows, alive = self._values[step.branch]
        top = int(max(step.ids.max(initial=0), step.new_ids.max(initial=0))) + 1
        if top > len(rows):
            grown = np.zeros((2 * top, DIM), np.float32)
            grown[: len(rows)] = rows
            more = np.zeros(2 * top, np.bool_)
            more[: len(alive)] = alive
            rows, alive = grown, more
        rows[step.ids], rows[step.new_ids] = step.values, step.new_values
        alive[step.new_ids], alive[step.dead] = True, False
        self._values[step.branch] = (ids, rows, alive)
        self._branch = step.branch
        return self._write(step.number)

    def _write(self, number: int) -> int:
        import zstandard
        from safetensors.numpy import save

        _, rows, alive = self._values[self._branch]
        ids = np.flatnonzero(alive)
        data = save({"ids": planes(ids), "rows": planes(rows[ids])})
        packed = zstandard.ZstdCompressor(level=1, threads=2).compress(data)
        if self.where.far:
            import obstore

            obstore.put(self._store(), f"v{number}", packed)
        else:
            (Path(self.where.folder) / f"v{number}").write_bytes(packed)
        return number

    def _store(self) -> Any:
        from obstore.store import S3Store

        where = self.where
        return S3Store(
            where.bucket,
            endpoint=where.endpoint,
            access_key_id=where.key,
            secret_access_key=where.secret,
            region="us-east-1",
            client_options={"allow_http": True, "timeout": "120s"},
        )

    def fork(self, version: int) -> None:
        ids, rows = self.open(version).load()
        size = len(self._values["main"][1])
        whole, alive = np.zeros((size, DIM), np.float32), np.zeros(size, np.bool_)
        whole[ids], alive[ids] = rows, True
        self._values[BRANCH] = (ids, whole, alive)

    def open(self, version: int) -> View:
        return _FullView(self._read(version))

    def _read(self, version: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        import zstandard
        from safetensors.numpy import load

        if self.where.far:
            import obstore

            packed = obstore.get(self._store(), f"v{version}").bytes().to_bytes()
        else:
            packed = (Path(self.where.folder) / f"v{version}").read_bytes()
        found = load(zstandard.ZstdDecompressor().decompress(packed))
        ids = unplanes(found["ids"], np.dtype(np.int64)).reshape(-1)
        return ids, unplanes(found["rows"], np.dtype(np.float32)).reshape(-1, DIM)

    def diff(self, before: int, after: int) -> NDArray[np.int64]:
        return changed_rows(self._read(before), self._read(after))

    def collect(self, kept: int) -> None:
        for version in range(kept):
            if self.where.far:
                import obstore

                obstore.delete(self._store(), f"v{version}")
            else:
                (Path(self.where.folder) / f"v{version}").unlink()


class _FullView(View):
    def __init__(self, content: tuple[NDArray[np.int64], NDArray[np.float32]]) -> None:
        self._ids, self._rows = content

    def rows(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        return self._rows[np.searchsorted(self._ids, ids)]

    def load(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        return self._ids, self._rows


def dict_of(base: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
    """Return ids, rows and which are alive, of version 0."""
    return np.arange(len(base)), base.copy(), np.ones(len(base), np.bool_)


def planes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the bytes of an array by significance, which compresses better."""
    flat = np.ascontiguousarray(values).reshape(-1)
    return np.ascontiguousarray(flat.view(np.uint8).reshape(-1, flat.itemsize).T)


def unplanes(raw: NDArray[np.uint8], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the array, flat."""
    return np.ascontiguousarray(raw.T).reshape(-1).view(dtype)


def changed_rows(
    before: tuple[NDArray[np.int64], NDArray[np.float32]],
    after: tuple[NDArray[np.int64], NDArray[np.float32]],
) -> NDArray[np.int64]:
    """Return the ids, increasing, that two whole tables do not share with the same row."""
    orders: Sequence[NDArray[np.int64]] = [np.argsort(ids, kind="stable") for ids, _ in (before, after)]
    common, here, there = np.intersect1d(
        before[0][orders[0]], after[0][orders[1]], assume_unique=True, return_indices=True
    )
    a, b = before[1][orders[0][here]].view(np.uint32), after[1][orders[1][there]].view(np.uint32)
    alone = np.setxor1d(before[0], after[0], assume_unique=True)
    return np.sort(np.concatenate([common[(a != b).any(1)], alone]))


def notes_of(where: Where) -> dict[str, Any]:
    """Return what a side noted."""
    found: dict[str, Any] = orjson.loads((Path(where.notes) / "names.json").read_bytes())
    return found
