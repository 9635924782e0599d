"""The flow of the chassis, held over both transports: slow, held, sought and late partitions.

None of them costs a record, an order, or the others their pace.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from driftline.log import Log
from driftline_services.chassis import (
    Batch,
    TopicPartition,
)
from tests.conformance.consumer_recorder import SETTINGS, Recorder, Store
from tests.conformance.consumer_scene import (
    PARTITIONS,
    applied,
    assert_exactly_once,
    log,
    name,
    running,
    send,
    store,
    topic,
    until,
    url,
    workers,
)

__all__ = ["log", "name", "store", "topic", "url", "workers"]  # fixtures


async def test_a_slow_partition_holds_up_neither_the_others_nor_the_membership(
    url: str, log: Log, topic: str, name: str, store: Store
) -> None:
    slow = TopicPartition(topic, 0)
    gate = asyncio.Event()
    most = 0

    class Slow(Recorder):
        async def apply(self, batch: Batch) -> None:
            nonlocal most
            most = max(most, app.chassis.budget.used)
            if batch.tp == slow:
                await gate.wait()
            await super().apply(batch)

    settings = replace(
        SETTINGS, max_poll_interval=2.0, fetch_bytes=16 << 10, lane_bytes=64 << 10, buffer_bytes=512 << 10
    )
    handler = Slow(store)
    async with running(url, name, [topic], handler, settings) as app:
        await send(log, topic, 2000, size=500)  # 1 MB per partition
        others = (PARTITIONS - 1) * 2000
        await until(lambda: store.count() == others, "the other partitions are done")
        waited = time.monotonic() + 2 * settings.max_poll_interval
        await until(lambda: time.monotonic() > waited, "time enough for an eviction has passed")
        gate.set()
        await until(lambda: store.count() == PARTITIONS * 2000, "the slow one is done too")
        assert store.calls("w") == [("load", PARTITIONS)]
    assert most < 1 << 20
    assert_exactly_once(store, topic, 2000, size=500)


async def test_everything_blocked_stays_within_the_buffer_and_in_the_group(
    url: str, log: Log, topic: str, name: str, store: Store
) -> None:
    gate = asyncio.Event()

    class Blocked(Recorder):
        async def apply(self, batch: Batch) -> None:
            await gate.wait()
            await super().apply(batch)

    settings = replace(SETTINGS, max_poll_interval=2.0, fetch_bytes=16 << 10, buffer_bytes=64 << 10)
    async with running(url, name, [topic], Blocked(store), settings) as app:
        await send(log, topic, 2000, size=500)
        await until(lambda: app.chassis.budget.used >= 64 << 10, "the buffer is full")
        waited = time.monotonic() + 2 * settings.max_poll_interval
        await until(lambda: time.monotonic() > waited, "time enough for an eviction has passed")
        assert app.chassis.budget.used < 128 << 10
        gate.set()
        await until(lambda: store.count() == PARTITIONS * 2000, "everything is applied")
        assert store.calls("w") == [("load", PARTITIONS)]
    assert_exactly_once(store, topic, 2000, size=500)


async def test_a_handler_that_lost_its_cache_seeks_back(
    url: str, log: Log, topic: str, name: str, store: Store
) -> None:
    lost = TopicPartition(topic, 1)

    class Forgetful(Recorder):
        times = 0

        async def apply(self, batch: Batch) -> None:
            if batch.tp == lost and batch.start >= 200 and self.times < 3:
                self.times += 1
                self.store.rewind(lost, 50 * self.times)
                self.flow.seek(lost, 50 * self.times)
            else:
                await super().apply(batch)

    handler = Forgetful(store)
    async with running(url, name, [topic], handler):
        for first in range(0, 800, 100):
            await send(log, topic, 100, first=first)
            await applied(store, TopicPartition(topic, 0), first + 100)
        await until(lambda: store.count() == PARTITIONS * 800, "everything is applied")
    assert handler.times == 3
    assert_exactly_once(store, topic, 800)


async def test_a_seek_during_a_slow_apply_drops_what_is_queued(
    url: str, log: Log, topic: str, name: str, store: Store
) -> None:
    lost = TopicPartition(topic, 2)
    handler = Recorder(store, delay=0.02)
    settings = replace(SETTINGS, fetch_bytes=1 << 10)
    async with running(url, name, [topic], handler, settings) as app:
        await send(log, topic, 1000)
        for position in (300, 100, 0):
            await applied(store, lost, position + 1)
            await app.chassis.hold(lost)  # no apply in hand from here on
            store.rewind(lost, position)
            app.chassis.resume(lost, position)
        handler.delay = 0.0
        await until(lambda: store.count() == PARTITIONS * 1000, "everything is applied")
    assert_exactly_once(store, topic, 1000)


async def test_a_held_partition_rests_until_resumed_while_others_go_on(
    url: str, log: Log, topic: str, name: str, store: Store
) -> None:
    held = TopicPartition(topic, 3)
    async with running(url, name, [topic], Recorder(store)) as app:
        await send(log, topic, 100)
        await until(lambda: store.count() == PARTITIONS * 100, "the first are applied")
        await app.chassis.hold(held)
        await send(log, topic, 100, first=100)
        await until(lambda: store.count() == PARTITIONS * 200 - 100, "the others go on")
        assert store.position(held) == 100
        await app.chassis.resume(held, store.position(held))
        await until(lambda: store.count() == PARTITIONS * 200, "the held one catches up")
    assert_exactly_once(store, topic, 200)


async def test_a_partition_left_out_by_load_is_held(
    url: str, log: Log, topic: str, name: str, store: Store
) -> None:
    out = TopicPartition(topic, 0)

    class Careful(Recorder):
        async def load(self, partitions: frozenset[TopicPartition]) -> dict[TopicPartition, int]:
            return {tp: p for tp, p in (await super().load(partitions)).items() if tp != out}

    await send(log, topic, 100)
    async with running(url, name, [topic], Careful(store)) as app:
        await until(lambda: store.count() == (PARTITIONS - 1) * 100, "the others are applied")
        assert store.position(out) == 0
        app.chassis.resume(out, 0)
        await until(lambda: store.count() == PARTITIONS * 100, "the one left out is applied")
    assert_exactly_once(store, topic, 100)


async def test_a_topic_can_be_added_while_running(
    url: str, log: Log, topic: str, name: str, store: Store
) -> None:
    added = f"{name}-added"
    async with running(url, name, [topic], Recorder(store)) as app:
        await send(log, topic, 100)
        await until(lambda: store.count(topic) == PARTITIONS * 100, "the first topic is applied")
        await app.chassis.subscribe([added])  # does not exist yet
        await log.create_topic(added, PARTITIONS)
        await send(log, added, 100)
        await send(log, topic, 100, first=100)
        await until(lambda: store.count(added) == PARTITIONS * 100, "the new topic is applied")
        await until(lambda: store.count(topic) == PARTITIONS * 200, "the first one goes on")
    assert_exactly_once(store, added, 100)
    assert_exactly_once(store, topic, 200)


async def test_a_topic_may_be_missing_at_the_start(url: str, log: Log, name: str, store: Store) -> None:
    async with running(url, name, [name], Recorder(store)):
        await log.create_topic(name, PARTITIONS)
        await send(log, name, 100)
        await until(lambda: store.count() == PARTITIONS * 100, "the late topic is applied")
    assert (await log.topics())[name] == PARTITIONS
    assert_exactly_once(store, name, 100)


async def test_records_larger_than_a_fetch_come_through(
    url: str, log: Log, topic: str, name: str, store: Store
) -> None:
    size = 700_000
    settings = replace(SETTINGS, fetch_bytes=64 << 10, lane_bytes=64 << 10, buffer_bytes=256 << 10)
    async with running(url, name, [topic], Recorder(store), settings):
        await send(log, topic, 8, size=size)
        await until(lambda: store.count() == PARTITIONS * 8, "everything is applied")
    assert_exactly_once(store, topic, 8, size=size)
