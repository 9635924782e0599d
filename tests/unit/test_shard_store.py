"""Fenced access to a shard in a real Redis: commits, lost replies, lost fences, damage."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
import redis

from driftline.errors import FenceLostError, PositionError, StoreUnavailableError
from driftline.log.base import Record
from driftline.rows import fields
from driftline.rows.connection import Connection, RedisConnection, Reply
from driftline.rows.fields import read_fields
from driftline.rows.layout import RowLayout, ShardKeys
from driftline.rows.resp import Bytes
from driftline.rows.shard_store import ShardStore
from driftline.shard.machine import Delta, Shard
from driftline.shard.position import Position
from tests.support.samples import (
    KEYRING,
    MINE,
    TABLE,
    P,
    delete,
    feed,
    gradient,
    log_of,
    rows_of,
    take,
    u64,
)

A, B, C = MINE[:3]
ROWWISE = replace(TABLE, optimizer={"kind": "rowwise_adagrad"})
ADAM = replace(TABLE, optimizer={"kind": "adam"})
_names = itertools.count()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fields, "_BACK_OFF", (0.0, 0.0, 0.001))


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


@pytest.fixture
async def rig(redis_url: str) -> Iterator[Rig]:  # type: ignore[misc]
    made = Rig(redis_url)
    yield made
    await made.close()


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


@pytest.mark.parametrize("table", [TABLE, ROWWISE, ADAM], ids=["no state", "inline", "separate"])
async def test_a_commit_holds_rows_state_and_position(rig: Rig, table: object) -> None:
    store = rig.store()
    shard = await committed(rig, store, table)
    stored = await rig.store(b"next").take()
    assert stored.position is not None
    assert stored.position.fields() == shard.position.fields()
    assert (stored.published, stored.owner) == (0, b"me")
    fresh = Shard("items", 0, KEYRING, stored.position)
    reader = rig.store(b"again")
    await reader.take()
    fresh.cache.enter(await reader.fetch(layout_of(shard), u64([A, B, C])))
    assert rows_of(fresh) == rows_of(shard)
    assert fresh.missing(u64([C])).tolist() == []


@pytest.mark.parametrize("table", [TABLE, ADAM], ids=["no state", "separate"])
async def test_a_deleted_row_leaves_no_trace(rig: Rig, table: object) -> None:
    store = rig.store()
    shard = await committed(rig, store, table)
    feed(shard, [replace(log_of([delete([A], 2)])[1], offset=2)])
    await store.commit(layout_of(shard), take(shard), 0)
    values, state, position = rig.raw()
    assert set(values) == {A.to_bytes(8, "little")} ^ {A.to_bytes(8, "little"), B.to_bytes(8, "little")}
    assert set(state) in (set(), set(values))
    assert position[b"rows"] == b"1"


async def test_forgotten_fields_leave_the_position(rig: Rig) -> None:
    store = rig.store()
    shard = await committed(rig, store)
    feed(shard, [Record(2, 9_000_000, None, b"garbage")])
    await store.commit(layout_of(shard), take(shard), 2)
    position = rig.raw()[2]
    assert b"p:" + P not in position
    assert position[b"published"] == b"2"


async def test_taking_an_empty_shard_writes_a_whole_position(rig: Rig) -> None:
    stored = await rig.store().take()
    assert (stored.position, stored.published, stored.owner) == (None, 0, b"")
    position = rig.raw()[2]
    assert position == Position().fields() | {b"owner": b"me", b"published": b"0"}


async def test_who_takes_a_shard_shuts_out_the_owner_before(rig: Rig) -> None:
    old = rig.store(b"old")
    shard = await committed(rig, old)
    before = rig.raw()
    stored = await rig.store(b"new").take()
    assert stored.owner == b"old"
    feed(shard, [replace(log_of([gradient([C], 2)])[1], offset=2)])
    with pytest.raises(FenceLostError):
        await old.commit(layout_of(shard), take(shard), 0)
    with pytest.raises(FenceLostError):
        await old.fetch(layout_of(shard), u64([A]))
    after = rig.raw()
    assert after[0] == before[0]
    assert after[2] == before[2] | {b"owner": b"new"}


async def test_a_position_moved_by_anybody_loses_the_fence(rig: Rig) -> None:
    store = rig.store()
    shard = await committed(rig, store)
    rig.redis.hset(rig.keys.position.decode(), "next", 1)
    with pytest.raises(FenceLostError):
        await store.fetch(layout_of(shard), u64([A]))


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_commit_whose_reply_is_lost_happens_exactly_once(rig: Rig, when: str) -> None:
    store = rig.store()
    await store.take()
    shard, delta = fed(log_of([gradient([A, B], 1)], table=ROWWISE))
    rig.link.fail_next(when)
    await store.commit(layout_of(shard), delta, 0)
    assert rig.raw()[2][b"next"] == b"2"
    assert len(rig.raw()[0]) == 2
    feed(shard, [replace(log_of([gradient([C], 2)])[1], offset=2)])
    await store.commit(layout_of(shard), take(shard), 0)  # the fence holds on the new connection
    assert rig.raw()[2][b"next"] == b"3"


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_commit_that_only_moves_published_survives_a_lost_reply(rig: Rig, when: str) -> None:
    store = rig.store()
    shard = await committed(rig, store)
    rig.link.fail_next(when)
    await store.commit(layout_of(shard), take(shard), 2)
    assert rig.raw()[2][b"published"] == b"2"


async def test_a_lost_reply_behind_a_lost_fence_is_a_lost_fence(rig: Rig) -> None:
    store = rig.store()
    shard = await committed(rig, store)
    feed(shard, [replace(log_of([gradient([C], 2)])[1], offset=2)])
    rig.redis.hset(rig.keys.position.decode(), "owner", "thief")
    rig.link.fail_next("before")
    with pytest.raises(FenceLostError, match="after a reconnect"):
        await store.commit(layout_of(shard), take(shard), 0)


async def test_a_fetch_goes_on_after_a_broken_connection(rig: Rig) -> None:
    store = rig.store()
    shard = await committed(rig, store)
    rig.link.fail_next("after")
    block = await store.fetch(layout_of(shard), u64([A]))
    assert block.present.tolist() == [True]
    assert rig.link.opened == 2


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_take_goes_on_after_a_broken_connection(rig: Rig, number: int, when: str) -> None:
    await committed(rig, rig.store(b"old"))
    rig.link.faults[rig.link.exchanges + number] = when
    stored = await rig.store(b"new").take()
    assert stored.position is not None
    assert stored.position.next == 2
    assert rig.raw()[2][b"owner"] == b"new"


@pytest.mark.parametrize(
    "damage", ["row lost", "row too many", "position lost", "state lost", "state of a row lost", "state left"]
)
async def test_rows_and_position_that_do_not_belong_together_are_never_taken(rig: Rig, damage: str) -> None:
    await committed(rig, rig.store(b"old"), ADAM)
    match damage:
        case "row lost":
            rig.redis.hdel(rig.keys.values.decode(), A.to_bytes(8, "little"))
        case "row too many":
            rig.redis.hset(rig.keys.values.decode(), C.to_bytes(8, "little"), b"x")
        case "state lost":
            rig.redis.delete(rig.keys.state)
        case "state of a row lost":
            rig.redis.hdel(rig.keys.state.decode(), A.to_bytes(8, "little"))
        case "state left":
            rig.redis.delete(rig.keys.position, rig.keys.values)
        case _:
            rig.redis.delete(rig.keys.position)
    with pytest.raises(PositionError, match="Redis lost keys"):
        await rig.store(b"new").take()


@pytest.mark.parametrize("damage", ["rows", "states"])
async def test_an_idle_owner_that_lost_keys_loses_its_fence(rig: Rig, damage: str) -> None:
    store = rig.store()
    shard = await committed(rig, store, ADAM)
    await store.check(layout_of(shard), 2)
    rig.redis.delete(rig.keys.values if damage == "rows" else rig.keys.state)
    with pytest.raises(FenceLostError, match="holds 0 rows, the position says 2"):
        await store.check(layout_of(shard), 2)


async def test_a_position_with_a_field_missing_is_never_taken(rig: Rig) -> None:
    await committed(rig, rig.store(b"old"))
    rig.redis.hdel(rig.keys.position.decode(), "ord")
    with pytest.raises(PositionError, match="damaged"):
        await rig.store(b"new").take()


async def test_a_row_without_its_state_is_never_fetched(rig: Rig) -> None:
    store = rig.store()
    shard = await committed(rig, store, ADAM)
    rig.redis.hdel(rig.keys.state.decode(), A.to_bytes(8, "little"))
    with pytest.raises(PositionError, match="without its optimizer state"):
        await store.fetch(layout_of(shard), u64([A, B]))


async def test_a_transaction_that_took_effect_in_part_stops_the_shard(rig: Rig) -> None:
    store = rig.store()
    await store.take()
    rig.redis.set(rig.keys.values, b"a string where a hash should be")
    shard, delta = fed(log_of([gradient([A], 1)], table=ROWWISE))
    with pytest.raises(PositionError, match="in part"):
        await store.commit(layout_of(shard), delta, 0)


async def test_two_who_take_at_once_end_with_one_owner(rig: Rig) -> None:
    await committed(rig, rig.store(b"old"))
    link, slow = rig.link, rig.store(b"slow")
    original = RedisConnection.exchange
    fast_done = False

    async def interleaved(self: RedisConnection, packed: Sequence[Bytes], replies: int) -> list[Reply]:
        nonlocal fast_done
        answers = await original(self, packed, replies)
        if replies == 5 and not fast_done:  # between EXEC and WATCH somebody else took it
            fast_done = True
            return [*answers[:-1], [b"2", b"fast"]]
        return answers

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RedisConnection, "exchange", interleaved)
        stored = await slow.take()
    assert stored.position is not None
    assert fast_done
    assert rig.raw()[2][b"owner"] == b"slow"
    assert link.opened == 2


async def test_fields_of_the_position_can_be_read_without_taking(rig: Rig) -> None:
    await committed(rig, rig.store())
    assert await read_fields(rig.link.connect, rig.keys, b"op", b"nothing") == [b"1", None]
    rig.link.fail_next("before")
    assert await read_fields(rig.link.connect, rig.keys, b"next") == [b"2"]


def test_back_off_grows_and_never_ends() -> None:
    delays = list(itertools.islice(fields.delays(), 10))
    assert delays == sorted(delays)
    assert np.isfinite(delays).all()
