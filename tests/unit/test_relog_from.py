"""A shard put back to a version: only as it was when that was planned, and never by a late restore."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import numpy as np
import orjson
import pytest
import redis

from driftline import topics
from driftline.errors import StateError
from driftline.frames.events import BARRIER, RESTORE
from driftline.ops.relog_from import Planned, VersionShard, plan_shard, put_back
from driftline.ops.requests import Signer
from driftline.rows.connection import RedisConnection
from driftline.rows.layout import ShardKeys
from driftline.servers import RedisServer
from driftline.shard.cache import RowBlock
from driftline.shard.machine import Shard
from tests.support.memory_log import MemoryLog
from tests.support.samples import KEYRING, MINE, feed, gradient, log_of, op, record

GROUP, TOPIC, OPS = "g", topics.gradients("items"), topics.ops("g")
KEYS = ShardKeys.of("items", 0)


def part_of(shard: Shard) -> VersionShard:
    slots = shard.cache.slots(np.array(MINE[:3], np.uint64))
    cache = shard.cache

    async def blocks() -> AsyncIterator[RowBlock]:
        yield RowBlock(
            cache.ids[slots],
            np.ones(len(slots), bool),
            cache.rows[slots],
            cache.state[slots],
            cache.lsn[slots],
            cache.ordinals[slots],
        )

    assert shard.spec is not None
    return VersionShard("N1", shard.position, 3, 3, shard.spec.dim, shard.spec.state_size, blocks)


class Rig:
    """A shard that a version has at offset 3, a log that begins at 5, and an empty Redis."""

    def __init__(self, url: str) -> None:
        self.url, self.redis = url, redis.Redis.from_url(url)
        self.log = MemoryLog()
        machine = Shard("items", 0, KEYRING)
        self.records = log_of(
            [gradient(list(MINE[:3]), 1), op(BARRIER, 2), *(gradient([MINE[0]], n) for n in range(2, 7))]
        )
        feed(machine, self.records[:3])
        self.part = part_of(machine)
        self.log.partitions = {TOPIC: [list(self.records)], topics.updates("items"): [[]], OPS: [[]]}
        self.log.begins[TOPIC, 0] = 5

    async def connect(self) -> RedisConnection:
        return await RedisConnection.open(self.url)

    async def ask_for(self, kind: str, body: dict[str, object]) -> None:
        """Write the next request to the ops log."""
        signer, end = Signer(GROUP, bytes(16), KEYRING), len(self.log.partitions[OPS][0])
        await self.log.append(OPS, 0, [signer.request(kind, GROUP, body, end)])

    async def plan(self) -> Planned:
        connection = await self.connect()
        try:
            planned = await plan_shard(connection, self.log, KEYRING, GROUP, "items", 0, self.part)
        finally:
            await connection.close()
        assert planned is not None
        return planned

    async def put_back(self, planned: Planned) -> None:
        await put_back(self.connect, "items", planned, self.part, lambda rows: None)


@pytest.fixture
def rig(redis_factory: Callable[[], RedisServer]) -> Rig:
    return Rig(redis_factory().url)


async def test_rows_position_and_what_is_to_be_told_come_in_one(rig: Rig) -> None:
    await rig.put_back(await rig.plan())
    position = rig.redis.hgetall(KEYS.position)
    assert isinstance(position, dict)
    assert (rig.redis.hlen(KEYS.values), position[b"rows"]) == (3, b"3")
    assert (position[b"gen"], position[b"next"], position[b"published"]) == (b"2", b"5", b"5")
    assert orjson.loads(position[b"relogged"])["version"] == "N1"
    assert not [key for key in rig.redis.keys() if b".next." in key]  # noqa: SIM118


async def test_an_owner_that_came_meanwhile_is_not_overwritten(rig: Rig) -> None:
    planned = await rig.plan()
    rig.redis.hset(KEYS.position, mapping={b"next": b"0", b"owner": b"another"})
    with pytest.raises(StateError, match="changed meanwhile"):
        await rig.put_back(planned)
    assert (rig.redis.hlen(KEYS.values), rig.redis.hget(KEYS.position, "owner")) == (0, b"another")


async def test_what_was_stored_of_producers_does_not_outlive_it(rig: Rig) -> None:
    machine = Shard("items", 0, KEYRING)
    feed(machine, rig.records[:4])
    stranger = b"p:" + bytes(16)
    fields = machine.position.fields() | {stranger: b"0,1,1", b"place": b"3", b"published": b"4"}
    rig.redis.hset(KEYS.position, mapping={name: value for name, value in fields.items()})  # noqa: C416
    await rig.put_back(await rig.plan())
    assert rig.redis.hget(KEYS.position, stranger) is None
    assert rig.redis.hget(KEYS.position, "place") == b"3", "where the shard is says its server, not the log"


@pytest.mark.parametrize(
    ("in_the_log", "epoch"),
    [(None, 1), (4, 1), (3, 0)],
    ids=["no op behind it", "a later op", "the restore itself"],
)
async def test_a_restore_that_is_lost_takes_no_effect_when_it_is_sent_again(
    rig: Rig, in_the_log: int | None, epoch: int
) -> None:
    await rig.ask_for("spec", {})
    await rig.ask_for(BARRIER, {"kind": "version"})
    restore = {"version": "N0", "mode": "rollback", "prepare": 1, "from_epoch": {"items": 0}}
    await rig.ask_for(RESTORE, restore)
    await rig.ask_for(BARRIER, {"kind": "version"})
    if in_the_log is not None:
        held = record(op(BARRIER, in_the_log), len(rig.records))
        rig.log.put(TOPIC, 0, [held])
    planned = await rig.plan()
    assert (planned.op, planned.epoch) == (2, epoch)
