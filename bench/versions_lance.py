"""Lance in two modes: data overlays, and merge_insert on an id column with stable row ids.

Overlays: the rows that change go into an overlay file, births are appended, deletions are deletions;
a version is the last of those three commits. Ids are known by row address, so no id is stored and none
is looked up. With stable row ids instead, each overlay writes which version changed which row into every
manifest after it: 50 MB a version instead of 6, measured. merge_insert: updates and births in one
commit, deletions in another.
"""

from __future__ import annotations

import os
import uuid
from typing import Any

os.environ["LANCE_ENABLE_UNSTABLE_DATA_OVERLAY_FILES"] = "1"

import numpy as np
from numpy.typing import NDArray

from bench.versions_side import Side, View, Where
from bench.versions_world import BRANCH, DIM, Step

Name = list[Any]  # branch (None: main) and version, as JSON keeps it


class LanceOverlays(Side):
    """Data overlay files (an unstable feature of pylance, switched on)."""

    def __init__(self, where: Where) -> None:
        super().__init__(where)
        import lance
        import pyarrow as pa

        self._lance, self._pa = lance, pa
        self._options = where.aws if where.far else None
        self._uri = f"s3://{where.bucket}/lance" if where.far else f"{where.folder}/lance"
        self._schema = pa.schema([("v", pa.list_(pa.float32(), DIM))])

    def create(self, base: NDArray[np.float32]) -> None:
        table = self._pa.table({"v": self._vectors(base)})
        self._heads = {
            "main": self._lance.write_dataset(
                table,
                self._uri,
                max_rows_per_file=len(base) + 1,
                storage_options=self._options,
            )
        }
        self._data = self._heads["main"].get_fragments()[0].data_files()[0]
        self._fragments = {"main": 0}
        self.names["born"] = [[0, 0, 0]]  # first id, fragment, whether on the branch
        self.note_names(0, "main")

    def note_names(self, number: int, branch: str) -> None:
        """Note the head of a branch as a version."""
        self.note(number, [None if branch == "main" else branch, self._heads[branch].version])

    def _vectors(self, rows: NDArray[np.float32]) -> Any:
        flat = self._pa.array(np.ascontiguousarray(rows).reshape(-1))
        return self._pa.FixedSizeListArray.from_arrays(flat, DIM)

    def prepare(self, step: Step) -> Any:
        changed = self._pa.record_batch([self._vectors(step.values)], schema=self._schema)
        return changed, self._pa.table({"v": self._vectors(step.new_values)})

    def commit(self, step: Step, ready: Any) -> Name:
        from lance import LanceOperation as Operation
        from lance.file import LanceFileWriter
        from lance.fragment import DataFile

        changed, born = ready
        head, file = self._heads[step.branch], self._data
        name = f"{uuid.uuid4().hex}.lance"
        path = f"{head.uri.rstrip('/')}/data/{name}"
        kind = f"{file.file_major_version}.{file.file_minor_version}"
        with LanceFileWriter(path, self._schema, version=kind, storage_options=self._options) as writer:
            writer.write_batch(changed)
        data = DataFile(
            name,
            list(file.fields),
            list(file.column_indices),
            file.file_major_version,
            file.file_minor_version,
            None if self.where.far else os.path.getsize(path),
        )
        overlay = Operation.DataOverlayFile(data, step.ids.tolist())
        head = self._lance.LanceDataset.commit(
            head,
            Operation.DataOverlay([Operation.DataOverlayGroup(0, [overlay])]),
            read_version=head.version,
            storage_options=self._options,
        )
        if len(step.new_ids):
            self._fragments[step.branch] += 1
            born_at = [int(step.new_ids[0]), self._fragments[step.branch], int(step.branch == BRANCH)]
            self.names["born"].append(born_at)
            head = self._lance.write_dataset(born, head, mode="append", storage_options=self._options)
        if len(step.dead):
            head.delete(f"_rowid IN ({', '.join(map(str, step.dead.tolist()))})")
        self._heads[step.branch] = head
        return [None if step.branch == "main" else step.branch, head.version]

    def fork(self, version: int) -> None:
        head = self._at(version)
        self._fragments[BRANCH] = version  # one was appended by each
        self._heads[BRANCH] = head.create_branch(BRANCH, storage_options=self._options)

    def _at(self, version: int) -> Any:
        branch, number = self.names[str(version)]
        uri = self._uri if branch is None else f"{self._uri}/tree/{branch}"
        return self._lance.dataset(uri, version=number, storage_options=self._options)

    def open(self, version: int) -> View:
        return _ByAddress(self._at(version), self._births(version))

    def _births(self, version: int) -> NDArray[np.int64]:
        """Return (first id, fragment) of the fragments of a version's line, by first id."""
        born = np.array(self.names["born"], np.int64)
        on_branch = self.names[str(version)][0] is not None
        # the branch's fragments have the numbers of those that the main line got after it left
        most = born[born[:, 2] == 1][0, 1] if on_branch else 0
        mine = (born[:, 2] == 1) | (born[:, 1] < most) if on_branch else born[:, 2] == 0
        return np.asarray(born[mine, :2])

    def diff(self, before: int, after: int) -> NDArray[np.int64]:
        old, new = self._at(before), self._at(after)
        first, last = old.version, new.version
        offsets = [
            offset
            for each in new.get_fragments()[0].metadata.overlays
            if first < (each.committed_version or 0) <= last
            for offset in each.offsets
        ]
        touched = np.array(offsets, np.int64)
        rows_a, rows_b = (
            ids_of(each.to_table(columns=[], with_row_id=True)["_rowid"].to_numpy(), self._births(before))
            for each in (old, new)
        )
        alone = np.setxor1d(rows_a, rows_b, assume_unique=True)
        touched = np.setdiff1d(touched, alone)
        a, b = (_vectors_of(each._take_rows(touched.tolist())).view(np.uint32) for each in (old, new))
        return np.sort(np.concatenate([touched[(a != b).any(1)], alone]))

    def collect(self, kept: int) -> None:
        head = self._lance.dataset(self._uri, storage_options=self._options)
        first = self.names[str(kept)][1]
        old = [each["version"] for each in head.versions() if each["version"] < first]
        head.cleanup_old_versions(versions=old, delete_unverified=True, error_if_tagged_old_versions=False)

    def is_data(self, path: str) -> bool:
        return "/data/" in f"/{path}"


