"""Reads rows: one pipeline of commands per server, and the replies decoded by numpy.

Invariant: a shard's position is read in the same pipeline before its rows, so
the rows are at least as new as the position says. Pure: packs and unpacks bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from driftline.client.asking import Request
from driftline.errors import InputError, StoreUnavailableError
from driftline.ids import lsn, shard_of
from driftline.rows import resp
from driftline.rows.connection import Reply
from driftline.rows.layout import RowLayout, ShardKeys, join
from driftline.shard.numerics import initial_rows
from driftline.shard.spec import TableSpec

INIT, ZERO, RAISE, MASK = "init", "zero", "raise", "mask"
ON_MISSING = (INIT, ZERO, RAISE, MASK)
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
        grouped = self.ids[self.order]
        asked: list[Request] = []
        begin = 0
        for shard, count in self.counts.items():
            rows = resp.on_ids(b"HMGET", ShardKeys.of(table, shard).values, grouped[begin : begin + count])
            asked.append(Request.of(table, shard, _POSITION, *rows, replies=2))
            begin += count
        return asked

    def decode(self, replies: Sequence[Reply], spec: TableSpec, on_missing: str) -> Rows:
        """Return the rows in the replies to `requests`. Raises InputError for missing rows on `raise`."""
        for reply in replies:
            if not isinstance(reply, list):
                raise StoreUnavailableError(f"Redis refused a read of table {spec.name}: {reply!r}")
        values: list[bytes | None] = []
        read: dict[int, int] = {}
        epoch: dict[int, int] = {}
        for at, shard in enumerate(self.counts):
            following, generation, restores, _ = cast("list[bytes | None]", replies[2 * at])
            if following is not None and generation is not None:
                read[shard] = lsn(int(generation), int(following))
                epoch[shard] = int(restores or b"0")
            values += cast("list[bytes | None]", replies[2 * at + 1])
        layout = RowLayout.of(spec)
        present, packed = join(values, layout.value_bytes)
        found, raw = np.empty(len(present), bool), np.empty_like(packed[:, : layout.row_bytes + 8])
        found[self.order] = present
        raw[self.order] = packed[:, : layout.row_bytes + 8]
        vectors = np.ascontiguousarray(raw[:, : layout.row_bytes]).view("<f4")
        last = np.ascontiguousarray(raw[:, layout.row_bytes :]).view("<u8")[:, 0]
        self._fill(vectors, found, spec, on_missing)
        return Rows(vectors, found, last, read, epoch)

    def _fill(
        self, vectors: NDArray[np.float32], found: NDArray[np.bool_], spec: TableSpec, on_missing: str
    ) -> None:
        if found.all() or on_missing == ZERO:
            return
        absent = ~found
        if on_missing == RAISE:
            raise InputError(
                f"table {spec.name}: {np.count_nonzero(absent)} of {len(found)} ids have no row, "
                f"the first is {self.ids[absent][0]}"
            )
        if on_missing == MASK:
            vectors[absent] = np.nan
        else:
            vectors[absent] = initial_rows(self.ids[absent], spec.dim, spec.init.seed, spec.scale)


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


def check_on_missing(on_missing: str) -> None:
    """Raise InputError unless `on_missing` is one of ON_MISSING."""
    if on_missing not in ON_MISSING:
        raise InputError(f"on_missing {on_missing!r}: one of {', '.join(ON_MISSING)}")
