"""Reads rows: one pipeline of commands per server, and the replies decoded by numpy.

Invariant: a shard's position is read in the same pipeline before its rows, so
the rows are at least as new as the position says. Pure: packs and unpacks bytes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from driftline.client.asking import Request, position_command
from driftline.errors import InputError, StoreUnavailableError
from driftline.ids import lsn, shard_of
from driftline.rows import resp
from driftline.rows.connection import Reply
from driftline.rows.layout import RowLayout, ShardKeys, join
from driftline.shard.numerics import initial_rows
from driftline.shard.spec import TableSpec

INIT, ZERO, RAISE, MASK = "init", "zero", "raise", "mask"
ON_MISSING = (INIT, ZERO, RAISE, MASK)
EPOCH = "epoch"
"""For reads that must not mix what was before a restore with what is behind it."""
_POSITION = (b"next", b"gen", b"epoch")


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows as they were read, in the order of the ids asked for."""

    vectors: NDArray[np.float32]  # (n, d)
    found: NDArray[np.bool_]  # (n,): the row exists; else `vectors` follows `on_missing`
    lsn: NDArray[np.uint64]  # (n,): the last event that changed the row, 0 where it does not exist
    read: Mapping[int, int]  # shard -> LSN of its next record when the rows were read
    epoch: Mapping[int, int]  # shard -> restores so far

    def __len__(self) -> int:
        return len(self.vectors)


@functools.lru_cache(1 << 14)
def _command(table: str, shard: int) -> bytes:
    """Return the name and the key of the command that reads rows of a shard."""
    return _hmget(ShardKeys.of(table, shard).values)


def _hmget(key: bytes) -> bytes:
    return resp.head(2, b"HMGET", key).removeprefix(b"*2\r\n")


@dataclass(frozen=True, slots=True)
class Query:
    """The ids of one read, grouped by shard."""

    ids: NDArray[np.uint64]
    order: NDArray[np.intp]  # places in `ids`, shard by shard
    counts: dict[int, int]  # shard -> number of ids, in order of shards

    @classmethod
    def of(cls, ids: NDArray[np.uint64], shards: int) -> Query:
        """Group `ids` by shard."""
        home = shard_of(ids, shards)
        counts = np.bincount(home, minlength=shards).tolist()
        order = np.argsort(home.astype(np.uint16), kind="stable")
        return cls(ids, order, {shard: count for shard, count in enumerate(counts) if count})

    def requests(self, table: str) -> list[Request]:
        """Return what to ask of each shard: its position, then its rows."""
        return [
            Request.of(table, shard, _POSITION, *rows, replies=2)
            for shard, rows in self.arguments(lambda shard: ShardKeys.of(table, shard).values, table)
        ]

    def requests_twice(self, table: str) -> list[Request]:
        """Return what to ask of each shard: its position, its rows, and its position once more."""
        return [
            Request.of(table, shard, _POSITION, *rows, position_command(table, shard, _POSITION), replies=3)
            for shard, rows in self.arguments(lambda shard: ShardKeys.of(table, shard).values, table)
        ]

    def arguments(
        self, key: Callable[[int], bytes], live: str | None = None
    ) -> Iterator[tuple[int, tuple[bytes, memoryview]]]:
        """Yield each shard and the command that reads its ids from the hash `key(shard)`, in two pieces.

        `live`: the table whose live rows these are; their commands are kept.
        """
        arguments = resp.id_arguments(self.ids[self.order])
        begin = 0
        for shard, count in self.counts.items():
            name = _command(live, shard) if live is not None else _hmget(key(shard))
            rows = arguments[begin * resp.ID_ARGUMENT : (begin + count) * resp.ID_ARGUMENT]
            yield shard, (b"*%d\r\n%b" % (2 + count, name), rows)
            begin += count

    def decode(self, replies: Sequence[Reply], spec: TableSpec, on_missing: str) -> Rows:
        """Return the rows in the replies to `requests`. Raises InputError for missing rows on `raise`."""
        reading = Reading(self, spec)
        for at, shard in enumerate(self.counts):
            reading.take(shard, replies[2 * at : 2 * at + 2])
        return reading.rows(on_missing)


