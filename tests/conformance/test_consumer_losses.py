"""The contract of the chassis where a partition's log is cut off under it, held over both transports.

Whatever happens to one partition, the others go on, and nothing of it is skipped unseen.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from driftline.errors import PositionError
from driftline.log import LocalAddress, Log, parse_address
from driftline.log.local import LocalLog
from driftline_services.chassis import Batch, TopicPartition
from tests.conformance.consumer_recorder import SETTINGS, Recorder, Store
from tests.conformance.consumer_scene import (
    PARTITIONS,
    applied,
    log,
    name,
    running,
    send,
    store,
    topic,
    until,
    url,
)
from tests.support import kafka_admin

__all__ = ["log", "name", "store", "topic", "url"]  # fixtures


class Losing(Recorder):
    """Goes on without partitions whose log was cut off under them; partition 0 waits for `gate`."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.losses: list[tuple[TopicPartition, str]] = []
        self.gate = asyncio.Event()

    async def apply(self, batch: Batch) -> None:
        if batch.partition == 0:
            await self.gate.wait()
        await super().apply(batch)

    async def lost(self, tp: TopicPartition, error: PositionError) -> None:
        self.losses.append((tp, str(error)))


async def cut_off(url: str, topic: str, partition: int, before: int) -> None:
    address = parse_address(url)
    if isinstance(address, LocalAddress):
        async with LocalLog(address.root) as log:
            await log.trim(topic, partition, before)
    else:
        await asyncio.to_thread(kafka_admin.expire, url, topic, partition, before)


async def test_a_log_cut_off_under_a_running_worker_costs_it_that_partition_only(
    url: str, log: Log, topic: str, name: str, store: Store
) -> None:
    handler, tp = Losing(store), TopicPartition(topic, 0)
    settings = replace(SETTINGS, fetch_bytes=64 << 10, lane_batches=1, stream_fetches=1)
    await send(log, topic, 60, size=30_000)
    async with running(url, name, [topic], handler, settings) as app:
        for partition in range(1, PARTITIONS):
            await applied(store, TopicPartition(topic, partition), 60)
        await cut_off(url, topic, 0, 55)
        handler.gate.set()
        await until(lambda: bool(handler.losses), "the loss is reported")
        await send(log, topic, 10, first=60)
        for partition in range(1, PARTITIONS):
            await applied(store, TopicPartition(topic, partition), 70)
        lost_at = store.position(tp)
        assert [(lost, str(lost_at) in text, "relog" in text) for lost, text in handler.losses] == [
            (tp, True, True)
        ]
        assert lost_at < 55  # what had been fetched before was applied, and nothing was skipped
        store.rewind(tp, 55)
        handler.flow.resume(tp, 55)
        await applied(store, tp, 70)
        assert app.chassis.error is None


async def test_a_position_outside_the_log_is_reported_for_its_partition(
    url: str, log: Log, topic: str, name: str, store: Store
) -> None:
    handler, tp = Losing(store), TopicPartition(topic, 1)
    handler.gate.set()
    await send(log, topic, 10)
    async with running(url, name, [topic], handler):
        await applied(store, tp, 10)
        handler.flow.seek(tp, 1000)
        await until(lambda: bool(handler.losses), "the loss is reported")
        await send(log, topic, 10, first=10)
        await applied(store, TopicPartition(topic, 2), 20)
        assert [lost for lost, _ in handler.losses] == [tp]
        assert store.position(tp) == 10
