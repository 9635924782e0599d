"""Fenced access to a shard in a real Redis: lost replies, lost fences, damage."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from driftline.errors import FenceLostError, PositionError
from driftline.rows import fields
from driftline.rows.connection import RedisConnection, Reply
from driftline.rows.resp import Bytes
from driftline.shard.position import Position
from tests.support.samples import (
    feed,
    gradient,
    log_of,
    take,
    u64,
)
from tests.support.store_rig import ADAM, ROWWISE, A, B, C, Rig, committed, fed, layout_of


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fields, "_BACK_OFF", (0.0, 0.0, 0.001))


@pytest.fixture
async def rig(redis_url: str) -> Iterator[Rig]:  # type: ignore[misc]
    made = Rig(redis_url)
    yield made
    await made.close()


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


def test_back_off_grows_and_never_ends() -> None:
    delays = list(itertools.islice(fields.delays(), 10))
    assert delays == sorted(delays)
    assert np.isfinite(delays).all()
