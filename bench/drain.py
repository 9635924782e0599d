"""How fast does an aggregator's shard drain its log, against its own parts?

One shard, 1M possible ids × 64 float32, Zipf 1.2, row-wise Adagrad, about 500 distinct ids a
frame, on the embedded log and a real Redis. Floor: decode + map + apply alone, in memory, over
the same records.
"""

from __future__ import annotations

import asyncio
import functools
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.harness import Report, interleaved
from driftline import topics
from driftline.frames.events import SPEC, Gradient, Op, Origin, write_event
from driftline.frames.headers import Keyring
from driftline.ids import OPS_PRODUCER, producer_id
from driftline.log import Log, Outgoing, Record, open_log
from driftline.rows.connection import RedisConnection
from driftline.rows.layout import ShardKeys
from driftline.rows.shard_store import ShardStore
from driftline.servers.redis import RedisServer
from driftline.shard.machine import Shard
from driftline.shard.spec import TableSpec
from driftline_services.aggregator.runner import ShardRunner

FRAMES, LOOKUPS, DIM, IDS = 400, 1_000, 64, 1_000_000
KEYRING = Keyring(b"bench key, not a secret of anyone")
SPEC_OF = functools.partial(TableSpec, dim=DIM, shards=1)


def run(report: Report) -> None:
    """Measure and enter figures and ratios."""
    with tempfile.TemporaryDirectory() as scratch, RedisServer(Path(scratch) / "redis") as redis:
        frames, rows = _frames()
        sides = {
            "core.decode_map_apply": lambda: rows / _core(frames),
            "drain.local": lambda: rows / asyncio.run(_drain(Path(scratch), redis.url, frames)),
        }
        report.figures |= interleaved(sides, "gradient rows/s")
    drain, core = report.figures["drain.local"], report.figures["core.decode_map_apply"]
    report.ratios["drain_vs_apply_local"] = drain.median / core.median


def _frames() -> tuple[list[Outgoing], int]:
    rng = np.random.default_rng(0)
    weights = 1 / np.arange(1, IDS + 1) ** 1.2
    ranks = np.cumsum(weights) / weights.sum()
    spec = SPEC_OF("bench").to_json()
    op = Op(SPEC, "bench", 0, Origin(OPS_PRODUCER, 0, 1), spec)
    first = write_event(op, more={"group": str(spec["group"])})
    frames, producer, rows = [Outgoing(first, None, KEYRING.sign(first))], producer_id("bench"), 0
    for step in range(FRAMES):
        ids = np.unique(np.searchsorted(ranks, rng.random(LOOKUPS)).astype(np.uint64))
        grads = rng.standard_normal((len(ids), DIM)).astype(np.float32)
        frames.append(Outgoing(write_event(Gradient("bench", 0, Origin(producer, 0, step), ids, grads))))
        rows += len(ids)
    return frames, rows


def _core(frames: list[Outgoing]) -> float:
    records = [Record(at, at, None, frame.value, frame.headers) for at, frame in enumerate(frames)]
    shard = Shard("bench", 0, KEYRING)
    begun = time.perf_counter()
    for start in range(0, len(records), 8):
        rest = records[start : start + 8]
        while rest:
            plan = shard.screen(rest)
            shard.apply(plan, None)
            if plan.op is not None:
                shard.apply_op(plan.op)
            rest = rest[plan.consumed :]
    return time.perf_counter() - begun


async def _drain(scratch: Path, redis_url: str, frames: list[Outgoing]) -> float:
    table = f"bench{time.monotonic_ns()}"
    connect = functools.partial(RedisConnection.open, redis_url)
    async with open_log(f"local://{scratch}/{table}") as log:
        await _fill(log, frames)
        connection = await connect()
        await connection.exchange([b"*1\r\n$8\r\nFLUSHALL\r\n"], 1)
        await connection.close()
        store = ShardStore(connect, ShardKeys.of("bench", 0), b"bench")
        runner = ShardRunner("bench", 0, store=store, log=log, keyring=KEYRING)
        reader = log.reader(topics.gradients("bench"), 0, await runner.start())
        begun = time.perf_counter()
        while runner.progress.applied < len(frames):
            await runner.apply(await reader.read(wait=1.0))
        await runner.drain()
        seconds = time.perf_counter() - begun
        await runner.close()
        await reader.close()
        return seconds


async def _fill(log: Log, frames: list[Outgoing]) -> None:
    for name in (topics.gradients("bench"), topics.updates("bench"), topics.dead_letters("bench")):
        await log.create_topic(name, 1)
    for start in range(0, len(frames), 16):
        await log.append(topics.gradients("bench"), 0, frames[start : start + 16])
