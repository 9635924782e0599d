"""Versions for people with a notebook: rows at a reference as numpy arrays, whole tables, differences.

Invariant: reads only. A reference is resolved when it is used, and everything that one call
returns is of one version, whose name it carries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from driftline.client.splitting import as_ids
from driftline.errors import InputError
from driftline.versions import (
    Manifest,
    Repository,
    Resolved,
    TableReader,
    ancestry,
    diff,
    read_all,
    resolve,
)

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.dataset


@dataclass(frozen=True, slots=True)
class VersionRows:
    """Rows of one table of one version."""

    version: str
    table: str
    ids: NDArray[np.uint64]  # (n,)
    vectors: NDArray[np.float32]  # (n, dim)
    state: NDArray[np.float32]  # (n, state size): of the optimizer
    lsn: NDArray[np.uint64]  # (n,): of the last event that changed the row
    found: NDArray[np.bool_]  # (n,); rows that do not exist are zeros

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class VersionDiff:
    """How one table differs between two versions; ids increasing."""

    before: str
    after: str
    table: str
    changed: NDArray[np.uint64]  # in both, with another row or state
    distance: NDArray[np.float32]  # Euclidean, of the rows of `changed`
    added: NDArray[np.uint64]
    removed: NDArray[np.uint64]


class Versions:
    """The versions of a group, to look at; see `driftline.open_versions`.

    References are those of the command line: `items@V-N-1.2`, `items@exp~2`, a tag, `latest`, a time.
    A table need not be named where a version has only one.

    Examples
    --------
    >>> versions = example_versions()  # two versions of the table items
    >>> [each.version for each in versions.log()]
    ['V-R-1.1', 'V-R-1.0']
    >>> rows = versions.rows("items@latest", [7, 8, 99])
    >>> rows.version, rows.vectors.shape, rows.found.tolist()
    ('V-R-1.1', (3, 2), [True, True, False])
    >>> sum(len(block) for block in versions.blocks("items@V-R-1.0"))
    3
    >>> change = versions.diff("latest~1", "latest")
    >>> change.changed.tolist(), change.distance.tolist(), change.added.tolist()
    ([7], [5.0], [])
    """

    def __init__(self, repository: Repository) -> None:
        self.repository = repository

    def manifest(self, ref: str) -> Manifest:
        """Return all that is known of a version: parents, figures, metadata, where its shards stood.

        Raises UnknownVersionError with the nearest names.
        """
        return resolve(self.repository, ref).manifest

    def log(self, ref: str | None = None) -> list[Manifest]:
        """Return all versions, or those that `ref` goes back to, the newest first."""
        everything = read_all(self.repository)
        return everything if ref is None else ancestry(everything, self.manifest(ref).version)

    def rows(self, ref: str, ids: ArrayLike) -> VersionRows:
        """Return the rows of `ids`, in their order; duplicates are fine.

        Raises UnknownVersionError, UnknownTableError, InputError, DamagedObjectError.
        """
        reader, wanted = self._reader(resolve(self.repository, ref)), as_ids(ids)
        found = reader.rows(wanted)
        rows = found.rows
        return VersionRows(
            reader.manifest.version, reader.name, wanted, rows.rows, rows.state, rows.lsn, found.found
        )

    def blocks(self, ref: str, rows: int = 65_536) -> Iterator[VersionRows]:
        """Yield a whole table, at most `rows` at a time, shard by shard; raises as `rows` does."""
        reader = self._reader(resolve(self.repository, ref))
        for shard in range(reader.shards):
            for block in reader.blocks(shard, rows):
                yield VersionRows(
                    reader.manifest.version,
                    reader.name,
                    block.ids,
                    block.rows,
                    block.state,
                    block.lsn,
                    np.ones(len(block), np.bool_),
                )

    def batches(self, ref: str, rows: int = 65_536) -> pyarrow.RecordBatchReader:
        """Return a whole table as Arrow batches, each read when it is asked for; to be read once.

        Columns: id, vector, state where there is one, lsn. Raises as `rows` does, and ConfigError without
        pyarrow (`driftline[parquet]`).
        """
        from driftline.exchange import batches

        return batches(self._reader(resolve(self.repository, ref)), rows)

    def dataset(self, ref: str, directory: str | Path) -> pyarrow.dataset.Dataset:
        """Return a whole table as a PyArrow dataset, over a Parquet copy in `directory`.

        The copy is made the first time, a block at a time; a version never changes, so it holds for ever.
        Raises as `batches` does.
        """
        from driftline.exchange import dataset

        return dataset(self._reader(resolve(self.repository, ref)), Path(directory))

    def diff(self, before: str, after: str = "latest") -> VersionDiff:
        """Return which rows differ between two versions of a table, and how far they moved.

        Rows that both share are not read. Raises InputError for different tables, and as `rows` does.
        """
        old, new = resolve(self.repository, before), resolve(self.repository, after)
        named = {each.reference.table for each in (old, new)} - {None}
        if len(named) > 1:
            raise InputError(f"{before} and {after} are different tables: compare a table with itself")
        table = named.pop() if named else None
        readers = [self._reader(each, table) for each in (old, new)]
        parts = list(diff(*readers))
        changed = np.concatenate([part.changed for part in parts])
        order = np.argsort(changed)
        return VersionDiff(
            old.manifest.version,
            new.manifest.version,
            readers[0].name,
            changed[order],
            np.concatenate([part.distance for part in parts])[order],
            np.sort(np.concatenate([part.added for part in parts])),
            np.sort(np.concatenate([part.removed for part in parts])),
        )

    def _reader(self, found: Resolved, table: str | None = None) -> TableReader:
        name = table or found.reference.table
        if name is None:
            tables = list(found.manifest.tables)
            if len(tables) != 1:
                version = found.manifest.version
                raise InputError(
                    f"{version} has the tables {', '.join(tables)}: say which, e.g. {tables[0]}@{version}"
                )
            name = tables[0]
        return TableReader(self.repository.cache, found.manifest, name)
