"""How fast is the whole pipeline on the embedded log, against Kafka?

From the first push of a trainer until everything it pushed can be read, with trainer,
broker (on Kafka), Redis and aggregator running on one machine.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import replace
from typing import Any

import numpy as np

from bench.backlog import worker_settings
from bench.child import call
from bench.harness import Effort, Report
from bench.servers import KEY, Stand, servers
from bench.workload import Workload
from driftline.client.aio import AsyncClient
from driftline.client.options import Options
from driftline.shard.spec import TableSpec
from driftline.stack.local import LocalStack

STEPS = 800
SOURCE = 100  # steps prepared, then repeated: making them is not the question
IN_FLIGHT = 4 << 20
_numbers = itertools.count()


def run(report: Report, effort: Effort) -> None:
    """Measure and enter figures and ratios."""
    load, steps = Workload(), effort.scaled(STEPS)
    report.settings["transports"] = {**load.settings(), "steps": steps}
    with servers() as stand:
        sides = {
            "local": lambda: _pipeline(stand, f"local://{stand.scratch}/log{next(_numbers)}", load, steps),
            "kafka": lambda: _pipeline(stand, stand.kafka.url, load, steps),
        }
        report.measure("pipeline", "gradient rows/s", effort.repeats, sides)
    report.ratio("local_vs_kafka", "pipeline.local", "pipeline.kafka")


def _pipeline(stand: Stand, log_url: str, load: Workload, steps: int) -> float:
    stand.empty_redis()
    name = f"pipeline{next(_numbers)}"
    settings = worker_settings(stand, name).model_copy(update={"log_url": log_url})
    options = Options(log_url, stand.redis.url, group=name, key=KEY)

    async def create() -> None:
        async with AsyncClient(options) as client:
            await client.create_table(TableSpec(name, load.dim, group=name, shards=load.shards))

    with LocalStack(settings):
        asyncio.run(create())
        where = {"log_url": log_url, "redis_url": stand.redis.url, "name": name}
        found = call("bench.transports:train", {**where, "work": load.settings(), "steps": steps})
    return float(found)


def train(log_url: str, redis_url: str, name: str, work: dict[str, Any], steps: int) -> float:
    """Push steps as fast as the pipeline takes them; return gradient rows a second until all are readable."""
    return asyncio.run(_train(Options(log_url, redis_url, group=name), name, Workload(**work), steps))


async def _train(options: Options, name: str, load: Workload, steps: int) -> float:
    source = list(load.steps(SOURCE))
    counts = [len(np.unique(ids)) for ids, _ in source]
    async with AsyncClient(replace(options, push_buffer_bytes=IN_FLIGHT)) as client:
        table = await client.table(name)
        begun = time.perf_counter()
        for step in range(steps):
            await table.push(*source[step % SOURCE])
        await table.wait_readable(timeout=300)
        seconds = time.perf_counter() - begun
    return sum(counts[step % SOURCE] for step in range(steps)) / seconds
