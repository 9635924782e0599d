"""A three-way merge of two lines of versions, row by row, by id.

Invariant: a row that only one line has changed since their common ancestor is that line's, bit
for bit; a row that both have changed, differently, is a conflict, is listed, and becomes what the
resolver makes of it. A row that one line removed and the other went on training stays.

Latest: the row of the greater LSN. Mean: (n_a a + n_b b) / (n_a + n_b), n = in how many versions
of its line since the ancestor the row was trained. Task arithmetic (Ilharco et al. 2023,
"Editing models with task arithmetic", eq. 3): base + scale x ((a - base) + (b - base)). Optimizer
states of rows that are worked out are averaged: between two valid states lies a valid one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from driftline.errors import InputError
from driftline.frames.states import TOMBSTONE, States
from driftline.versions.diffing import PartDiff, part_diff
from driftline.versions.explaining import barrier
from driftline.versions.parts import PartReader, Rows

_BLOCK = 65_536


class Resolver(StrEnum):
    """What becomes of a row that both lines have changed."""

    LATEST = "latest"
    MEAN = "mean"
    TASK = "task"


@dataclass(frozen=True, slots=True)
class PartMerge:
    """What a merge changes in one shard of `ours`; ids increasing, in one group each."""

    shard: int
    taken: NDArray[np.uint64]  # changed or born in theirs alone
    removed: NDArray[np.uint64]  # removed in theirs alone
    changed: NDArray[np.uint64]  # conflicts: changed, or born, in both, and not alike
    kept: NDArray[np.uint64]  # conflicts: removed in theirs, trained on in ours
    revived: NDArray[np.uint64]  # conflicts: removed in ours, trained on in theirs

    @property
    def conflicts(self) -> NDArray[np.uint64]:
        """Ids of all conflicts, increasing."""
        return np.sort(np.concatenate([self.changed, self.kept, self.revived]))


@dataclass(frozen=True, slots=True)
class Sides:
    """One shard of the three versions; `base` is None where the ancestor has no such table."""

    shard: int
    base: PartReader | None
    ours: PartReader
    theirs: PartReader


@dataclass(frozen=True, slots=True)
class Counted:
    """One shard along the versions of each line since the ancestor, for weights."""

    ours: Sequence[tuple[PartReader, int, int]]  # reader, and the LSNs [from, to) it took in
    theirs: Sequence[tuple[PartReader, int, int]]


def plan_part(sides: Sides) -> PartMerge:
    """Return what a merge changes in one shard, reading only what differs."""
    mine, other = _since(sides, sides.ours), _since(sides, sides.theirs)
    our_change, their_change = _union(mine.changed, mine.added), _union(other.changed, other.added)
    both = np.intersect1d(our_change, their_change, assume_unique=True)
    kept = np.intersect1d(our_change, other.removed, assume_unique=True)
    revived = np.intersect1d(mine.removed, their_change, assume_unique=True)
    taken = np.setdiff1d(their_change, _union(both, revived), assume_unique=True)
    removed = np.setdiff1d(other.removed, _union(kept, mine.removed), assume_unique=True)
    return PartMerge(sides.shard, taken, removed, _unlike(sides, both), kept, revived)


def first_ordinal(sides: Sides) -> int:
    """Return the least ordinal that neither line has given."""
    known = max(each.part.place.number("ord") for each in (sides.ours, sides.theirs))
    return max(known, sides.ours.ordinals, sides.theirs.ordinals)


def states_of(
    table: str,
    sides: Sides,
    plan: PartMerge,
    resolver: Resolver,
    scale: float,
    counted: Counted | None,
) -> Iterator[States]:
    """Yield what the merge lays on the rows of `ours`, some rows at a time.

    Ids that `ours` does not have get ordinals that neither line has given. Raises InputError if a row
    that is worked out is not finite.
    """
    fresh = first_ordinal(sides)
    stamp = max(barrier(sides.ours.part), barrier(sides.theirs.part))
    for ids in _blocks(_union(plan.taken, plan.revived)):
        rows = _read(sides.theirs, ids)
        ordinals, fresh = _ordinals(sides.ours, ids, fresh)
        yield _states(table, sides.shard, rows, ordinals, 0)
    for ids in _blocks(plan.changed):
        rows = resolved(sides, ids, resolver, scale, counted, stamp)
        ordinals, fresh = _ordinals(sides.ours, ids, fresh)
        yield _states(table, sides.shard, rows, ordinals, 0)
    for ids in _blocks(plan.removed):
        rows = _read(sides.ours, ids)
        gone = Rows(ids, rows.ordinals, np.full(len(ids), stamp, np.uint64), rows.rows, rows.state)
        yield _states(table, sides.shard, gone, rows.ordinals, int(TOMBSTONE))


def resolved(
    sides: Sides,
    ids: NDArray[np.uint64],
    resolver: Resolver,
    scale: float,
    counted: Counted | None,
    stamp: int,
) -> Rows:
    """Return what becomes of rows that both lines have changed."""
    a, b = _read(sides.ours, ids), _read(sides.theirs, ids)
    if resolver is Resolver.LATEST:
        newer = (b.lsn > a.lsn)[:, None]
        return Rows(
            ids,
            a.ordinals,
            np.maximum(a.lsn, b.lsn),
            np.where(newer, b.rows, a.rows),
            np.where(newer, b.state, a.state),
        )
    weight = np.full(len(ids), 0.5)
    if resolver is Resolver.MEAN:
        assert counted is not None, "a mean is weighted"
        n_a, n_b = trained(counted.ours, ids), trained(counted.theirs, ids)
        weight = n_a / np.maximum(n_a + n_b, 1)
        weight[n_a + n_b == 0] = 0.5
    share = weight[:, None]
    state = (share * a.state + (1 - share) * b.state).astype(np.float32)
    rows = share * a.rows + (1 - share) * b.rows
    if resolver is Resolver.TASK and sides.base is not None:
        base, known = _found(sides.base, ids)
        moved = base.rows + scale * ((a.rows.astype(np.float64) - base.rows) + (b.rows - base.rows))
        rows = np.where(known[:, None], moved, rows)  # born in both: there is nothing to add to
    with np.errstate(over="ignore"):
        single = rows.astype(np.float32)
    finite = np.isfinite(single).all(1)
    if not finite.all():
        raise InputError(
            f"id {ids[np.argmin(finite)]}: {resolver} with scale {scale:g} makes a row that is not finite"
        )
    return Rows(ids, a.ordinals, np.full(len(ids), stamp, np.uint64), single, state)


def trained(line: Sequence[tuple[PartReader, int, int]], ids: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return in how many versions of a line each row was trained: its LSN is one that they took in."""
    count = np.zeros(len(ids))
    for reader, begin, end in line:
        ordinals = reader.dictionary.find(ids)
        at = reader.locate(ordinals)
        found = reader.take(ids, ordinals, at).lsn
        count += at.found & (found >= np.uint64(begin)) & (found < np.uint64(end))
    return count


