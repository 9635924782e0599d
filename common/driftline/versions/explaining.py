"""Where a row comes from: which segment of which version, and which stretch of the log.

Invariant: an explanation is read from the manifests and the segment itself, so it names
what a read of the row would read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from driftline.errors import InputError, UnknownVersionError
from driftline.ids import lsn, lsn_generation, lsn_offset, shard_of
from driftline.versions.labels import line
from driftline.versions.manifest import Manifest, PartManifest
from driftline.versions.reader import TableReader
from driftline.versions.repository import Repository


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where one row of one version is stored, and what made it."""

    id: int
    version: str  # that was asked about
    shard: int
    ordinal: int
    segment: str  # key of the object
    rank: int  # of the row in it
    written_by: str  # the version that stored the row first; "": it is gone, and its rows were moved
    lsn: int  # of the last event that changed it
    generation: int
    offset: int  # of that event's record in the shard's partition
    log_range: (
        tuple[int, int] | None
    )  # offsets of the records the writing version took in; None if it is gone


@dataclass(frozen=True, slots=True)
class Change:
    """A version in which a row was changed, born or ended."""

    version: str
    created: float
    kind: str  # born, changed, removed
    lsn: int  # 0 where the row ended
    segment: str


def explain(repository: Repository, manifest: Manifest, table: str, row: int) -> Explanation | None:
    """Return where the row of an id is in a version, None if the version has none."""
    if not 0 <= row < 1 << 64:
        raise InputError(f"id {row}: 0 to 2^64 - 1")
    reader = TableReader(repository.cache, manifest, table)
    ids = np.array([row], np.uint64)
    shard = int(shard_of(ids, reader.shards)[0])
    part = reader.part(shard)
    ordinals = part.dictionary.find(ids)
    at = part.locate(ordinals)
    if not at.found[0]:
        return None
    entry = part.part.segments[int(at.segment[0])]
    changed = int(part.take(ids, ordinals, at).lsn[0])
    written_by = entry.version
    if entry.merged:
        writer = writer_of(repository, manifest, table, shard, changed)
        written_by = writer.version if writer is not None else ""
    return Explanation(
        row,
        manifest.version,
        shard,
        int(ordinals[0]),
        entry.ref.key,
        int(at.rank[0]),
        written_by,
        changed,
        lsn_generation(changed),
        lsn_offset(changed),
        _range_of(repository, manifest, written_by, table, shard) if written_by else None,
    )


def blame(repository: Repository, manifest: Manifest, table: str, row: int) -> Iterator[Change]:
    """Yield the versions that changed a row, newest first, along first parents as far as they exist."""
    newer: tuple[Manifest, Explanation | None] | None = None
    for each in _with_table(line(repository, manifest), table):
        here = explain(repository, each, table, row)
        if newer is not None:
            change = _change(*newer, here)
            if change is not None:
                yield change
        newer = (each, here)
    if newer is not None:
        change = _change(*newer, None)
        if change is not None:
            yield change


def writer_of(
    repository: Repository, manifest: Manifest, table: str, shard: int, changed: int
) -> Manifest | None:
    """Return the version below `manifest` that took in the event of an LSN; None if it is gone.

    Lines are walked from each version to the one its rows were laid on, and to what it merged in.
    """
    ahead, seen = [manifest], {manifest.version}
    while ahead:
        each = ahead.pop(0)
        if len(each.parents) > 1 and _worked_out(repository, each, table, shard, changed):
            return each
        parts = each.tables[table].parts if table in each.tables else ()
        if shard < len(parts) and took_in(parts[shard], changed):
            return each
        for name in (each.base, *each.parents[1:]):
            if name and name not in seen:
                seen.add(name)
                try:
                    ahead.append(repository.manifest(name))
                except UnknownVersionError:
                    continue
    return None


def took_in(part: PartManifest, changed: int) -> bool:
    """Return whether the event of an LSN is one of those that a version took in itself."""
    generation, next_ = part.place.number("gen"), part.place.number("next")
    return lsn_generation(changed) == generation and part.begin <= lsn_offset(changed) < next_


def _worked_out(repository: Repository, merge: Manifest, table: str, shard: int, changed: int) -> bool:
    """Return whether a merge made a row: its LSN is that of the barrier of one of the parents."""
    for name in merge.parents:
        try:
            known = repository.manifest(name).tables.get(table)
        except UnknownVersionError:
            continue
        if known is not None and shard < len(known.parts) and barrier(known.parts[shard]) == changed:
            return True
    return False


def barrier(part: PartManifest) -> int:
    """Return the LSN of the barrier that a shard was cut at: no row of the log has it."""
    return lsn(part.place.number("gen"), max(part.place.number("next"), 1) - 1)


def _with_table(line_: Iterable[Manifest], table: str) -> Iterator[Manifest]:
    return (each for each in line_ if table in each.tables)


def _change(manifest: Manifest, here: Explanation | None, before: Explanation | None) -> Change | None:
    if here is None:
        return Change(manifest.version, manifest.created, "removed", 0, "") if before is not None else None
    if before is None or before.ordinal != here.ordinal:
        return Change(manifest.version, manifest.created, "born", here.lsn, here.segment)
    if before.lsn != here.lsn:
        return Change(manifest.version, manifest.created, "changed", here.lsn, here.segment)
    return None


def _range_of(
    repository: Repository, manifest: Manifest, version: str, table: str, shard: int
) -> tuple[int, int] | None:
    try:
        writer = manifest if version == manifest.version else repository.manifest(version)
    except UnknownVersionError:
        return None
    part = writer.table(table).parts[shard]
    return part.begin, part.place.number("next")
