"""deltalake and Icechunk as sides of the version benchmark.

deltalake merges by id (copy on write); its tables have no branches. Icechunk keeps a zarr array with a
row per id, 1,024 rows a chunk, and writes each chunk with a changed row anew.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.versions_ours import changed_rows
from bench.versions_side import Side, View, Where
from bench.versions_world import BRANCH, DIM, Step

CHUNK = 1_024  # rows


class Delta(Side):
    """deltalake: merge by id."""

    cow = True
    branches = False

    def __init__(self, where: Where) -> None:
        super().__init__(where)
        self._uri = f"s3://{where.bucket}/delta" if where.far else f"{where.folder}/delta"
        self._options = {**where.aws, "aws_conditional_put": "etag"} if where.far else None

    def create(self, base: NDArray[np.float32]) -> None:
        from deltalake import write_deltalake

        write_deltalake(self._uri, _table(np.arange(len(base)), base), storage_options=self._options)
        self.note(0, 0)

    def prepare(self, step: Step) -> Any:
        ids = np.concatenate([step.ids, step.new_ids])
        return _table(ids, np.concatenate([step.values, step.new_values]))

    def commit(self, step: Step, ready: Any) -> int:
        table = self._at(None)
        merge = table.merge(ready, predicate="t.id = s.id", source_alias="s", target_alias="t")
        merge.when_matched_update_all().when_not_matched_insert_all().execute()
        if len(step.dead):
            table.delete(f"id IN ({', '.join(map(str, step.dead.tolist()))})")
        return int(table.version())

    def _at(self, name: int | None) -> Any:
        from deltalake import DeltaTable

        return DeltaTable(self._uri, version=name, storage_options=self._options)

    def fork(self, version: int) -> None:
        raise NotImplementedError("a Delta table has one line of versions")

    def open(self, version: int) -> View:
        return _DeltaView(self._at(self.names[str(version)]))

    def diff(self, before: int, after: int) -> NDArray[np.int64]:
        return changed_rows(self.open(before).load(), self.open(after).load())

    def collect(self, kept: int) -> None:
        last = self._at(None)
        keep = list(range(self.names[str(kept)], last.version() + 1))
        last.vacuum(0, dry_run=False, enforce_retention_duration=False, full=True, keep_versions=keep)

    def is_data(self, path: str) -> bool:
        return path.endswith(".parquet") and "_delta_log" not in path


class _DeltaView(View):
    def __init__(self, table: Any) -> None:
        self._table = table

    def rows(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        import pyarrow.dataset as pd

        found = self._table.to_pyarrow_dataset().to_table(filter=pd.field("id").isin(ids))
        have, rows = _content(found)
        order = np.argsort(have)
        return rows[order[np.searchsorted(have[order], ids)]]

    def load(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        return _content(self._table.to_pyarrow_table())


def _table(ids: NDArray[np.int64], rows: NDArray[np.float32]) -> Any:
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(rows).reshape(-1))
    return pa.table({"id": pa.array(ids), "v": pa.FixedSizeListArray.from_arrays(flat, DIM)})


def _content(table: Any) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    return table["id"].to_numpy(), table["v"].combine_chunks().flatten().to_numpy().reshape(-1, DIM)


class Icechunk(Side):
    """Icechunk: a zarr array with a row per id, and which of them are alive."""

    cow = True

    def _storage(self) -> Any:
        import icechunk

        where = self.where
        if not where.far:
            return icechunk.local_filesystem_storage(where.folder)
        return icechunk.s3_storage(
            bucket=where.bucket,
            prefix="ice",
            region="us-east-1",
            endpoint_url=where.endpoint,
            allow_http=True,
            access_key_id=where.key,
            secret_access_key=where.secret,
            force_path_style=True,
        )

    def create(self, base: NDArray[np.float32]) -> None:
        import icechunk
        import zarr

        room = len(base) + max(100_000, len(base) // 2)
        self._repository = icechunk.Repository.create(self._storage())
        session = self._repository.writable_session("main")
        group = zarr.group(session.store)
        rows = group.create_array("v", shape=(room, DIM), chunks=(CHUNK, DIM), dtype="f4")
        alive = group.create_array("alive", shape=(room,), chunks=(room,), dtype="u1")
        rows[: len(base)] = base
        alive[: len(base)] = 1
        self.note(0, session.commit("base"))

    def prepare(self, step: Step) -> Any:
        ids = np.concatenate([step.ids, step.new_ids])
        return ids, np.concatenate([step.values, step.new_values])

    def commit(self, step: Step, ready: Any) -> str:
        import zarr

        ids, rows = ready
        session = self._repository.writable_session(step.branch)
        group: Any = zarr.open_group(session.store)
        group["v"].set_orthogonal_selection((ids, slice(None)), rows)
        alive = group["alive"][:]
        alive[step.new_ids], alive[step.dead] = 1, 0
        group["alive"][:] = alive
        return str(session.commit(f"version {step.number}"))

    def fork(self, version: int) -> None:
        self._repository.create_branch(BRANCH, self.names[str(version)])

    def open(self, version: int) -> View:
        return _IceView(self._group(version))

    def _group(self, version: int) -> Any:
        import icechunk
        import zarr

        repository = icechunk.Repository.open(self._storage())
        return zarr.open_group(
            repository.readonly_session(snapshot_id=self.names[str(version)]).store, mode="r"
        )

    def diff(self, before: int, after: int) -> NDArray[np.int64]:
        import icechunk

        repository = icechunk.Repository.open(self._storage())
        names = [self.names[str(version)] for version in (before, after)]
        found = repository.diff(from_snapshot_id=names[0], to_snapshot_id=names[1])
        chunks = sorted(int(chunk[0]) for chunk in found.updated_chunks.get("/v", ()))
        at = (np.array(chunks, np.int64)[:, None] * CHUNK + np.arange(CHUNK)).reshape(-1)
        sides = []
        for version in (before, after):
            group = self._group(version)
            alive = group["alive"][:].astype(bool)
            ids = at[alive[at[at < len(alive)]]] if len(at) else at
            sides.append((ids, group["v"].get_orthogonal_selection((ids, slice(None)))))
            sides[-1] = (ids, np.ascontiguousarray(sides[-1][1]))
        return changed_rows(sides[0], sides[1])

    def collect(self, kept: int) -> None:
        import icechunk

        repository = icechunk.Repository.open(self._storage())
        name = self.names[str(kept)]
        when = next(each.written_at for each in repository.ancestry(branch="main") if each.id == name)
        repository.expire_snapshots(when)
        repository.garbage_collect(datetime.now(UTC))

    def is_data(self, path: str) -> bool:
        return "chunks/" in path


class _IceView(View):
    def __init__(self, group: Any) -> None:
        self._group = group

    def rows(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        order = np.argsort(ids)
        found = np.empty((len(ids), DIM), np.float32)
        found[order] = self._group["v"].get_orthogonal_selection((ids[order], slice(None)))
        return found

    def load(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        ids = np.flatnonzero(self._group["alive"][:])
        return ids, self._group["v"][: int(ids[-1]) + 1][ids]
