"""What a commit leaves in a real Redis: rows, optimizer state, position."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from driftline.log.base import Record
from driftline.rows.fields import read_fields
from driftline.shard.machine import Shard
from tests.support.samples import (
    KEYRING,
    TABLE,
    P,
    delete,
    feed,
    log_of,
    rows_of,
    take,
    u64,
)
from tests.support.store_rig import ADAM, ROWWISE, A, B, C, Rig, committed, layout_of


@pytest.fixture
async def rig(redis_url: str) -> Iterator[Rig]:  # type: ignore[misc]
    made = Rig(redis_url)
    yield made
    await made.close()


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


async def test_fields_of_the_position_can_be_read_without_taking(rig: Rig) -> None:
    await committed(rig, rig.store())
    assert await read_fields(rig.link.connect, rig.keys, b"op", b"nothing") == [b"1", None]
    rig.link.fail_next("before")
    assert await read_fields(rig.link.connect, rig.keys, b"next") == [b"2"]
