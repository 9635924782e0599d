"""Ticks out of a recorded updates log.

Invariant: records of all partitions are taken in the order of their append times, up to the ends the
partitions had when reading began; a tick holds the records of one interval of log time. An interval
without records is no tick, but it counts: the next tick's number is as much higher.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from driftline import topics
from driftline.drift.replay import Change, Collector
from driftline.errors import UnknownTableError
from driftline.frames.states import States, read_update
from driftline.log import Log, Reader, Record
from driftline.log.limits import MAX_RECORD_BYTES

_WAIT = 5.0  # seconds: a record below the partition's end is there


async def recorded_ticks(log: Log, table: str, seconds: float) -> AsyncIterator[Change]:
    """Yield the ticks of `seconds` each that the updates topic of `table` holds.

    Raises UnknownTableError without such a topic.
    """
    topic = topics.updates(table)
    partitions = (await log.topics()).get(topic)
    if partitions is None:
        raise UnknownTableError(
            f"table {table!r} has no updates topic in this log: `driftline table ls` lists the tables"
        )
    collector = Collector()
    first = current = 0
    async for record in _in_time(log, topic, partitions):
        interval = int(record.timestamp / 1000 // seconds)
        if interval > current:
            if len(collector):
                yield replace(collector.cut(), tick=current - first)
            else:
                first = interval
            current = interval
        update = read_update(record.value, limit=MAX_RECORD_BYTES)
        if isinstance(update, States):
            collector.add(update)
    if len(collector):
        yield replace(collector.cut(), tick=current - first)


async def _in_time(log: Log, topic: str, partitions: int) -> AsyncIterator[Record]:
    """Yield the records of all partitions, merged by append time, then by partition."""
    ends = [await log.bounds(topic, partition) for partition in range(partitions)]
    readers = [log.reader(topic, partition, bounds.begin) for partition, bounds in enumerate(ends)]
    waiting: list[tuple[int, int, int, Sequence[Record]]] = []  # time, partition, place in the batch, batch

    async def fetch(partition: int, reader: Reader) -> None:
        if reader.position < ends[partition].end:
            batch = await reader.read(wait=_WAIT)
            if batch:
                heapq.heappush(waiting, (batch[0].timestamp, partition, 0, batch))

    try:
        for partition, reader in enumerate(readers):
            await fetch(partition, reader)
        while waiting:
            _, partition, place, batch = heapq.heappop(waiting)
            if batch[place].offset >= ends[partition].end:
                continue
            yield batch[place]
            if place + 1 < len(batch):
                heapq.heappush(waiting, (batch[place + 1].timestamp, partition, place + 1, batch))
            else:
                await fetch(partition, readers[partition])
    finally:
        for reader in readers:
            await reader.close()