def checked_scale(scale: float) -> float:
    """Return the scale of task arithmetic; raises InputError."""
    if not math.isfinite(scale) or scale <= 0:
        raise InputError(f"scale {scale:g}: a number above 0, e.g. 1, or 0.5 for the mean of the changes")
    return scale


def _since(sides: Sides, line: PartReader) -> PartDiff:
    if sides.base is not None:
        return part_diff(sides.shard, sides.base, line)
    nothing = np.zeros(0, np.uint64)
    added = [block.ids for block in line.blocks(_BLOCK)]
    every = np.sort(np.concatenate(added)) if added else nothing
    return PartDiff(sides.shard, nothing, np.zeros(0, np.float32), every, nothing)


def _unlike(sides: Sides, ids: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return those ids whose rows or states differ between the lines."""
    differ = []
    for some in _blocks(ids):
        a, b = _read(sides.ours, some), _read(sides.theirs, some)
        rows = (a.rows.view(np.uint32) != b.rows.view(np.uint32)).any(1)
        differ.append(some[rows | (a.state.view(np.uint32) != b.state.view(np.uint32)).any(1)])
    return np.concatenate(differ) if differ else ids


def _found(reader: PartReader, ids: NDArray[np.uint64]) -> tuple[Rows, NDArray[np.bool_]]:
    ordinals = reader.dictionary.find(ids)
    at = reader.locate(ordinals)
    return reader.take(ids, ordinals, at), at.found


def _read(reader: PartReader, ids: NDArray[np.uint64]) -> Rows:
    return _found(reader, ids)[0]


def _ordinals(ours: PartReader, ids: NDArray[np.uint64], fresh: int) -> tuple[NDArray[np.uint32], int]:
    """Return the ordinal of each id, from `fresh` on where `ours` has no row of it, and what is next."""
    known = ours.dictionary.find(ids)
    born = ~ours.locate(known).found
    count = int(np.count_nonzero(born))
    known[born] = np.arange(fresh, fresh + count)
    return known.astype(np.uint32), fresh + count


def _states(table: str, shard: int, rows: Rows, ordinals: NDArray[np.uint32], flag: int) -> States:
    flags = np.full(len(rows), flag, np.uint8)
    return States(table, shard, rows.ids, ordinals, rows.lsn, rows.rows, rows.state, flags)


def _union(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return np.union1d(one, other)


def _blocks(ids: NDArray[np.uint64]) -> Iterator[NDArray[np.uint64]]:
    return (ids[start : start + _BLOCK] for start in range(0, len(ids), _BLOCK))
