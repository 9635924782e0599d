"""How much work a gradient row costs: commands, bytes, records, copies. Counted, not timed.

The limits stand a little above what was counted when they were written, so that twice the work of
any kind fails on any machine. Who lowers the work lowers the limit with it.
"""

from __future__ import annotations

import functools
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import redis

from driftline import topics
from driftline.client.outbox import Outbox
from driftline.client.pending import Pending
from driftline.client.splitting import Sender
from driftline.frames.events import SPEC, Op, Origin, write_event
from driftline.frames.headers import Keyring
from driftline.ids import OPS_PRODUCER, producer_id
from driftline.log import Log, Outgoing, Record, open_log
from driftline.rows.connection import RedisConnection
from driftline.rows.layout import RowLayout, ShardKeys
from driftline.rows.shard_store import ShardStore
from driftline.rows.transaction import transaction
from driftline.servers import RedisServer
from driftline.shard.machine import Shard
from driftline.shard.spec import TableSpec
from driftline_services.aggregator.runner import ShardRunner
from tests.integration.deployment import LOCAL, Deployment

DIM, ROWS, FRAMES = 64, 1_000, 8  # a batch: a thousand gradient rows in eight frames
GRADIENT = 8 + 4 * DIM  # bytes of a row on the wire
VALUE = 4 * DIM + 16  # of a row in Redis
STATE = 8 + 4 + 8 + 4 * DIM + 4 + 1  # of a row on the updates topic
KEYRING = Keyring(b"counts work, keeps no secret")
TABLE = TableSpec("work", DIM, shards=1, frame_bytes=1 << 20)


