"""Keys that somebody deletes: a store notices at takeover and in the idle check, whichever it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from driftline.errors import FenceLostError, PositionError
from driftline.rows.layout import RowLayout, ShardKeys
from driftline.rows.move import Switch
from driftline.rows.shard_store import ShardStore
from driftline.shard.machine import Shard
from tests.simulation.random_log import KEYRING
from tests.simulation.world import FakeRedis, World, run
from tests.support.samples import MINE, TABLE, feed, gradient, log_of, take

KEYS = ShardKeys.of("items", 0)
HASHES = {"values": KEYS.values, "separate state": KEYS.state}
ADAM = replace(TABLE, optimizer={"kind": "adam"})
LAYOUT = RowLayout.of(ADAM)


async def committed(redis: FakeRedis, world: World) -> ShardStore:
    """Return the store of an owner that has committed two rows with separate state."""
    store = ShardStore(redis.connector(world.process("owner")), KEYS, b"owner:1")
    await store.take()
    shard = Shard("items", 0, KEYRING)
    feed(shard, log_of([gradient(MINE[:2], 1)], table=ADAM))
    await store.commit(LAYOUT, take(shard), 0)
    await store.check(LAYOUT, 2)
    return store


@pytest.mark.parametrize("lost", HASHES)
def test_an_idle_owner_loses_its_fence(lost: str) -> None:
    async def main(world: World) -> None:
        redis = FakeRedis(world)
        store = await committed(redis, world)
        redis.ask(b"DEL", HASHES[lost])
        with pytest.raises(FenceLostError, match="holds 0 rows, the position says 2"):
            await store.check(LAYOUT, 2)

    run(1, main)


@pytest.mark.parametrize("lost", HASHES)
def test_nobody_takes_the_shard_over(lost: str) -> None:
    async def main(world: World) -> None:
        redis = FakeRedis(world)
        await committed(redis, world)
        redis.ask(b"DEL", HASHES[lost])
        with pytest.raises(PositionError, match="Redis lost keys"):
            await ShardStore(redis.connector(world.process("next")), KEYS, b"next:1").take()

    run(1, main)


def test_a_move_that_was_cut_short_is_not_finished_without_the_separate_state() -> None:
    async def main(world: World) -> None:
        source, target = FakeRedis(world, "a"), FakeRedis(world, "b")
        left = await (await committed(source, world)).leave("b")
        mover = world.process("mover")
        switch = Switch(KEYS, source.connector(mover), target.connector(mover), b"next:1")
        source.ask(b"DEL", KEYS.state)
        with pytest.raises(PositionError, match="Redis lost keys"):
            await switch.activate(left)

    run(1, main)


def test_a_table_whose_state_is_in_the_values_needs_no_second_hash() -> None:
    async def main(world: World) -> None:
        redis = FakeRedis(world)
        store = ShardStore(redis.connector(world.process("owner")), KEYS, b"owner:1")
        await store.take()
        shard = Shard("items", 0, KEYRING)
        feed(shard, log_of([gradient(MINE[:2], 1)]))
        await store.commit(RowLayout.of(TABLE), take(shard), 0)
        await store.check(RowLayout.of(TABLE), 2)
        await ShardStore(redis.connector(world.process("next")), KEYS, b"next:1").take()

    run(1, main)
