"""The processes of the freshness question: who pushes, who sends values, who watches for what arrives.

Times are of CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import numpy as np
import redis
from numpy.typing import NDArray

from bench.hps import encode_values
from bench.workload import Workload
from driftline.client import Client, Options
from driftline.client.aio import AsyncClient
from driftline.client.publisher import Publisher
from driftline.ids import shard_of, splitmix64
from driftline.log import Outgoing, open_log

IN_FLIGHT = 4 << 20
EVERY = 0.002  # seconds between two looks
AHEAD = 64  # steps looked for once one more has been seen
SOURCE = 64  # steps prepared, then repeated: making them is not the question
PROBES = 1 << 40

Matrix = NDArray[np.float32]


def probes(shards: int, steps: int) -> NDArray[np.uint64]:
    """Return probe ids (steps, shards): those of column p live in shard p."""
    drawn = splitmix64(np.arange(PROBES, PROBES + 2 * shards * (steps + 64), dtype=np.uint64))
    home = shard_of(drawn, shards)
    return np.stack([drawn[home == shard][:steps] for shard in range(shards)], axis=1)


def push(
    log_url: str, redis_url: str, name: str, work: dict[str, Any], rate: float, begin: float, **rest: Any
) -> list[float]:
    """Push gradients with driftline's client; return when each step was due."""
    return asyncio.run(_push(log_url, redis_url, name, Workload(**work), begin, **rest))


async def _push(
    log_url: str,
    redis_url: str,
    name: str,
    work: Workload,
    begin: float,
    seconds: float,
    steps: int | None = None,
) -> list[float]:
    source, probe = list(work.steps(SOURCE)), probes(work.shards, steps or 50_000)
    extra = np.ones((work.shards, work.dim), np.float32)
    options = Options(log_url, redis_url, group=name, push_buffer_bytes=IN_FLIGHT)
    sent: list[float] = []
    async with AsyncClient(options) as client:
        table = await client.table(name)
        async for step, due in _paced(begin, seconds, steps):
            ids, grads = source[step % SOURCE]
            sent.append(due)
            await table.push(np.concatenate((ids, probe[step])), np.concatenate((grads, extra)))
    return sent


def send_values(
    log_url: str, redis_url: str, name: str, work: dict[str, Any], rate: float, begin: float, **rest: Any
) -> list[float]:
    """Send row values as HPS's trainer does; return when each step was due."""
    return asyncio.run(_send_values(log_url, name, Workload(**work), begin, **rest))


async def _send_values(
    log_url: str, name: str, work: Workload, begin: float, seconds: float, steps: int
) -> list[float]:
    source, probe = [np.unique(ids) for ids in work.id_steps(SOURCE)], probes(work.shards, steps)
    values = np.ones((work.lookups + work.shards, work.dim), np.float32)
    sent: list[float] = []
    async with open_log(log_url) as log:
        publisher = Publisher(log, IN_FLIGHT)
        async for step, due in _paced(begin, seconds, steps):
            ids = np.concatenate((source[step % SOURCE], probe[step]))
            sent.append(due)
            home = shard_of(ids, work.shards)
            parts = [ids[home == shard] for shard in range(work.shards)]
            messages = [
                (shard, Outgoing(encode_values(part, values[: len(part)])))
                for shard, part in enumerate(parts)
            ]
            await publisher.put(name, lambda messages=messages: messages)  # type: ignore[misc]
        await publisher.flush()
        await publisher.close()
    return sent


async def _paced(begin: float, seconds: float, steps: int | None) -> AsyncIterator[tuple[int, float]]:
    """Yield steps and when each was due; late ones at once, so that a slow side does not slow the load down.

    Delays count from when a step was due: a side that pushes late is not the fresher for it.
    """
    await asyncio.sleep(max(0.0, begin - time.monotonic()))
    if steps is None:
        step = 0
        while time.monotonic() < begin + seconds:
            yield step, time.monotonic()
            step += 1
            await asyncio.sleep(0)
        return
    for step in range(steps):
        due = begin + step * seconds / steps
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        yield step, due


def watch(
    log_url: str,
    redis_url: str,
    name: str,
    work: dict[str, Any],
    rate: float,
    begin: float,
    seconds: float,
    side: str,
    steps: int | None = None,
) -> list[list[float | None]]:
    """Return when the probe of each step and shard was first read."""
    load = Workload(**work)
    wanted = probes(load.shards, steps or 50_000)
    exists = _reader(side, log_url, redis_url, name, load.shards)
    seen: list[list[float | None]] = [[None] * load.shards for _ in wanted]
    following = [0] * load.shards
    time.sleep(max(0.0, begin - time.monotonic()))
    end = begin + seconds + (5.0 if steps else 0.0)
    while time.monotonic() < end and min(following) < len(wanted):
        for shard in list(_arrived(exists, wanted, following)):
            at = time.monotonic()
            found = _count(exists, wanted[following[shard] : following[shard] + AHEAD, shard], shard)
            for step in range(following[shard], following[shard] + found):
                seen[step][shard] = at
            following[shard] += found
        time.sleep(EVERY)
    return seen[: max(following)]


Exists = Callable[[NDArray[np.uint64], list[int]], NDArray[np.bool_]]


def _arrived(exists: Exists, wanted: NDArray[np.uint64], following: list[int]) -> Iterator[int]:
    """Yield the shards whose next probe can be read."""
    shards = [shard for shard, step in enumerate(following) if step < len(wanted)]
    ids = np.array([wanted[following[shard], shard] for shard in shards], np.uint64)
    for shard, here in zip(shards, exists(ids, shards), strict=True):
        if here:
            yield shard


def _count(exists: Exists, ids: NDArray[np.uint64], shard: int) -> int:
    here = exists(ids, [shard] * len(ids))
    return len(here) if here.all() else int(np.argmin(here))


def _reader(side: str, log_url: str, redis_url: str, name: str, shards: int) -> Exists:
    if side == "driftline":
        table = Client(Options(log_url, redis_url, group=name)).table(name)
        return lambda ids, _: table.get(ids, on_missing="zero").found
    client = redis.Redis.from_url(redis_url)

    def exists(ids: NDArray[np.uint64], homes: list[int]) -> NDArray[np.bool_]:
        pipeline = client.pipeline(transaction=False)
        for row, shard in zip(ids, homes, strict=True):
            pipeline.hexists(f"{{hps:{shard}}}", row.tobytes())
        return np.array(pipeline.execute(), bool)

    return exists
