"""Shards of stored versions, as those who restore and replay ask for them.

Invariant: a version is read anew after each failure, so that an object that was put back
is seen. Reads of the store run in threads: the event loop never waits for a disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from driftline.errors import DriftlineError, InputError, UnknownTableError
from driftline.rows.source import VersionPart, VersionPlace
from driftline.shard.cache import RowBlock
from driftline.shard.position import Position
from driftline.shard.restore import VersionRows
from driftline.versions.history import newest
from driftline.versions.labels import deployments, line
from driftline.versions.manifest import Manifest
from driftline.versions.parts import Rows
from driftline.versions.reader import TableReader
from driftline.versions.repository import Repository

_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class StoredPart:
    """One shard of one table of a version in a store."""

    reader: TableReader
    shard: int

    @property
    def rows(self) -> int:
        """Live rows."""
        return self.reader.table.parts[self.shard].rows

    @property
    def ordinals(self) -> int:
        """One more than the greatest ordinal that was given out."""
        return max(self.reader.part(self.shard).ordinals, self.place_number("ord"))

    def place_number(self, name: str) -> int:
        """Return a number of the shard's position at the barrier."""
        return self.reader.table.parts[self.shard].place.number(name)

    @property
    def position(self) -> Position:
        """The shard's whole position at the barrier: what a replay goes on from."""
        place = self.reader.table.parts[self.shard].place
        return Position.from_snapshot(place.position, place.arrays())

    def blocks(self) -> Iterator[RowBlock]:
        """Yield all rows, some 4 MiB at a time."""
        table = self.reader.table
        at_once = max(1, _BLOCK_BYTES // (4 * (table.dim + table.state_size) + 32))
        return map(_block, self.reader.blocks(self.shard, at_once))


def open_part(repository: Repository, version: str, table: str, shard: int) -> StoredPart | None:
    """Return a shard as it is in a version, None where the version does not have its table.

    Raises UnknownVersionError, ObjectMissingError, DamagedObjectError, ObjectStoreUnavailableError.
    """
    manifest = repository.manifest(version)
    if table not in manifest.tables:
        return None
    reader = TableReader(repository.cache, manifest, table)
    if shard >= reader.shards:
        raise InputError(f"version {version} has {reader.shards} shards of table {table}, not {shard + 1}")
    return StoredPart(reader, shard)


class StoredVersions:
    """The versions of one repository, opened when first needed: a `VersionSource` and a `LoadVersion`."""

    def __init__(self, open_group: Callable[[], Repository]) -> None:
        self._open_group = open_group
        self._repository: Repository | None = None
        self._failed = False

    @property
    def repository(self) -> Repository:
        """The repository; raises what opening it raises. Blocks the first time."""
        if self._repository is None:
            self._repository = self._open_group()
        return self._repository

    async def part(self, version: str, table: str, shard: int) -> VersionPart | None:
        """Return a shard as it is in a version; see `VersionSource`."""
        found = await asyncio.to_thread(self._part, version, table, shard)
        if found is None:
            return None
        dims = found.reader.table
        return VersionPart(
            found.rows, found.ordinals, dims.dim, dims.state_size, partial(self._in_threads, found)
        )

    def replayed(self, version: str, table: str, shard: int) -> StoredPart:
        """Return a shard to replay from: its position and its rows. Raises UnknownTableError."""
        found = self._part(version, table, shard)
        if found is None:
            raise UnknownTableError(f"version {version} has no table {table!r}")
        return found

    def places(self, table: str, shard: int) -> Iterator[VersionPlace]:
        """Yield where a shard stood at the newest version and those it continues, newest first. Blocks."""
        found = newest(self.repository)
        for each in line(self.repository, found) if found is not None else ():
            known = each.tables.get(table)
            if known is None or shard >= len(known.parts):
                return
            yield _place(each, table, shard)

    async def newest(self, table: str, shard: int) -> VersionPlace | None:
        """Return where a shard stood at the newest version; see `VersionSource`."""
        return await asyncio.to_thread(self._newest, table, shard)

    async def deployed(self) -> frozenset[str]:
        """Return the versions that are to be readable beside the live rows."""
        return frozenset(await asyncio.to_thread(lambda: deployments(self.repository)))

    def __call__(self, body: Mapping[str, object], table: str, shard: int) -> VersionRows:
        """Return the rows that a restore swaps in; see `LoadVersion`."""
        found = open_part(self.repository, str(body["version"]), table, shard)
        if found is None:
            raise InputError(f"version {body['version']} has no table {table!r}, and the log restores it")
        return VersionRows(found.rows, found.ordinals, found.blocks())

    def _newest(self, table: str, shard: int) -> VersionPlace | None:
        found = newest(self.repository)
        known = found.tables.get(table) if found is not None else None
        if found is None or known is None or shard >= len(known.parts):
            return None
        return _place(found, table, shard)

    def _part(self, version: str, table: str, shard: int) -> StoredPart | None:
        if self._failed:
            self._failed = False
            self.repository.forget()
        try:
            return open_part(self.repository, version, table, shard)
        except DriftlineError:
            self._failed = True
            raise

    async def _in_threads(self, part: StoredPart) -> AsyncIterator[RowBlock]:
        blocks = part.blocks()
        try:
            while (block := await asyncio.to_thread(next, blocks, None)) is not None:
                yield block
        except DriftlineError:
            self._failed = True
            raise


def _place(manifest: Manifest, table: str, shard: int) -> VersionPlace:
    place = manifest.tables[table].parts[shard].place
    return VersionPlace(manifest.version, Position.fixed(place.position), place.updates)


def _block(rows: Rows) -> RowBlock:
    return RowBlock(rows.ids, np.ones(len(rows), bool), rows.rows, rows.state, rows.lsn, rows.ordinals)
