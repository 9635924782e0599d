"""Reads rows: one pipeline of commands per server, and the replies decoded by numpy.

Invariant: a shard's position is read in the same pipeline before its rows, so
the rows are at least as new as the position says. Pure: packs and unpacks bytes.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from driftline.client.asking import Answer, Request, position_command
from driftline.client.landing import NOWHERE, Values, evenly, offsets, stride_of
from driftline.errors import InputError, StoreUnavailableError
from driftline.ids import lsn, shard_of_hash, splitmix64
from driftline.rows import resp
from driftline.rows.connection import Reply
from driftline.rows.layout import RowLayout, ShardKeys, join
from driftline.shard.numerics import initial_rows
from driftline.shard.spec import TableSpec

INIT, ZERO, RAISE, MASK = "init", "zero", "raise", "mask"
ON_MISSING = (INIT, ZERO, RAISE, MASK)
_READ = (list, Values)
POSITION = (b"next", b"gen", b"epoch")
"""What a read asks of a shard's position."""


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
    """The ids of one read, grouped by shard; an id given several times is asked for once, or little more."""

    ids: NDArray[np.uint64]
    home: NDArray[np.int64]  # (n,): their shards
    order: NDArray[np.intp]  # (k,): places in `ids` of those asked for, shard by shard
    counts: dict[int, int]  # shard -> number of ids asked for, in order of shards
    spread: NDArray[np.intp]  # (n,): place in `order` of each id

    @classmethod
    def of(cls, ids: NDArray[np.uint64], shards: int) -> Query:
        """Group `ids` by shard."""
        hashes = splitmix64(ids)
        first, asked = _distinct(ids, hashes)
        home = shard_of_hash(hashes, shards)
        homes = home[asked]
        counts = np.bincount(homes, minlength=shards).tolist()
        order = asked[np.argsort(homes.astype(np.uint8 if shards <= 256 else np.uint16), kind="stable")]
        place = np.empty(len(ids), np.intp)
        place[order] = np.arange(len(order))
        counted = {shard: count for shard, count in enumerate(counts) if count}
        return cls(ids, home, order, counted, place[first])

    def requests(self, table: str) -> list[Request]:
        """Return what to ask of each shard: its position, then its rows."""
        return [
            Request(shard, (position_command(table, shard, POSITION), *command), 2, count)
            for (shard, command), count in zip(self.live(table), self.counts.values(), strict=True)
        ]

    def live(self, table: str) -> Iterator[tuple[int, tuple[bytes, memoryview]]]:
        """Yield each shard and the command that reads its ids from the live rows, in two pieces."""
        return self._commands(lambda shard: _command(table, shard))

    def arguments(self, key: Callable[[int], bytes]) -> Iterator[tuple[int, tuple[bytes, memoryview]]]:
        """The same from the hash `key(shard)`."""
        return self._commands(lambda shard: _hmget(key(shard)))

    def _commands(self, head: Callable[[int], bytes]) -> Iterator[tuple[int, tuple[bytes, memoryview]]]:
        arguments = resp.id_arguments(self.ids[self.order])
        begin = 0
        for shard, count in self.counts.items():
            rows = arguments[begin * resp.ID_ARGUMENT : (begin + count) * resp.ID_ARGUMENT]
            yield shard, (b"*%d\r\n%b" % (2 + count, head(shard)), rows)
            begin += count

    def decode(
        self, replies: Sequence[Answer], spec: TableSpec, on_missing: str, landed: bytes | bytearray = b""
    ) -> Rows:
        """Return the rows in the replies to `requests`; `landed` is the buffer that `Values` mean.

        Raises InputError for missing rows on `raise`, StoreUnavailableError where Redis refused.
        """
        check_replies(replies, spec.name)
        read, epochs = self._positions(cast("Sequence[list[bytes | None]]", replies[::2]))
        layout = RowLayout.of(spec)
        data, where, present = self._located(replies[1::2], layout.value_bytes, landed)
        # one copy from where the values lie to where the caller wants them
        vectors = _at(data, where, 0, f"V{layout.row_bytes}").view("<f4").reshape(len(where), spec.dim)
        changed = _at(data, where, layout.row_bytes, "<u8")
        found = np.ones(len(where), bool) if present is None else present
        if present is not None:
            self._fill(vectors, found, spec, on_missing)
        return Rows(vectors, found, changed, read, epochs)

    def _located(
        self, replies: Sequence[Answer], length: int, landed: bytes | bytearray
    ) -> tuple[bytes | bytearray, NDArray[np.intp], NDArray[np.bool_] | None]:
        """Return the bytes in which values lie, where each id's begins, and which exist (None: all)."""
        if not replies:
            return bytes(length), self.spread, None
        if not isinstance(replies[0], Values):
            values = list(itertools.chain.from_iterable(cast("Sequence[list[bytes | None]]", replies)))
            exist, joined = join(values, length)
            return joined, self.spread * length, None if exist is None else exist[self.spread]
        found = cast("Sequence[Values]", replies)
        stride = stride_of(length)
        if (begins := evenly(found, stride)) is not None:  # as it nearly always is
            places = self.spread * stride
            if len(begins) == 1:
                places += begins[0]
            else:
                by_shard = np.zeros(max(self.counts) + 1, np.intp)
                by_shard[list(self.counts)] = begins
                places += by_shard[self.home]
            return landed, places, None
        places = offsets(found)[self.spread]
        present = places != NOWHERE
        return landed, places, None if present.all() else present

    def _positions(self, replies: Sequence[list[bytes | None]]) -> tuple[dict[int, int], dict[int, int]]:
        read: dict[int, int] = {}
        epochs: dict[int, int] = {}
        for shard, (following, generation, restores, _) in zip(self.counts, replies, strict=True):
            if following is not None and generation is not None:
                read[shard] = lsn(int(generation), int(following))
                epochs[shard] = int(restores or b"0")
        return read, epochs

    def _fill(
        self, vectors: NDArray[np.float32], found: NDArray[np.bool_], spec: TableSpec, on_missing: str
    ) -> None:
        if on_missing == ZERO:
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


def _distinct(
    ids: NDArray[np.uint64], hashes: NDArray[np.uint64]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return for each id the place of one like it, and these places, ascending.

    By one write into a table of hashes and one look: a third of the time of sorting. Ids whose hashes
    meet there may stay several.
    """
    each = np.arange(len(ids))
    bits = 2 + len(ids).bit_length()
    slots = (hashes >> np.uint64(64 - bits)).view(np.intp)
    table = np.empty(1 << bits, np.intp)
    table[slots] = each
    first = table[slots]
    np.copyto(first, each, where=ids[first] != ids)
    return first, np.flatnonzero(first == each)


def _at(data: bytes | bytearray, where: NDArray[np.intp], offset: int, kind: str) -> NDArray[Any]:
    """Return what lies `offset` behind the places `where`, whatever their alignment."""
    item = np.dtype(kind)
    every = np.ndarray((len(data) - offset - item.itemsize + 1,), item, data, offset, (1,))
    return np.asarray(every[where])


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


def check_replies(replies: Sequence[Answer], table: str) -> None:
    """Raise StoreUnavailableError unless all are positions and values."""
    for reply in replies:
        if not isinstance(reply, _READ):
            raise StoreUnavailableError(f"Redis refused a read of table {table}: {reply!r}")


def check_on_missing(on_missing: str) -> None:
    """Raise InputError unless `on_missing` is one of ON_MISSING."""
    if on_missing not in ON_MISSING:
        raise InputError(f"on_missing {on_missing!r}: one of {', '.join(ON_MISSING)}")
