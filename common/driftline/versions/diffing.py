"""What differs between two versions, row by row, without loading what does not.

Invariant: rows are compared by id. A row that the same segment holds under the same
ordinal in both versions is the same row and is never read. What a lossy tier has blurred is
no difference: there a row differs by its LSN, or by more than the error that is recorded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.errors import InputError
from driftline.versions.parts import PartReader, Rows
from driftline.versions.reader import TableReader

_BLOCK = 65_536


@dataclass(frozen=True, slots=True)
class PartDiff:
    """Differences in one shard; ids increasing."""

    shard: int
    changed: NDArray[np.uint64]  # ids in both versions whose row or state differs
    distance: NDArray[np.float32]  # Euclidean, of the rows of `changed`
    added: NDArray[np.uint64]
    removed: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class _Candidates:
    ids: NDArray[np.uint64]  # increasing
    ordinals: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Taken:
    rows: Rows
    error: NDArray[np.float64]  # (n,): recorded with the segment each row is in


def diff(before: TableReader, after: TableReader) -> Iterator[PartDiff]:
    """Yield the differences shard by shard. Raises InputError if the tables cannot be compared."""
    old, new = before.table, after.table
    if (old.dim, old.state_size, before.shards) != (new.dim, new.state_size, after.shards):
        raise InputError(
            f"{before.name} has dim {old.dim} and {before.shards} shards in {before.manifest.version}, "
            f"{new.dim} and {after.shards} in {after.manifest.version}: such rows cannot be compared"
        )
    for shard in range(before.shards):
        yield part_diff(shard, before.part(shard), after.part(shard))


def part_diff(shard: int, before: PartReader, after: PartReader) -> PartDiff:
    """Return the differences in one shard."""
    old, new = _candidates(before, after)
    common, at_old, at_new = np.intersect1d(old.ids, new.ids, assume_unique=True, return_indices=True)
    differs = np.zeros(len(common), np.bool_)
    distance = np.zeros(len(common), np.float32)
    for start in range(0, len(common), _BLOCK):
        some = slice(start, start + _BLOCK)
        a = _take(before, old, at_old[some])
        b = _take(after, new, at_new[some])
        delta = b.rows.rows - a.rows.rows
        distance[some] = np.sqrt((delta * delta).sum(1, dtype=np.float64))
        differs[some] = _differ(a, b)
    return PartDiff(
        shard,
        common[differs],
        distance[differs],
        np.setdiff1d(new.ids, common, assume_unique=True),
        np.setdiff1d(old.ids, common, assume_unique=True),
    )


def _candidates(before: PartReader, after: PartReader) -> tuple[_Candidates, _Candidates]:
    """Return the live rows of both that are not in the same segment under the same ordinal."""
    keys = sorted({each.ref.key for part in (before.part, after.part) for each in part.segments})
    numbers = {key: number for number, key in enumerate(keys, 1)}
    owners = [_global(each, numbers) for each in (before, after)]
    size = max(map(len, owners))
    old, new = (np.pad(each, (0, size - len(each))) for each in owners)
    differ = old != new
    return _named(before, differ & (old > 0)), _named(after, differ & (new > 0))


def _global(reader: PartReader, numbers: dict[str, int]) -> NDArray[np.int32]:
    table = np.array([0, *(numbers[each.ref.key] for each in reader.part.segments)], np.int32)
    return table[reader.codes()]


def _named(reader: PartReader, chosen: NDArray[np.bool_]) -> _Candidates:
    ordinals = np.flatnonzero(chosen)
    ids = reader.dictionary.ids(len(chosen))[ordinals] if len(ordinals) else np.zeros(0, np.uint64)
    order = np.argsort(ids)
    return _Candidates(ids[order], ordinals[order])


def _take(reader: PartReader, rows: _Candidates, at: NDArray[np.int64]) -> _Taken:
    ordinals = rows.ordinals[at]
    where = reader.locate(ordinals)
    errors = np.array([max(each.error, each.state_error) for each in reader.part.segments])
    return _Taken(reader.take(rows.ids[at], ordinals, where), errors[where.segment])


def _differ(a: _Taken, b: _Taken) -> NDArray[np.bool_]:
    """Return which rows differ: by a bit, or in a lossy tier by their LSN or more than its error."""
    one, other = a.rows, b.rows
    differ = (_bits(one.rows) != _bits(other.rows)).any(1) | (_bits(one.state) != _bits(other.state)).any(1)
    allowed = (a.error + b.error) * (1 + 1e-6)
    lossy = differ & (allowed > 0) & (one.lsn == other.lsn)
    if lossy.any():
        values = np.concatenate([one.rows[lossy], one.state[lossy]], 1).astype(np.float64)
        off = np.abs(values - np.concatenate([other.rows[lossy], other.state[lossy]], 1)).max(1, initial=0)
        differ[lossy] = off > allowed[lossy]
    return np.asarray(differ)


def _bits(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    return values.view(np.uint32)
