"""The sides of the drain: driftline as it runs, its parts alone, the same without Faust.

Each function runs in a process of its own (bench.child) and returns seconds. Time runs
from the start of consumption, when partitions are assigned and positions known, until
everything is committed in Redis and its states are acknowledged on the updates topic.
"""

from __future__ import annotations

import asyncio
import functools
import time
from typing import Any

from redis.asyncio import Redis

from bench.drain_consumer import assign, consumer_of, record_of
from bench.servers import KEY
from driftline import topics
from driftline.config import Settings
from driftline.frames.headers import Keyring
from driftline.log import Record, open_log
from driftline.rows.connection import RedisConnection
from driftline.rows.layout import RowLayout, ShardKeys
from driftline.rows.shard_store import ShardStore
from driftline.shard.machine import Delta, Shard
from driftline_services.aggregator.app import aggregator_app
from driftline_services.aggregator.core import Aggregator
from driftline_services.aggregator.runner import ShardRunner
from driftline_services.aggregator.updates import Updates
from driftline_services.chassis.process import settle
from driftline_services.chassis.worker import quiet_logging, serve

KEYRING = Keyring.parse(KEY)
POLL = 0.002


def _record_commits(cuts: dict[str, list[int]], rows: list[int]) -> None:
    """Note where each shard's commits cut its log, and how many rows they hold."""
    commit = ShardStore.commit

    async def recorded(self: ShardStore, layout: RowLayout, delta: Delta, published: int) -> None:
        await commit(self, layout, delta, published)
        shard = self.keys.position.decode().partition("}")[0].rpartition(":")[2]
        cuts.setdefault(shard, []).append(delta.next)
        rows.append(len(delta.states))

    ShardStore.commit = recorded  # type: ignore[method-assign]


def driftline(settings: dict[str, Any], table: str, ends: list[int], cuts: bool = True) -> dict[str, Any]:
    """The aggregator as a user runs it, Faust and all."""
    quiet_logging(30)
    return asyncio.run(_driftline(Settings(**settings), table, ends))


async def _driftline(settings: Settings, table: str, ends: list[int]) -> dict[str, Any]:
    cuts: dict[str, list[int]] = {}
    rows: list[int] = []
    _record_commits(cuts, rows)
    begun = work = 0.0
    async with aggregator_app(settings) as app:
        settle()
        aggregator = app.chassis._handler
        assert isinstance(aggregator, Aggregator)
        load = aggregator.load

        async def timed(partitions: Any) -> Any:
            nonlocal begun, work
            positions = await load(partitions)
            begun, work = time.perf_counter(), time.process_time()
            return positions

        aggregator.load = timed  # type: ignore[method-assign]
        stop = asyncio.Event()
        worker = asyncio.create_task(serve(app, stop))
        while not all_published(aggregator, table, ends):
            if worker.done():
                worker.result()
            await asyncio.sleep(POLL)
        seconds, work = time.perf_counter() - begun, time.process_time() - work
        stop.set()
        await worker
    return {"seconds": seconds, "cuts": cuts, "commits": len(rows), "committed_rows": sum(rows), "cpu": work}


def share(settings: dict[str, Any], table: str, ends: list[int]) -> dict[str, Any]:
    """One of several aggregators; see `_Share`."""
    quiet_logging(30)
    return asyncio.run(_share(Settings(**settings), table, ends))


async def _share(settings: Settings, table: str, ends: list[int]) -> dict[str, Any]:
    """Return when shards were last given to it, the records that were stored by then, and when all were."""
    assigned: list[tuple[float, int]] = []
    async with aggregator_app(settings) as app, Redis.from_url(str(settings.redis_url)) as redis:
        settle()
        aggregator = app.chassis._handler
        assert isinstance(aggregator, Aggregator)
        load = aggregator.load

        async def timed(partitions: Any) -> Any:
            positions = await load(partitions)
            assigned.append((time.time(), sum(await _stored(redis, table, len(ends)))))
            return positions

        aggregator.load = timed  # type: ignore[method-assign]
        stop = asyncio.Event()
        worker = asyncio.create_task(serve(app, stop))
        while any(at < end for at, end in zip(await _stored(redis, table, len(ends)), ends, strict=True)):
            if worker.done():
                worker.result()
            await asyncio.sleep(0.02)
        done = time.time()
        stop.set()
        await worker
    return {"assigned": assigned, "done": done}


async def _stored(redis: Redis, table: str, shards: int) -> list[int]:
    """Return per shard the position in Redis."""
    async with redis.pipeline(transaction=False) as pipeline:
        for shard in range(shards):
            pipeline.hget(ShardKeys.of(table, shard).position.decode(), "next")
        return [int(at or 0) for at in await pipeline.execute()]


def all_published(aggregator: Aggregator, table: str, ends: list[int]) -> bool:
    """Tell whether every shard's states are acknowledged to the end of its log."""
    found = {
        tp.partition: runner
        for tp, runner in aggregator.runners.items()
        if tp.topic == topics.gradients(table)
    }
    return len(found) == len(ends) and all(found[shard].published >= end for shard, end in enumerate(ends))


def bare(broker: str, redis_url: str, table: str, ends: list[int]) -> float:
    """The same runners, store and publishing, driven by aiokafka alone."""
    return asyncio.run(_bare(broker, redis_url, table, ends))


