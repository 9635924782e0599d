"""One shard in a real Redis, and connections to it that fail on order.

Invariant: each rig has keys of its own, which are gone when it is closed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import redis

from driftline.errors import StoreUnavailableError
from driftline.log.base import Record
from driftline.rows.connection import Connection, RedisConnection, Reply
from driftline.rows.layout import RowLayout, ShardKeys
from driftline.rows.resp import Bytes
from driftline.rows.shard_store import ShardStore
from driftline.shard.machine import Delta, Shard
from tests.support.samples import (
    KEYRING,
    MINE,
    TABLE,
    feed,
    gradient,
    log_of,
    take,
)

A, B, C = MINE[:3]


ROWWISE = replace(TABLE, optimizer={"kind": "rowwise_adagrad"})


ADAM = replace(TABLE, optimizer={"kind": "adam"})


_names = itertools.count()


class Link:
    """A connection between a store and Redis whose exchanges fail, or are preceded, on order."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.opened = 0
        self.faults: dict[int, str] = {}  # number of the exchange -> "before" or "after"
        self.meanwhile: dict[int, Callable[[], object]] = {}  # runs between the replies and the caller
        self.exchanges = 0

    async def connect(self) -> Connection:
        self.opened += 1
        return Faulty(self, await RedisConnection.open(self.url))

    def fail_next(self, when: str) -> None:
        self.faults[self.exchanges] = when


class Faulty:
    def __init__(self, link: Link, connection: RedisConnection) -> None:
        self._link, self._connection = link, connection

    async def exchange(self, packed: Sequence[Bytes], replies: int) -> list[Reply]:
        link, number = self._link, self._link.exchanges
        link.exchanges += 1
        if link.faults.get(number) == "before":
            raise StoreUnavailableError("cut before it was sent")
        answers = await self._connection.exchange(packed, replies)
        if number in link.faults:
            raise StoreUnavailableError("cut before the reply")
        return answers

    async def close(self) -> None:
        await self._connection.close()


class Rig:
    """One shard in Redis, the truth beside it, and stores that fight for it."""

    def __init__(self, url: str) -> None:
        self.keys = ShardKeys.of(f"store-{next(_names)}", 0)
        self.url = url
        self.link = Link(url)
        self.redis = redis.Redis.from_url(url)
        self._stores: list[ShardStore] = []

    def store(self, owner: bytes = b"me") -> ShardStore:
        self._stores.append(ShardStore(self.link.connect, self.keys, owner))
        return self._stores[-1]

    def raw(self) -> tuple[dict[bytes, bytes], dict[bytes, bytes], dict[bytes, bytes]]:
        keys = self.keys
        return tuple(self.redis.hgetall(key) for key in (keys.values, keys.state, keys.position))  # type: ignore[return-value]

    async def close(self) -> None:
        for store in self._stores:
            await store.close()
        self.redis.delete(self.keys.values, self.keys.state, self.keys.position)
        self.redis.close()


def layout_of(shard: Shard) -> RowLayout:
    assert shard.spec is not None
    return RowLayout(shard.spec.dim, shard.spec.state_size)


def fed(records: Sequence[Record]) -> tuple[Shard, Delta]:
    shard = Shard("items", 0, KEYRING)
    feed(shard, records)
    return shard, take(shard)


async def committed(rig: Rig, store: ShardStore, table: object = ROWWISE) -> Shard:
    """Take the shard and commit two rows to it."""
    await store.take()
    shard, delta = fed(log_of([gradient([A, B], 1)], table=table))  # type: ignore[arg-type]
    await store.commit(layout_of(shard), delta, 0)
    return shard