class Reading:
    """The rows of one query while answers arrive; taking a shard's answer again replaces the first one."""

    def __init__(self, query: Query, spec: TableSpec) -> None:
        self._query, self._spec = query, spec
        layout = RowLayout.of(spec)
        self._value_bytes, self._fields = layout.value_bytes, layout.fields
        n = len(query.ids)
        self._vectors, self._found = np.empty((n, spec.dim), np.float32), np.ones(n, bool)
        self._lsn = np.empty(n, np.uint64)
        self._gaps: set[int] = set()  # shards with rows missing
        self._read: dict[int, int] = {}
        self._epoch: dict[int, int] = {}
        self._torn: set[int] = set()  # shards that were restored while they were read
        self._places: dict[int, NDArray[np.intp]] = {}
        begin = 0
        for shard, count in query.counts.items():
            self._places[shard] = query.order[begin : begin + count]
            begin += count

    def take(self, shard: int, replies: Sequence[Reply]) -> None:
        """Enter the answer of one shard. Raises StoreUnavailableError where Redis refused."""
        for reply in replies:
            if not isinstance(reply, list):
                raise StoreUnavailableError(f"Redis refused a read of table {self._spec.name}: {reply!r}")
        following, generation, restores, _ = cast("list[bytes | None]", replies[0])
        if following is not None and generation is not None:
            self._read[shard] = lsn(int(generation), int(following))
            self._epoch[shard] = int(restores or b"0")
            self._torn.discard(shard)
            if len(replies) > 2 and cast("list[bytes | None]", replies[2])[2] != restores:
                self._torn.add(shard)
        values, places = cast("list[bytes | None]", replies[1]), self._places[shard]
        present, joined = join(values, self._value_bytes)
        fields = np.frombuffer(joined, self._fields)  # scattered from where they lie, without a copy
        self._vectors[places] = fields["row"]
        self._lsn[places] = fields["lsn"]
        if present is not None:
            self._found[places] = present
            self._gaps.add(shard)
        elif shard in self._gaps:  # taken before, with rows missing
            self._found[places] = True

    @property
    def mixed(self) -> bool:
        """Whether the rows may be from before and behind a restore; to be asked after `requests_twice`."""
        return bool(self._torn) or len(set(self._epoch.values())) > 1

    def rows(self, on_missing: str) -> Rows:
        """Return all of them, in the order of the ids. Raises InputError for missing rows on `raise`."""
        vectors, found = self._vectors, self._found
        if not found.all() and on_missing != ZERO:
            absent = ~found
            ids, spec = self._query.ids, self._spec
            if on_missing == RAISE:
                raise InputError(
                    f"table {spec.name}: {np.count_nonzero(absent)} of {len(found)} ids have no row, "
                    f"the first is {ids[absent][0]}"
                )
            if on_missing == MASK:
                vectors[absent] = np.nan
            else:
                vectors[absent] = initial_rows(ids[absent], spec.dim, spec.init.seed, spec.scale)
        return Rows(vectors, found, self._lsn, self._read, self._epoch)


@dataclass(frozen=True, slots=True)
class PositionQuery:
    """Have these shards come as far as these offsets?"""

    offsets: tuple[int, ...]
    requests: tuple[Request, ...]

    @classmethod
    def of(cls, table: str, offsets: Mapping[int, int]) -> PositionQuery:
        """Ask for each shard of `offsets`."""
        asked = tuple(Request.of(table, shard, (b"next",)) for shard in offsets)
        return cls(tuple(offsets.values()), asked)

    def settled(self, replies: Sequence[Reply]) -> bool:
        """Tell whether every shard has come as far."""
        return all(
            isinstance(reply, list) and isinstance(reply[0], bytes) and int(reply[0]) >= offset
            for reply, offset in zip(replies, self.offsets, strict=True)
        )


def check_reading(on_missing: str, consistent: str | None, version: str | None) -> None:
    """Raise InputError unless the arguments of a read make sense, each and together."""
    check_on_missing(on_missing)
    if consistent not in (None, EPOCH):
        raise InputError(f"consistent {consistent!r}: {EPOCH!r} or None")
    if version is not None and consistent is not None:
        raise InputError("a deployed version never changes: consistent= goes with the live rows only")


def mixed_for(table: str, seconds: float) -> str:
    """Return what to say of a table whose shards are at different epochs for too long."""
    return (
        f"table {table}: its shards are at different epochs for {seconds} s, one waits for its version; "
        "`/readyz` of the aggregators says which and why"
    )


def check_on_missing(on_missing: str) -> None:
    """Raise InputError unless `on_missing` is one of ON_MISSING."""
    if on_missing not in ON_MISSING:
        raise InputError(f"on_missing {on_missing!r}: one of {', '.join(ON_MISSING)}")