async def _bare(broker: str, redis_url: str, table: str, ends: list[int]) -> float:
    settle()
    async with open_log(f"kafka://{broker}") as log:
        runners = {}
        for shard in range(len(ends)):
            store = ShardStore(
                functools.partial(RedisConnection.open, redis_url), ShardKeys.of(table, shard), b"bare"
            )
            runners[shard] = ShardRunner(table, shard, store=store, log=log, keyring=KEYRING)
            await runners[shard].start()
        consumer = await consumer_of(broker)
        begun = time.perf_counter()
        assign(consumer, topics.gradients(table), len(ends))
        while any(runners[shard].progress.applied < end for shard, end in enumerate(ends)):
            fetched = await consumer.getmany(timeout_ms=100)
            await asyncio.gather(
                *(
                    runners[tp.partition].apply(
                        [record_of(raw) for raw in raws],
                        behind=(consumer.highwater(tp) or 0) > raws[-1].offset + 1,
                    )
                    for tp, raws in fetched.items()
                )
            )
        await asyncio.gather(*(runner.drain() for runner in runners.values()))
        seconds = time.perf_counter() - begun
        await asyncio.gather(*(runner.close() for runner in runners.values()))
        await consumer.stop()
    return seconds


def parts(
    broker: str, redis_url: str, table: str, ends: list[int], cuts: dict[str, list[int]]
) -> dict[str, float]:
    """Fetch, decode + map + apply, flush and publish, one after the other, each of the whole backlog."""
    return asyncio.run(_parts(broker, redis_url, table, ends, cuts))


async def _parts(
    broker: str, redis_url: str, table: str, ends: list[int], cuts: dict[str, list[int]]
) -> dict[str, float]:
    settle()
    consumer = await consumer_of(broker)
    fetched: list[tuple[int, list[Any]]] = []
    begun = time.perf_counter()
    assign(consumer, topics.gradients(table), len(ends))
    left = sum(ends)
    while left > 0:  # an aggregator that starts on an empty Redis appends the spec again
        for tp, raws in (await consumer.getmany(timeout_ms=100)).items():
            fetched.append((tp.partition, raws))
            left -= len(raws)
    seconds = {"fetch": time.perf_counter() - begun}
    await consumer.stop()
    batches = [(shard, [record_of(raw) for raw in raws]) for shard, raws in fetched]
    del fetched
    seconds["apply"] = _apply(table, len(ends), batches)
    deltas = _deltas(table, len(ends), batches, cuts)
    layout = deltas.pop("layout")
    stores = []
    for shard in range(len(ends)):
        store = ShardStore(
            functools.partial(RedisConnection.open, redis_url), ShardKeys.of(table, shard), b"parts"
        )
        await store.take()
        stores.append(store)
    begun = time.perf_counter()
    await asyncio.gather(*(_flush(stores[shard], layout, deltas[shard]) for shard in range(len(ends))))
    seconds["flush"] = time.perf_counter() - begun
    for store in stores:
        await store.close()
    async with open_log(f"kafka://{broker}") as log:
        await log.bounds(topics.updates(table), 0)
        begun = time.perf_counter()
        await asyncio.gather(
            *(_publish(Updates(log, table, shard, 0), deltas[shard]) for shard in range(len(ends)))
        )
        seconds["publish"] = time.perf_counter() - begun
    return seconds


def _apply(table: str, shards: int, batches: list[tuple[int, list[Record]]]) -> float:
    machines = [Shard(table, shard, KEYRING) for shard in range(shards)]
    begun = time.perf_counter()
    for shard, records in batches:
        _run(machines[shard], records)
    return time.perf_counter() - begun


def _run(machine: Shard, records: list[Record]) -> None:
    rest = records
    while rest:
        plan = machine.screen(rest)
        machine.apply(plan, None)
        if plan.op is not None:
            machine.apply_op(plan.op)
        rest = rest[plan.consumed :]


def _deltas(
    table: str, shards: int, batches: list[tuple[int, list[Record]]], cuts: dict[str, list[int]]
) -> dict[Any, Any]:
    """Return per shard what its commits held in the drain, in order."""
    found: dict[Any, Any] = {}
    for shard in range(shards):
        records = [record for number, batch in batches if number == shard for record in batch]
        machine = Shard(table, shard, KEYRING)
        found[shard] = []
        for cut in sorted({min(cut, records[-1].offset + 1) for cut in cuts[str(shard)]}):
            _run(machine, [record for record in records if record.offset < cut])
            records = [record for record in records if record.offset >= cut]
            found[shard].append(machine.take_delta())
            machine.committed()
        found["layout"] = RowLayout.of(machine.spec)
    return found


async def _flush(store: ShardStore, layout: RowLayout, deltas: list[Delta]) -> None:
    for delta in deltas:
        await store.commit(layout, delta, 0)


async def _publish(updates: Updates, deltas: list[Delta]) -> None:
    running = asyncio.create_task(updates.run())
    for delta in deltas:
        updates.offer(delta.states, delta.next)
        arrived = asyncio.create_task(updates.wait_for(delta.next))
        await asyncio.wait({running, arrived}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
    running.cancel()
