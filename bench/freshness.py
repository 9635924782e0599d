"""How long from a push until its rows can be read, with trainer, broker, Redis and aggregator on one machine?

Each step holds one probe row per shard that no other step touches; a process of its own reads
the probes still missing every 2 ms, as a reader would. The peer is the emulation of HugeCTR
HPS's update path (bench.hps) under the same load: the same ids, as row values.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.backlog import worker_settings
from bench.child import call
from bench.harness import Effort, Report
from bench.servers import KEY, Stand, servers
from bench.workload import Workload
from driftline.client.aio import AsyncClient
from driftline.client.options import Options
from driftline.log import open_log
from driftline.shard.spec import TableSpec
from driftline.stack.local import LocalStack

SECONDS, WARM = 12.0, 3.0  # pushed for so long, of which the begin does not count
GATHER = 4.0  # until all processes have come up
RATE = 30_000
SIDES = ("driftline", "hps")
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Load:
    """What is pushed, and how fast: `rate` gradient rows a second, 0 as fast as it goes."""

    work: Workload
    rate: float
    seconds: float

    def arguments(self) -> dict[str, Any]:
        """Return it for a process of the bench."""
        return {"work": self.work.settings(), "rate": self.rate, "seconds": self.seconds}


def run(report: Report, effort: Effort) -> None:
    """Measure and enter figures and ratios."""
    work, seconds = Workload(), max(5.0, SECONDS * min(1.0, effort.scale * 2))
    with servers() as stand:
        live = [_live_maximum(stand, Load(work, 0, seconds)) for _ in range(effort.repeats)]
        report.enter("fresh.live_maximum", "gradient rows/s", live)
        half = report.figures["fresh.live_maximum"].median / 2
        report.settings["freshness"] = {**work.settings(), "rates": [RATE, half], "seconds": seconds}
        for name, rate in (("30k", RATE), ("half", half)):
            load = Load(work, rate, seconds)
            found: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
            for _ in range(effort.repeats):
                for side in SIDES:
                    found[side].append(_percentiles(stand, side, load))
            for at, percentile in enumerate(("p50", "p99")):
                for side in SIDES:
                    report.enter(f"fresh.{side}_{percentile}_{name}", "s", [each[at] for each in found[side]])
                ours, theirs = (f"fresh.{side}_{percentile}_{name}" for side in SIDES)
                report.ratio(f"fresh_{percentile}_vs_hps_{name}", ours, theirs)


def _percentiles(stand: Stand, side: str, load: Load) -> tuple[float, float]:
    sent, seen = _measure(stand, side, load)
    counted = sent >= sent[0] + WARM
    delays = (seen - sent[:, None])[counted].ravel()
    if np.isnan(delays).any():
        raise RuntimeError(f"{side} at {load.rate:.0f} rows/s: {np.isnan(delays).sum()} probes never seen")
    return float(np.percentile(delays, 50)), float(np.percentile(delays, 99))


def _live_maximum(stand: Stand, load: Load) -> float:
    """Return the rate at which pushes become readable while the trainer pushes as fast as it can."""
    sent, seen = _measure(stand, "driftline", load)
    begin, end = sent[0] + WARM, sent[-1]
    readable = seen.max(axis=1)
    steps = np.count_nonzero((readable > begin) & (readable <= end))
    rows = float(np.mean([len(np.unique(ids)) for ids in load.work.id_steps(8)]))
    return float(steps * rows / (end - begin))


def _measure(stand: Stand, side: str, load: Load) -> tuple[Any, Any]:
    """Return when each step was pushed, and when its probe in each shard was first read."""
    stand.empty_redis()
    name = f"{side}{next(_numbers)}"
    return {"driftline": _driftline, "hps": _hps}[side](stand, name, load)


def _driftline(stand: Stand, name: str, load: Load) -> tuple[Any, Any]:
    work = load.work
    spec = TableSpec(name, work.dim, group=name, shards=work.shards)
    options = Options(stand.kafka.url, stand.redis.url, group=name, key=KEY)

    async def create() -> None:
        async with AsyncClient(options) as client:
            await client.create_table(spec)

    with LocalStack(worker_settings(stand, name)):
        asyncio.run(create())
        where = {"log_url": stand.kafka.url, "redis_url": stand.redis.url, "name": name}
        return _together(
            load,
            lambda more: call("bench.freshness_sides:push", {**where, **more}),
            lambda more: call("bench.freshness_sides:watch", {**where, **more, "side": "driftline"}),
        )


def _hps(stand: Stand, name: str, load: Load) -> tuple[Any, Any]:
    async def create() -> None:
        async with open_log(stand.kafka.url) as log:
            await log.create_topic(name, load.work.shards)

    asyncio.run(create())
    where = {"log_url": stand.kafka.url, "redis_url": stand.redis.url, "name": name}
    consumer = {
        "broker": stand.kafka.bootstrap,
        "redis_host": "127.0.0.1",
        "redis_port": stand.redis.port,
        "topic": name,
        "dim": load.work.dim,
        "writer": "raw",
    }
    with ThreadPoolExecutor(1) as pool:
        steps = _steps(load)
        consuming = pool.submit(call, "bench.hps:drain", {**consumer, "ends": [steps] * load.work.shards})
        found = _together(
            load,
            lambda more: call("bench.freshness_sides:send_values", {**where, **more}),
            lambda more: call("bench.freshness_sides:watch", {**where, **more, "side": "hps"}),
        )
        consuming.result()
    return found


def _together(
    load: Load, push: Callable[[dict[str, Any]], Any], watch: Callable[[dict[str, Any]], Any]
) -> tuple[Any, Any]:
    more = {**load.arguments(), "begin": time.monotonic() + GATHER}
    if load.rate:
        more["steps"] = _steps(load)
    with ThreadPoolExecutor(2) as pool:
        pushing, watching = pool.submit(push, more), pool.submit(watch, more)
        sent = np.array(pushing.result())
        seen = np.array(watching.result(), float)[: len(sent)]  # None becomes NaN
    return sent, seen


def _steps(load: Load) -> int:
    rows = float(np.mean([len(np.unique(ids)) for ids in load.work.id_steps(8)]))
    return int(load.rate * load.seconds / rows)
