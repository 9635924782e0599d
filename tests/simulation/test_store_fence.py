"""A store that has lost its fence is dead: nothing it is asked to do reaches Redis."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from driftline.errors import FenceLostError
from driftline.rows.layout import RowLayout, ShardKeys
from driftline.rows.shard_store import ShardStore
from driftline.shard.machine import Shard
from tests.simulation.random_log import KEYRING
from tests.simulation.world import FakeRedis, World, run

KEYS, LAYOUT = ShardKeys.of("t", 0), RowLayout(1, 0)


def test_no_commit_follows_a_read_that_found_another_owner_after_a_reconnect() -> None:
    """The reconnect watches the other's position: a transaction on it would succeed."""

    async def main(world: World) -> None:
        redis = FakeRedis(world)
        store = ShardStore(redis.connector(world.process("old")), KEYS, b"old:1")
        await store.take()
        redis.restart()
        await ShardStore(redis.connector(world.process("new")), KEYS, b"new:1").take()
        before = redis.ask(b"HGETALL", KEYS.position)
        with pytest.raises(FenceLostError):
            await store.fetch(LAYOUT, np.array([1], np.uint64))
        delta = replace(Shard("t", 0, KEYRING).take_delta(), fields={b"next": b"9"}, next=9)
        with pytest.raises(FenceLostError):
            await store.commit(LAYOUT, delta, 0)
        assert redis.ask(b"HGETALL", KEYS.position) == before

    run(1, main)
