"""Fills topics before anything is timed: gradients by driftline's own client, row values for the peer.

Invariant: for each frame of gradients there is one message of values with the same ids
(`values`), so both sides read messages of the same size, in Kafka batches of the same size.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.hps import encode_values
from bench.servers import KEY, Stand
from bench.workload import Workload
from driftline import topics
from driftline.client.aio import AsyncClient
from driftline.client.options import Options
from driftline.config import Settings
from driftline.frames.events import Gradient, read_event
from driftline.log import Log, Outgoing, open_log
from driftline.shard.spec import Policy, TableSpec
from driftline.stack.local import LocalStack

IN_FLIGHT = 4 << 20
"""Bytes a producer holds: Kafka batches then hold some ten frames of 39 KB, as with a trainer that
is throttled; without it, they grow to the broker's limit."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """A filled topic: its partitions' ends, and how many gradient rows were pushed, per step summed."""

    topic: str
    ends: list[int]
    rows: int
    messages: int
    message_bytes: int  # on average

    def settings(self) -> dict[str, object]:
        """Return its size, for a report."""
        return {"rows": self.rows, "messages": self.messages, "message_bytes": self.message_bytes}


def worker_settings(stand: Stand, group: str) -> Settings:
    """Return the settings of an aggregator at the stand; everything else is the default."""
    return Settings(
        log_url=stand.kafka.url,
        redis_url=stand.redis.url,
        data_dir=Path(stand.scratch / f"worker-{group}"),
        group=group,
        key=KEY,  # type: ignore[arg-type]
        http_port=0,
        log_level="warning",
        versioner=False,  # the question is about trainer, broker, Redis and aggregator
    )


def push(
    stand: Stand, table: str, load: Workload, steps: int, *, merge: int = 1, frame: int = 1 << 20
) -> Backlog:
    """Create `table` in a group of its own; push `steps`, `merge` at a time, in frames up to `frame`."""
    spec = TableSpec(table, load.dim, group=table, shards=load.shards, policy=Policy(max_frame=frame))
    with LocalStack(worker_settings(stand, table)):
        asyncio.run(_create(stand, spec))
    rows = sum(len(np.unique(ids)) for ids in load.id_steps(steps))
    asyncio.run(_push(_options(stand, table, merge), table, load, steps))
    return asyncio.run(_measure(stand, topics.gradients(table), rows))


def values(stand: Stand, source: Backlog, name: str, dim: int, *, join_to: int | None = None) -> Backlog:
    """Write values for the rows that `source` names, joined to messages of up to `join_to` bytes."""
    return asyncio.run(_values(stand, source, name, dim, join_to))


def _options(stand: Stand, group: str, merge: int = 1) -> Options:
    return Options(
        stand.kafka.url,
        stand.redis.url,
        group=group,
        key=KEY,
        push_buffer_bytes=IN_FLIGHT,
        merge_steps=merge,
    )


async def _create(stand: Stand, spec: TableSpec) -> None:
    async with AsyncClient(_options(stand, spec.group)) as client:
        await client.create_table(spec)


async def _push(options: Options, table: str, load: Workload, steps: int) -> None:
    async with AsyncClient(options) as client:
        handle = await client.table(table)
        for ids, grads in load.steps(steps):
            await handle.push(ids, grads)


async def _measure(stand: Stand, topic: str, rows: int) -> Backlog:
    async with open_log(stand.kafka.url) as log:
        partitions = (await log.topics())[topic]
        ends = [(await log.bounds(topic, partition)).end for partition in range(partitions)]
        sizes = [
            len(record.value)
            for partition in range(partitions)
            for record in await _records(log, topic, partition, 50)
        ]
    return Backlog(topic, ends, rows, sum(ends), round(sum(sizes) / len(sizes)))


async def _values(stand: Stand, source: Backlog, name: str, dim: int, join_to: int | None) -> Backlog:
    async with open_log(stand.kafka.url) as log:
        await log.create_topic(name, len(source.ends))
        for partition, end in enumerate(source.ends):
            records = await _records(log, source.topic, partition, end)
            frames = [
                event.ids
                for record in records
                if isinstance(event := read_event(record.value, limit=8 << 20), Gradient)
            ]
            messages = [Outgoing(each) for each in _messages(frames, dim, join_to)]
            for batch in _batches(messages, 512 << 10):
                await log.append(name, partition, batch)
    return await _measure(stand, name, source.rows)


def _messages(frames: Sequence[NDArray[np.uint64]], dim: int, join_to: int | None) -> Iterator[bytes]:
    if join_to is not None:
        ids, step = np.concatenate(frames), join_to // (8 + 4 * dim)
        frames = [ids[start : start + step] for start in range(0, len(ids), step)]
    rng = np.random.default_rng(2)
    for ids in frames:
        yield encode_values(ids, rng.standard_normal((len(ids), dim), np.float32))


def _batches(messages: Sequence[Outgoing], size: int) -> Iterator[list[Outgoing]]:
    batch: list[Outgoing] = []
    for message in messages:
        batch.append(message)
        if sum(len(each.value) for each in batch) >= size:
            yield batch
            batch = []
    if batch:
        yield batch


async def _records(log: Log, topic: str, partition: int, count: int) -> list[Outgoing]:
    reader = log.reader(topic, partition, 0)
    found: list[Outgoing] = []
    while len(found) < count:
        records = await reader.read(wait=1.0)
        if not records:
            break
        found += [Outgoing(record.value) for record in records]
    await reader.close()
    return found[:count]