def ids_of(addresses: NDArray[np.uint64], births: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the ids at row addresses: fragment and offset in it."""
    by_fragment = np.zeros(int(births[:, 1].max()) + 1, np.int64)
    by_fragment[births[:, 1]] = births[:, 0]
    return np.asarray(
        by_fragment[addresses >> np.uint64(32)] + (addresses & np.uint64(0xFFFFFFFF)).astype(np.int64)
    )


class _ByAddress(View):
    def __init__(self, dataset: Any, births: NDArray[np.int64]) -> None:
        self._dataset, self._births = dataset, births

    def rows(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        place = np.searchsorted(self._births[:, 0], ids, "right") - 1
        addresses = (self._births[place, 1] << 32) | (ids - self._births[place, 0])
        return _vectors_of(self._dataset._take_rows(addresses.tolist()))

    def load(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        table = self._dataset.to_table(with_row_id=True)
        return ids_of(table["_rowid"].to_numpy(), self._births), _vectors_of(table)


def _vectors_of(table: Any) -> NDArray[np.float32]:
    found: NDArray[np.float32] = table["v"].combine_chunks().flatten().to_numpy().reshape(-1, DIM)
    return found


class LanceMerge(LanceOverlays):
    """merge_insert by id, stable row ids; looked up by a filter on the id."""

    def create(self, base: NDArray[np.float32]) -> None:
        head = self._lance.write_dataset(
            self._table(np.arange(len(base)), base),
            self._uri,
            max_rows_per_file=len(base) + 1,
            enable_stable_row_ids=True,
            storage_options=self._options,
        )
        self._heads = {"main": head}
        self.note_names(0, "main")

    def _table(self, ids: NDArray[np.int64], rows: NDArray[np.float32]) -> Any:
        return self._pa.table({"id": self._pa.array(ids), "v": self._vectors(rows)})

    def fork(self, version: int) -> None:
        self._heads[BRANCH] = self._at(version).create_branch(BRANCH, storage_options=self._options)

    def prepare(self, step: Step) -> Any:
        ids = np.concatenate([step.ids, step.new_ids])
        return self._table(ids, np.concatenate([step.values, step.new_values]))

    def commit(self, step: Step, ready: Any) -> Name:
        head = self._heads[step.branch]
        head.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(ready)
        if len(step.dead):
            head.delete(f"id IN ({', '.join(map(str, step.dead.tolist()))})")
        return [None if step.branch == "main" else step.branch, head.version]

    def open(self, version: int) -> View:
        return _ById(self._at(version))

    def diff(self, before: int, after: int) -> NDArray[np.int64]:
        old, new = self._at(before), self._at(after)
        touched = new.to_table(columns=["id"], filter=f"_row_last_updated_at_version > {old.version}")[
            "id"
        ].to_numpy()
        ids_a, ids_b = (each.to_table(columns=["id"])["id"].to_numpy() for each in (old, new))
        alone = np.setxor1d(ids_a, ids_b, assume_unique=True)
        touched = np.sort(np.setdiff1d(touched, alone))
        a, b = (_ById(each).rows(touched).view(np.uint32) for each in (old, new))
        return np.sort(np.concatenate([touched[(a != b).any(1)], alone]))


class _ById(View):
    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def rows(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        table = self._dataset.to_table(filter=f"id IN ({', '.join(map(str, ids.tolist()))})")
        found = table["id"].to_numpy()
        order = np.argsort(found)
        return _vectors_of(table)[order[np.searchsorted(found[order], ids)]]

    def load(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        table = self._dataset.to_table()
        return table["id"].to_numpy(), _vectors_of(table)
