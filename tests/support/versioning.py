"""Live tables as dictionaries, and versions made of them: what version tests are told in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from driftline.frames.states import TOMBSTONE, States
from driftline.ids import lsn, shard_of
from driftline.versions import (
    DeltaBuffer,
    Draft,
    Manifest,
    PartManifest,
    PartSpec,
    Place,
    Repository,
    TableManifest,
    TableReader,
    commit,
    open_repository,
    seal_part,
)
from driftline.versions.partspec import MOST_SEGMENTS, Sink
from driftline.versions.stores import ObjectStore

DIM, STATE, SHARDS = 3, 1, 2
GRACE = 1000.0

Row = tuple[int, int, bytes, bytes]  # ordinal, LSN, row, state
Contents = dict[str, dict[int, Row]]  # table -> id -> row


@dataclass
class Clock:
    """Stands still until it is turned."""

    time: float = 1_000_000.0

    def __call__(self) -> float:
        return self.time


@dataclass
class Shard:
    """One shard of a live table."""

    next: int = 0  # offset
    ordinal: int = 0
    updates: int = 0
    rows: dict[int, Row] = field(default_factory=dict)


class Live:
    """The live tables of a group, and what changed since the version they were committed as."""

    def __init__(self, tables: Iterable[str] = ("items",), shards: int = SHARDS) -> None:
        self.shards: dict[str, list[Shard]] = {name: [Shard() for _ in range(shards)] for name in tables}
        self.deltas: dict[str, list[DeltaBuffer]] = {}
        self.count = shards
        self.forget_changes()

    def forget_changes(self) -> None:
        self.deltas = {name: [DeltaBuffer(DIM, STATE) for _ in range(self.count)] for name in self.shards}

    def upsert(self, ids: Iterable[int], table: str = "items") -> None:
        """Give each id a new row, by one record per shard."""
        self._record(list(ids), table, dead=False)

    def delete(self, ids: Iterable[int], table: str = "items") -> None:
        """Delete ids, known or not."""
        self._record(list(ids), table, dead=True)

    def contents(self) -> Contents:
        return {
            name: {row: value for shard in shards for row, value in shard.rows.items()}
            for name, shards in self.shards.items()
        }

    def draft(
        self,
        repository: Repository,
        txn: str,
        parent: Manifest | None,
        *,
        base: Manifest | None = None,
        **more: object,
    ) -> Draft:
        """Seal what changed since `base` (the parent, unless given) into a draft."""
        tables = self.sealed(repository, txn, base or parent, repository.put)
        draft = Draft(
            txn,
            "R",
            tables,
            parents=(parent.version,) if parent is not None else (),
            base=base.version if base is not None else "",
        )
        return replace(draft, **more)  # type: ignore[arg-type]

    def sealed(
        self,
        repository: Repository,
        txn: str,
        base: Manifest | None,
        sink: Sink,
        owner_every: int = 4,
        most_segments: int = MOST_SEGMENTS,
    ) -> Mapping[str, TableManifest]:
        tables = {}
        for name, shards in self.shards.items():
            before: tuple[PartManifest | None, ...] = (None,) * self.count
            if base is not None and name in base.tables:
                before = base.tables[name].parts
            parts = [
                seal_part(
                    PartSpec(
                        name, number, DIM, STATE, txn, owner_every=owner_every, most_segments=most_segments
                    ),
                    before[number],
                    self.deltas[name][number],
                    Place({"next": shard.next, "gen": 1, "rows": len(shard.rows)}, {}, shard.updates),
                    repository.cache,
                    sink,
                )
                for number, shard in enumerate(shards)
            ]
            tables[name] = TableManifest(DIM, STATE, "schema", tuple(parts))
        return tables

    def commit(self, repository: Repository, txn: str, parent: Manifest | None, **more: object) -> Manifest:
        """Commit what changed as the next version."""
        committed = commit(repository, self.draft(repository, txn, parent, **more))  # type: ignore[arg-type]
        self.forget_changes()
        return committed

    def restore(self, contents: Contents) -> None:
        """Put rows back as they were; ordinals and offsets go on."""
        for name, shards in self.shards.items():
            for number, shard in enumerate(shards):
                shard.rows = {
                    row: value for row, value in contents[name].items() if _shard(row, self.count) == number
                }
                shard.next += 1
        self.forget_changes()

    def _record(self, ids: list[int], table: str, *, dead: bool) -> None:
        for number, shard in enumerate(self.shards[table]):
            mine = [row for row in dict.fromkeys(ids) if _shard(row, self.count) == number]
            if not mine:
                continue
            at = lsn(1, shard.next)
            shard.next += 1
            shard.updates += 1
            ordinals = []
            for row in mine:
                known = shard.rows.get(row)
                ordinals.append(known[0] if known is not None else shard.ordinal)
                if known is None and not dead:
                    shard.ordinal += 1
            rows = np.array([[row % 97 + at % 1009, k, 0.5] for k, row in enumerate(mine)], np.float32)
            state = rows[:, :STATE] * np.float32(2)
            flags = np.full(len(mine), TOMBSTONE if dead else 2, np.uint8)
            self.deltas[table][number].add(
                States(
                    table,
                    number,
                    np.array(mine, np.uint64),
                    np.array(ordinals, np.uint32),
                    np.full(len(mine), at, np.uint64),
                    rows,
                    state,
                    flags,
                )
            )
            for place, row in enumerate(mine):
                if dead:
                    shard.rows.pop(row, None)
                else:
                    shard.rows[row] = (ordinals[place], at, rows[place].tobytes(), state[place].tobytes())


def read_contents(repository: Repository, manifest: Manifest) -> Contents:
    """Return all rows of a version, as its blocks give them; and see that reads by id agree."""
    contents: Contents = {}
    for name in manifest.tables:
        reader = TableReader(repository.cache, manifest, name)
        rows = contents.setdefault(name, {})
        for shard in range(reader.shards):
            for block in reader.blocks(shard, 7):
                for at in range(len(block)):
                    row = int(block.ids[at])
                    assert row not in rows, "a row twice"
                    rows[row] = (
                        int(block.ordinals[at]),
                        int(block.lsn[at]),
                        block.rows[at].tobytes(),
                        block.state[at].tobytes(),
                    )
        assert rows_by_id(reader, list(rows)) == rows
    return contents


def rows_by_id(reader: TableReader, ids: list[int]) -> dict[int, Row]:
    """Return the rows that exist of some ids."""
    read = reader.rows(np.array(ids, np.uint64))
    return {
        row: (
            int(read.rows.ordinals[at]),
            int(read.rows.lsn[at]),
            read.rows.rows[at].tobytes(),
            read.rows.state[at].tobytes(),
        )
        for at, row in enumerate(ids)
        if read.found[at]
    }


def opened(store: ObjectStore, clock: Clock) -> Repository:
    """Return a repository with nothing cached."""
    return open_repository(store, "g", now=clock, grace=GRACE)


def _shard(row: int, count: int) -> int:
    return int(shard_of(np.array([row], np.uint64), count)[0])