def frames(batches: int, *, merge_steps: int = 1) -> list[Outgoing]:
    """Return what a publisher sends for so many batches; batch after batch touches the same rows."""
    pending = Pending(Outbox(Sender(TABLE, producer_id("work"), 0), merge_steps=merge_steps))
    ids = np.arange(ROWS // FRAMES, dtype=np.uint64)
    grads = np.random.default_rng(0).standard_normal((len(ids), DIM)).astype(np.float32)
    sent = [
        pending.push(ids + np.uint64(1_000 * part), grads, None, {0: 1}, None)
        for _ in range(batches)
        for part in range(FRAMES)
    ]
    return [frame for records in sent for _, frame in records]


def born() -> Outgoing:
    spec = Op(SPEC, TABLE.name, 0, Origin(OPS_PRODUCER, 0, 1), TABLE.to_json())
    op = write_event(spec, more={"group": TABLE.group})
    return Outgoing(op, None, KEYRING.sign(op))


@dataclass
class Work:
    """What one batch of a thousand gradient rows costs, on average."""

    commands: float = 0
    redis_in: float = 0
    redis_out: float = 0
    updates: float = 0
    update_bytes: float = 0
    by_name: dict[str, int] = field(default_factory=dict)


@pytest.fixture
def own_redis(redis_factory: Callable[[], RedisServer]) -> RedisServer:
    return redis_factory()


@asynccontextmanager
async def running(log: Log, url: str) -> AsyncIterator[ShardRunner]:
    for topic in (topics.gradients("work"), topics.updates("work"), topics.dead_letters("work")):
        await log.create_topic(topic, 1)
    store = ShardStore(functools.partial(RedisConnection.open, url), ShardKeys.of("work", 0), b"w")
    runner = ShardRunner("work", 0, store=store, log=log, keyring=KEYRING)
    try:
        yield runner
    finally:
        await runner.close()


async def work_of(url: str, directory: Path, batches: int = 10) -> Work:
    """Apply, commit and publish batch after batch, and count from the third on."""
    sent = [born(), *frames(batches + 2)]
    async with open_log(f"local://{directory}") as log, running(log, url) as runner:
        await log.append(topics.gradients("work"), 0, sent)
        await runner.start()
        records = [Record(at, 1, None, each.value, each.headers) for at, each in enumerate(sent)]
        await runner.apply(records[:1])
        await runner.drain()
        with redis.Redis.from_url(url) as client:
            before: dict[str, int] = {}
            updates = 0
            for batch in range(batches + 2):
                if batch == 2:
                    before, updates = counters(client), await published(log)
                await runner.apply(records[1 + FRAMES * batch : 1 + FRAMES * (batch + 1)])
                await runner.drain()
            after = counters(client)
        added = {name: after[name] - before.get(name, 0) for name in after}
        count = await published(log) - updates
        size = sum(len(record.value) for record in await tail(log, count))
    names = {name: n for name, n in added.items() if name.startswith("cmdstat_") and n and "info" not in name}
    return Work(
        sum(names.values()) / batches,
        added["total_net_input_bytes"] / batches,
        added["total_net_output_bytes"] / batches,
        count / batches,
        size / batches,
        names,
    )


def counters(client: redis.Redis) -> dict[str, int]:
    stats = client.info("stats")
    commands = {name: found["calls"] for name, found in client.info("commandstats").items()}
    return {name: int(stats[name]) for name in ("total_net_input_bytes", "total_net_output_bytes")} | commands


async def published(log: Log) -> int:
    return (await log.bounds(topics.updates("work"), 0)).end


async def tail(log: Log, count: int) -> list[Record]:
    reader = log.reader(topics.updates("work"), 0, await published(log) - count)
    found: list[Record] = []
    while len(found) < count:
        found += await reader.read(wait=5.0)
    await reader.close()
    return found


async def test_a_thousand_gradient_rows_cost_one_transaction_and_two_updates(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    work = await work_of(own_redis.url, tmp_path)
    assert work.commands <= 7, work.by_name
    assert work.updates <= 2.5
    assert work.redis_in <= 1.1 * ROWS * (VALUE + 24)  # a value and an id, with what RESP puts around them
    assert work.redis_out <= 400
    assert work.update_bytes <= 1.1 * ROWS * STATE


@contextmanager
def allocating(most: dict[str, float], name: str) -> Iterator[None]:
    """Enter the most that was allocated at once inside, as a multiple of the batch on the wire."""
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    yield
    _, peak = tracemalloc.get_traced_memory()
    most[name] = max(most.get(name, 0), (peak - before) / (ROWS * GRADIENT))


def test_the_hot_path_holds_few_copies_of_a_batch() -> None:
    sent = [born(), *frames(4)]
    records = [Record(at, 1, None, each.value, each.headers) for at, each in enumerate(sent)]
    shard = Shard("work", 0, KEYRING)
    plan = shard.screen(records[:1])
    assert plan.op is not None
    shard.apply_op(plan.op)
    most: dict[str, float] = {}
    for batch in range(4):
        if batch == 2:
            tracemalloc.start()
        some = records[1 + FRAMES * batch : 1 + FRAMES * (batch + 1)]
        if batch < 2:
            shard.apply(shard.screen(some), None)
            shard.take_delta()
            shard.committed()
            continue
        with allocating(most, "screen"):
            plan = shard.screen(some)
        with allocating(most, "apply"):
            shard.apply(plan, None)
        with allocating(most, "delta"):
            delta = shard.take_delta()
        with allocating(most, "commit"):
            packed = transaction(ShardKeys.of("work", 0), RowLayout.of(TABLE), delta, 0)
        del packed
        shard.committed()
    tracemalloc.stop()
    limits = {"screen": 1.5, "apply": 4.0, "delta": 1.5, "commit": 3.0}
    assert {name: held for name, held in most.items() if held > limits[name]} == {}, most


def test_merged_steps_cost_a_frame_for_all_of_them() -> None:
    single, merged = frames(6), frames(6, merge_steps=FRAMES)
    assert (len(single), len(merged)) == (6 * FRAMES, 6)
    assert sum(len(each.value) for each in single) <= 1.05 * 6 * ROWS * GRADIENT


@pytest.mark.parametrize("own_deployment", [LOCAL], indirect=True)
def test_a_read_costs_two_commands_a_shard_and_little_more_than_the_rows(
    own_deployment: Deployment, own_redis: RedisServer
) -> None:
    at = own_deployment.with_redis(own_redis.url)
    spec, ids = at.spec(dim=DIM, shards=8), np.arange(1_024, dtype=np.uint64)
    with at.worker(), at.client() as client:
        table = client.create_table(spec)
        table.push(ids, np.ones((len(ids), DIM), np.float32))
        table.wait_readable()
    with at.client() as client, redis.Redis.from_url(own_redis.url) as counted:
        table = client.table(spec.name)
        table.get(ids)
        before = counters(counted)
        for _ in range(10):
            assert table.get(ids).found.all()
        after = counters(counted)
    added = {name: (after[name] - before.get(name, 0)) / 10 for name in after}
    assert added["cmdstat_hmget"] == 16
    assert added["total_net_input_bytes"] <= 1.2 * len(ids) * 14 + 8 * 120
    assert added["total_net_output_bytes"] <= 1.05 * len(ids) * (VALUE + 8)
