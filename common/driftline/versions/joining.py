"""From two branches to a version with two parents: what `driftline merge` does.

Invariant: a merge changes no version and no live table; it is a commit on the head of a branch,
under a `txn` that follows from both parents and the way of resolving, so repeated it commits
once. It continues the log where its first parent stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from driftline.errors import InputError
from driftline.frames.states import TOMBSTONE
from driftline.ids import lsn
from driftline.versions.committing import Draft, commit
from driftline.versions.delta import DeltaBuffer
from driftline.versions.documents import checksum
from driftline.versions.history import OnProgress
from driftline.versions.lineage import Lines, lines_of
from driftline.versions.manifest import MAIN, Manifest, PartManifest, Place, TableManifest
from driftline.versions.merging import (
    Counted,
    PartMerge,
    Resolver,
    Sides,
    checked_scale,
    first_ordinal,
    plan_part,
    states_of,
)
from driftline.versions.parts import PartReader
from driftline.versions.partspec import PartSpec
from driftline.versions.repository import Repository
from driftline.versions.sealing import seal_part


@dataclass(frozen=True, slots=True)
class TableMerge:
    """What a merge changes in one table of `ours`; ids increasing, each in one group."""

    table: str
    taken: NDArray[np.uint64]  # changed or born in theirs alone
    removed: NDArray[np.uint64]  # removed in theirs alone
    changed: NDArray[np.uint64]  # conflicts: changed, or born, in both, and not alike
    kept: NDArray[np.uint64]  # conflicts: removed in theirs, trained on in ours
    revived: NDArray[np.uint64]  # conflicts: removed in ours, trained on in theirs

    @property
    def conflicts(self) -> int:
        """Number of rows that both lines have changed."""
        return len(self.changed) + len(self.kept) + len(self.revived)


@dataclass(frozen=True, slots=True)
class Merge:
    """A merge: what came of it, or would."""

    ours: str
    theirs: str
    ancestor: str  # theirs: there is nothing to merge
    tables: tuple[TableMerge, ...]
    manifest: Manifest | None  # None: only planned; of `ours` where there is nothing to merge


def plan_merge(
    repository: Repository,
    theirs: str,
    branch: str = MAIN,
    on_progress: OnProgress = lambda done, total: None,
) -> Merge:
    """Return what merging version `theirs` into a branch would change; raises as `merge` does."""
    lines = lines_of(repository, theirs, branch)
    if lines.merged_before:
        return Merge(lines.ours.version, theirs, theirs, (), None)
    shards = list(_shards(repository, lines))
    plans: dict[str, list[PartMerge]] = {}
    for done, (name, sides) in enumerate(shards, 1):
        plans.setdefault(name, []).append(plan_part(sides))
        on_progress(done, len(shards))
    tables = tuple(_together(name, plans[name]) for name in plans)
    return Merge(lines.ours.version, theirs, lines.ancestor.version, tables, None)


def merge(
    repository: Repository,
    theirs: str,
    branch: str = MAIN,
    *,
    resolver: Resolver = Resolver.LATEST,
    scale: float = 1.0,
    scenario: str | None = None,
    writer: str = "",
    on_progress: OnProgress = lambda done, total: None,
) -> Merge:
    """Merge version `theirs` into a branch; return the version made, whose parents are its head and `theirs`.

    `scale`: of task arithmetic. `scenario`: another than the branch's makes a new major. Raises
    UnknownVersionError, also where the common ancestor, or for a mean a version since it, was removed;
    LossyVersionError; InputError for tables of different shapes; VersionRaceError if the branch has
    moved on meanwhile: then begin again.
    """
    lines = lines_of(repository, theirs, branch)
    ours = lines.ours
    if lines.merged_before:
        return Merge(ours.version, theirs, theirs, (), ours)
    way = f"{resolver}-{checked_scale(scale):g}" if resolver is Resolver.TASK else str(resolver)
    txn = f"merge-{ours.version}-{theirs}-{checksum(f'{way} {scenario}'.encode())[:8]}"
    plans: dict[str, list[PartMerge]] = {}
    parts: dict[str, list[PartManifest]] = {}
    shards = list(_shards(repository, lines))
    for done, (name, sides) in enumerate(shards, 1):
        plan = plan_part(sides)
        counted = _counted(repository, lines, name, sides.shard) if resolver is Resolver.MEAN else None
        parts.setdefault(name, []).append(
            _merged_part(repository, txn, name, sides, plan, resolver, scale, counted)
        )
        plans.setdefault(name, []).append(plan)
        on_progress(done, len(shards))
    tables = tuple(_together(name, plans[name]) for name in plans)
    told = {
        "ancestor": lines.ancestor.version,
        "resolver": way,
        "conflicts": sum(t.conflicts for t in tables),
    }
    draft = Draft(
        txn=txn,
        scenario=scenario or ours.name.scenario,
        tables=_tables(lines, parts),
        branch=branch,
        parents=(ours.version, theirs),
        writer=writer,
        metadata={"merge": told},
        attachments=ours.attachments,
    )
    return Merge(ours.version, theirs, lines.ancestor.version, tables, commit(repository, draft))


def _shards(repository: Repository, lines: Lines) -> Iterable[tuple[str, Sides]]:
    """Yield the shards of the tables that both versions have."""
    for name, table in lines.ours.tables.items():
        other = lines.theirs.tables.get(name)
        if other is None:
            continue
        shapes = [(each.dim, each.state_size, len(each.parts), each.schema) for each in (table, other)]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"{name} has dim {table.dim}, {table.state_size} of state and {len(table.parts)} shards in "
                f"{lines.ours.version}, {other.dim}, {other.state_size} and {len(other.parts)} in "
                f"{lines.theirs.version}, or another optimizer or type: such rows cannot be merged"
            )
        before = lines.ancestor.tables.get(name)
        same = before is not None and (before.dim, before.state_size, len(before.parts)) == shapes[0][:3]
        for shard in range(len(table.parts)):
            readers = [
                PartReader(repository.cache, each.parts[shard], table.dim, table.state_size)
                for each in (table, other, *((before,) if same and before is not None else ()))
            ]
            yield name, Sides(shard, readers[2] if len(readers) > 2 else None, readers[0], readers[1])


def _merged_part(
    repository: Repository,
    txn: str,
    table: str,
    sides: Sides,
    plan: PartMerge,
    resolver: Resolver,
    scale: float,
    counted: Counted | None,
) -> PartManifest:
    ours = sides.ours
    delta, first, born = DeltaBuffer(ours.dim, ours.state_size), first_ordinal(sides), 0
    for states in states_of(table, sides, plan, resolver, scale, counted):
        born += int(np.count_nonzero((states.ordinals >= first) & (states.flags != TOMBSTONE)))
        delta.add(states)
    if not len(delta):
        delta.close()
        return replace(ours.part, begin=ours.part.place.number("next"), base="", changed=0)
    known = ours.part.place.position
    now: dict[str, object] = {"rows": ours.part.rows + born - len(plan.removed), "ord": first + born}
    place = Place(
        {**known, **{name: value for name, value in now.items() if name in known}},
        ours.part.place.tensors,
        ours.part.place.updates,
    )
    spec = PartSpec(table, sides.shard, ours.dim, ours.state_size, txn)
    try:
        return seal_part(spec, ours.part, delta, place, repository.cache, repository.put)
    finally:
        delta.close()


def _counted(repository: Repository, lines: Lines, table: str, shard: int) -> Counted:
    return Counted(
        _taken_in(repository, lines.our_line, lines.ours, table, shard),
        _taken_in(repository, lines.their_line, lines.theirs, table, shard),
    )


def _taken_in(
    repository: Repository, line: Sequence[Manifest], last: Manifest, table: str, shard: int
) -> list[tuple[PartReader, int, int]]:
    """Return one shard along a line, with the LSNs that each version took in. Raises UnknownVersionError."""
    oldest = line[-1] if line else last
    if line and oldest.parent is not None:
        repository.manifest(oldest.parent)  # raises if the line is broken off there
    found = []
    for each in line:
        known = each.tables.get(table)
        if known is None:
            continue
        part = known.parts[shard]
        generation, end = part.place.number("gen"), part.place.number("next")
        reader = PartReader(repository.cache, part, known.dim, known.state_size)
        found.append((reader, lsn(generation, min(part.begin, end)), lsn(generation, end)))
    return found


def _tables(lines: Lines, parts: Mapping[str, Sequence[PartManifest]]) -> dict[str, TableManifest]:
    """Return the tables of the merge: those of one line alone are that line's as they are."""
    tables = {**lines.theirs.tables, **lines.ours.tables}
    for name, merged in parts.items():
        table = lines.ours.tables[name]
        same = all(new.segments == old.segments for new, old in zip(merged, table.parts, strict=True))
        # a neighbour graph is of the rows it was made of
        tables[name] = replace(table, parts=tuple(merged), graph=table.graph if same else None)
    return tables


def _together(name: str, plans: Sequence[PartMerge]) -> TableMerge:
    def joined(some: Iterable[NDArray[np.uint64]]) -> NDArray[np.uint64]:
        return np.sort(np.concatenate(list(some)))

    return TableMerge(
        name,
        joined(each.taken for each in plans),
        joined(each.removed for each in plans),
        joined(each.changed for each in plans),
        joined(each.kept for each in plans),
        joined(each.revived for each in plans),
    )
