"""What a report shows, read from the store and the control topic.

Invariant: reads only. A log that is not there, or does not answer, is told in the notes and the rest
is shown; a version that cannot be read is an error, because a page without it would look healthy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from driftline import clock
from driftline.control import Told
from driftline.drift.measures.base import Ids
from driftline.errors import InputError, UnknownVersionError
from driftline.report.alarms import alarms
from driftline.report.comparing import Moved, Rows, compare_tables
from driftline.report.domains import Domains
from driftline.report.lineage import lineage
from driftline.report.model import Report, TableComparison
from driftline.report.sampling import Sizes, choose
from driftline.report.timeline import timeline
from driftline.report.views import REDUCTIONS
from driftline.versions import (
    Manifest,
    Repository,
    TableReader,
    diff,
    labels_of,
    read_all,
    resolve,
)

MOST_TABLES = 2
"""Tables on a page: each takes up to 2.5 MB of it."""

OnStep = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Ask:
    """What is to be shown. Raises InputError for a reduction that does not exist."""

    before: str | None = None  # reference; None: the parent of `after`
    after: str = "latest"
    tables: Sequence[str] = ()  # none: all, if they are few
    domains: Mapping[str, Domains] = field(default_factory=dict)  # by table
    reductions: Collection[str] = tuple(REDUCTIONS)  # as far as their packages are there
    sizes: Sizes = field(default_factory=Sizes)

    def __post_init__(self) -> None:
        for name in self.reductions:
            if name not in REDUCTIONS:
                raise InputError(f"view {name!r}: one of {', '.join(REDUCTIONS)}")


def gather(
    repository: Repository,
    told: Sequence[Told],
    ask: Ask,
    program: str,
    *,
    notes: Sequence[str] = (),
    on_step: OnStep = lambda what: None,
    now: clock.Clock = clock.system,
) -> Report:
    """Return the report of a group.

    Raises UnknownVersionError, UnknownTableError, InputError, and what reading versions raises.
    """
    on_step("manifests")
    manifests = read_all(repository)
    said = list(notes)
    after = resolve(repository, ask.after)
    before = _before(repository, ask, after.manifest, said)
    compared: list[TableComparison] = []
    if before is not None:
        named = {after.reference.table, *ask.tables} - {None}
        for table in _tables(before, after.manifest, sorted(filter(None, named))):
            on_step(table)
            compared.append(_compared(repository, before, after.manifest, table, ask))
    unused = sorted(set(ask.domains) - {each.table for each in compared})
    if unused and compared:
        raise InputError(f"domains of {unused[0]!r}: not a table of the report")
    events = timeline(told, manifests)
    return Report(
        group=repository.group,
        made=now(),
        program=program,
        before=before.version if before is not None else "",
        after=after.manifest.version,
        notes=tuple(said),
        timeline=events.entries,
        timeline_left_out=events.left_out,
        alarms=alarms(told),
        lineage=lineage(manifests, labels_of(repository)),
        tables=tuple(compared),
    )


def _before(repository: Repository, ask: Ask, after: Manifest, notes: list[str]) -> Manifest | None:
    if ask.before is not None:
        return resolve(repository, ask.before).manifest
    if after.parent is None:
        notes.append(f"{after.version} is the first of its line: there is nothing to compare it with.")
        return None
    try:
        return repository.manifest(after.parent)
    except UnknownVersionError:
        notes.append(f"{after.parent}, the parent of {after.version}, was removed: nothing is compared.")
        return None


def _tables(before: Manifest, after: Manifest, named: Sequence[str]) -> Sequence[str]:
    for each in named:
        before.table(each)
        after.table(each)
    tables = named or [name for name in after.tables if name in before.tables]
    if not tables:
        raise InputError(f"{before.version} and {after.version} have no table in common")
    if len(tables) > MOST_TABLES:
        raise InputError(
            f"{len(tables)} tables ({', '.join(tables)}): a page shows {MOST_TABLES}; choose with --table"
        )
    return tables


def _compared(
    repository: Repository, before: Manifest, after: Manifest, table: str, ask: Ask
) -> TableComparison:
    readers = [TableReader(repository.cache, manifest, table) for manifest in (before, after)]
    parts = list(diff(*readers))
    changed = np.concatenate([part.changed for part in parts])
    # A row that became NaN went farther than any other.
    distance = np.nan_to_num(np.concatenate([part.distance for part in parts]), nan=np.inf, posinf=np.inf)
    order = np.lexsort((changed, -distance))
    moved = Moved(changed[order], distance[order])
    old, new = (live_ids(reader) for reader in readers)
    common = np.intersect1d(old, new, assume_unique=True)
    chosen = choose(common, np.union1d(old, new), moved.ids[moved.distance > 0], ask.sizes)
    return compare_tables(
        table,
        _rows(readers[0], old, chosen.pool),
        _rows(readers[1], new, chosen.pool),
        moved,
        chosen,
        ask.domains.get(table),
        ask.reductions,
    )


def live_ids(reader: TableReader) -> Ids:
    """Return the ids of all rows, ascending, without reading the rows."""
    found = [np.empty(0, np.uint64)]
    for shard in range(reader.shards):
        part = reader.part(shard)
        codes = part.codes()
        found.append(part.dictionary.ids(len(codes))[np.flatnonzero(codes)])
    return np.sort(np.concatenate(found))


def _rows(reader: TableReader, everything: Ids, pool: Ids) -> Rows:
    ids = np.intersect1d(everything, pool, assume_unique=True)
    return Rows(reader.manifest.version, everything, ids, reader.rows(ids).rows.rows)
