"""How long a start takes until the first event is applied: it must not grow with the table.

Invariant judged: the median over REPEATS interleaved starts on the large table is at
most LIMIT times that on the small one; likewise with many known producers.
"""

from __future__ import annotations

import re
import statistics
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from driftline import TableSpec, topics
from driftline.frames.events import Gradient, Origin, write_event
from driftline.ids import producer_id
from driftline.log import Outgoing
from driftline.servers import RedisServer
from tests.chaos.kit.judge import Judge
from tests.chaos.kit.report import Report
from tests.integration.deployment import LOCAL, Deployment, Worker

LIMIT, REPEATS = 1.5, 5
_SHARDS, _BATCH = 2, 10_000
_PATIENCE = 300.0
_STAMP = r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3})"


@dataclass(frozen=True, slots=True)
class Takeover:
    """What is compared: rows of the small and the large table, and producers of the third."""

    small: int = 10_000
    large: int = 1_000_000
    producers: int = 100_000


@dataclass(frozen=True, slots=True)
class _Case:
    name: str
    deployment: Deployment
    spec: TableSpec


def run(plan: Takeover, directory: Path, report: Report) -> None:
    """Run one seed; what is wrong ends up in `report`."""
    with ExitStack() as parts:
        server = parts.enter_context(RedisServer(directory / "redis"))
        cases: list[_Case] = []
        for name, rows, producers in (
            (f"{plan.small:,} rows", plan.small, 0),
            (f"{plan.large:,} rows", plan.large, 0),
            (f"{plan.producers:,} producers", plan.small, plan.producers),
        ):
            own = directory / f"case-{len(cases)}"
            deployment = Deployment(LOCAL, f"local://{own}/log", server.url, own)
            with report.timing(f"seconds to prepare {name}"):
                cases.append(_Case(name, deployment, _prepare(deployment, rows, producers, report.seed)))
            report.tell(f"{name} prepared")
        taken: defaultdict[str, list[float]] = defaultdict(list)
        for _ in range(REPEATS):
            for case in cases:
                first, takeover = _start(case)
                taken[case.name].append(first)
                report.inject("start", case.name)
                report.measure(f"seconds to the first event applied, {case.name}", first)
                report.measure(f"seconds from assigned to taken over, {case.name}", takeover)
    base = statistics.median(taken[cases[0].name])
    for case in cases[1:]:
        ratio = statistics.median(taken[case.name]) / base
        report.measure(f"ratio, {case.name}", ratio)
        if ratio > LIMIT:
            report.violated(f"a start with {case.name} takes {ratio:.2f} times that with {cases[0].name}")


def _prepare(deployment: Deployment, rows: int, producers: int, seed: int) -> TableSpec:
    """Make a table, its rows, and its producers, all by the log."""
    spec = deployment.spec(shards=_SHARDS, seed=seed)
    with deployment.worker("preparing"), deployment.client() as client:
        table = client.create_table(spec)
        for begin in range(0, rows, _BATCH):
            ids = np.arange(begin, min(begin + _BATCH, rows), dtype=np.uint64)
            table.upsert(ids, np.ones((len(ids), spec.dim), np.float32))
        client.flush()
        _introduce(deployment, spec, producers)
        Judge(deployment, spec).wait_until_applied(_PATIENCE)
    return spec


def _introduce(deployment: Deployment, spec: TableSpec, producers: int) -> None:
    """Append one frame of each producer to each shard; it names no id, so that only it is remembered."""
    none, nothing = np.empty(0, np.uint64), np.empty((0, spec.dim), np.float32)
    for begin in range(0, producers, _BATCH):
        names = [producer_id(f"{spec.name}/{n}") for n in range(begin, min(begin + _BATCH, producers))]
        for shard in range(spec.shards):
            frames = [
                Outgoing(
                    write_event(Gradient(spec.name, shard, Origin(name, 0, 1), none, nothing, None, None))
                )
                for name in names
            ]
            deployment.append(topics.gradients(spec.name), shard, *frames)


def _start(case: _Case) -> tuple[float, float]:
    """Return the seconds from the start of a process to its first event applied, and its own part of it."""
    judge = Judge(case.deployment, case.spec)
    with case.deployment.client() as client:
        table = client.table(case.spec.name)
        ids = np.arange(64, dtype=np.uint64)
        table.push(ids, np.ones((64, case.spec.dim), np.float32), read={})
        client.flush()
    worker = Worker(case.deployment, "starting", None)
    begun = time.monotonic()
    worker.start()
    try:
        judge.wait_until_applied(_PATIENCE)
        took = time.monotonic() - begun
    finally:
        worker.end()
    return took, _own_part(worker.log)


def _own_part(log: str) -> float:
    assigned = re.findall(_STAMP + r" .*assigned \d+ partitions of .*gradients", log)
    over = re.findall(_STAMP + r" .* taken over, ", log)
    if not assigned or not over:
        return 0.0
    return (_time(over[-1]) - _time(assigned[-1])).total_seconds()


def _time(stamp: str) -> datetime:
    return datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S,%f")
