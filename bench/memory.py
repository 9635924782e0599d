"""How many bytes does a row take, in Redis and in an aggregator's cache?

Redis: `used_memory` with a table that the whole pipeline wrote, against plain hashes of the
same ids and values in a server of the same kind. Aggregator: resident memory of a process as
its cache grows, against row + optimizer state + 24 bytes; and with a budget, the most it took.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import redis

from bench.child import call
from bench.harness import Effort, Report
from bench.servers import KEY
from bench.workload import Workload
from driftline.client.aio import AsyncClient
from driftline.client.options import Options
from driftline.config import Settings
from driftline.ids import splitmix64
from driftline.rows.layout import ShardKeys
from driftline.servers import RedisServer
from driftline.shard.cache import RowCache
from driftline.shard.spec import TableSpec
from driftline.stack.local import LocalStack

TABLE, PUSH, FIRST = "memory", 8_192, 100_000
PAGE = 4096
ROWS = 400_000


def run(report: Report, effort: Effort) -> None:
    """Measure and enter figures and ratios."""
    load = Workload(rows=max(50_000, effort.scaled(ROWS)))
    report.settings["memory"] = {"rows": load.rows, "dim": load.dim, "shards": load.shards}
    in_redis, plain = asyncio.run(_redis(load))
    report.enter("memory.redis_row", "bytes", [in_redis / load.rows])
    report.enter("memory.redis_plain_row", "bytes", [plain / load.rows])
    report.enter_ratio("redis_bytes_factor", [in_redis / plain])
    found = [
        call("bench.memory:grow", {"rows": max(4 * FIRST, load.rows), "dim": load.dim})
        for _ in range(effort.repeats)
    ]
    report.enter("memory.aggregator_row", "bytes", [each["row"] for each in found])
    report.enter_ratio("aggregator_bytes_factor", [each["factor"] for each in found])
    budget = 64 << 20
    most = [
        call("bench.memory:within", {"rows": max(4 * FIRST, load.rows), "dim": load.dim, "budget": budget})
        for _ in range(effort.repeats)
    ]
    report.enter("memory.aggregator_of_budget", "of the budget", [each / budget for each in most])


async def _redis(load: Workload) -> tuple[int, int]:
    ids = splitmix64(np.arange(load.rows, dtype=np.uint64))
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as name:
        scratch = Path(name)
        with RedisServer(scratch / "ours") as ours, RedisServer(scratch / "plain") as plain:
            empty = _used(ours.url), _used(plain.url)
            settings = Settings(
                log_url=f"local://{scratch}/log",
                redis_url=ours.url,
                data_dir=scratch / "data",
                key=KEY,  # type: ignore[arg-type]
                http_port=0,
                log_level="warning",
            )
            with LocalStack(settings):
                options = Options(settings.log_url, ours.url, key=KEY)
                async with AsyncClient(options) as client:
                    spec = TableSpec(TABLE, load.dim, shards=load.shards)
                    table = await client.create_table(spec, timeout=120)
                    rng = np.random.default_rng(0)
                    for start in range(0, len(ids), PUSH):
                        some = ids[start : start + PUSH]
                        await table.push(some, rng.standard_normal((len(some), load.dim), np.float32))
                    await table.wait_readable(timeout=300)
            _copy(ours.url, plain.url, load.shards)
            return _used(ours.url) - empty[0], _used(plain.url) - empty[1]


def _copy(source: str, target: str, shards: int) -> None:
    """Write the same ids and values as a plain program would: HSET to one hash per shard."""
    with redis.Redis.from_url(source) as ours, redis.Redis.from_url(target) as plain:
        for shard in range(shards):
            pairs: list[bytes] = []
            for field, value in ours.hscan_iter(ShardKeys.of(TABLE, shard).values, count=2_048):
                pairs += (field, value)
                if len(pairs) >= 4_096:
                    plain.execute_command("HSET", f"plain:{shard}", *pairs)
                    pairs = []
            if pairs:
                plain.execute_command("HSET", f"plain:{shard}", *pairs)


def _used(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        return int(client.info("memory")["used_memory_dataset"])


def grow(rows: int, dim: int) -> dict[str, float]:
    """Fill a cache in batches; return its bytes per row at the end and the largest factor on the way.

    Resident memory tells a row's bytes to a page or two only, so the factor counts from 100,000 rows on.
    """
    cache, begun, factor = _cache(dim), _resident(), 0.0
    for ids in _batches(rows):
        cache.slots(ids)
        if cache.used >= FIRST:
            factor = max(factor, (_resident() - begun) / (cache.used * (4 * dim + 4 + 24)))
    return {"row": (_resident() - begun) / rows, "factor": factor}


def within(rows: int, dim: int, budget: int) -> int:
    """Fill a cache far beyond its budget, trimming as the aggregator does; return the most it took."""
    cache, begun, most = _cache(dim), _resident(), 0
    for ids in _batches(rows):
        cache.slots(ids)
        most = max(most, _resident() - begun)
        cache.trim(budget)
    return most


def _cache(dim: int) -> RowCache:
    cache = RowCache(dim, lambda ids: np.ones((len(ids), dim), np.float32), np.zeros(1, np.float32))
    cache.slots(np.arange(1 << 40, (1 << 40) + PUSH, dtype=np.uint64))  # code and buffers of the first call
    return cache


def _batches(rows: int) -> Any:
    for start in range(0, rows, PUSH):
        yield splitmix64(np.arange(start, min(start + PUSH, rows), dtype=np.uint64))


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
