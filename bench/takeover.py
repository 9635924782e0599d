"""How long from the start of an aggregator to its first applied event, by the size of its table?

The aggregator before it was killed (kill -9), one event waits in the log of each shard; time
runs from the start of the process until that event can be read in every shard.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.harness import Effort, Report
from bench.servers import KEY
from bench.workload import Workload
from driftline.client import Client, Options
from driftline.ids import shard_of, splitmix64
from driftline.servers import RedisServer
from driftline.servers.child import Command, spawn
from driftline.shard.spec import TableSpec

TABLE, PUSH, LOOK = "takeover", 8_192, 0.002
SIZES = {"10k": 10_000, "1m": 1_000_000}


@dataclass(frozen=True, slots=True)
class Deployment:
    """A table of some size, and how to start its aggregator."""

    directory: Path
    options: Options
    shards: int

    @property
    def command(self) -> Command:
        """Return what starts the aggregator."""
        environment = {
            "DRIFTLINE_LOG_URL": self.options.log_url,
            "DRIFTLINE_REDIS_URL": self.options.redis_url,
            "DRIFTLINE_KEY": KEY,
            "DRIFTLINE_DATA_DIR": str(self.directory / "worker"),
            "DRIFTLINE_HTTP_PORT": "0",
            "DRIFTLINE_LOG_LEVEL": "warning",
            "OPENBLAS_NUM_THREADS": "1",
        }
        return Command([sys.executable, "-m", "driftline_services.aggregator"], environment)


def run(report: Report, effort: Effort) -> None:
    """Measure and enter figures and ratios."""
    load = Workload()
    sizes = {name: max(10_000, effort.scaled(rows)) for name, rows in SIZES.items()}
    report.settings["takeover"] = {"dim": load.dim, "shards": load.shards, "rows": sizes, "log": "local"}
    with ExitStack() as stack:
        made = {name: stack.enter_context(_deployment(load, rows)) for name, rows in sizes.items()}
        numbers = iter(range(1 << 41, 1 << 42))
        report.measure(
            "start",
            "s",
            effort.repeats,
            {name: lambda of=of: _start(of, next(numbers)) for name, of in made.items()},  # type: ignore[misc]
        )
    report.ratio("start_1m_vs_10k", "start.1m", "start.10k")


@contextmanager
def _deployment(load: Workload, rows: int) -> Iterator[Deployment]:
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as name:
        directory = Path(name)
        with RedisServer(directory / "redis") as server:
            options = Options(f"local://{directory}/log", server.url, key=KEY)
            made = Deployment(directory, options, load.shards)
            worker = spawn("aggregator", made.command, directory / "worker")
            try:
                _fill(options, load, rows)
            finally:
                worker.kill()
            yield made


def _fill(options: Options, load: Workload, rows: int) -> None:
    ids, rng = splitmix64(np.arange(rows, dtype=np.uint64)), np.random.default_rng(0)
    with Client(options) as client:
        table = client.create_table(TableSpec(TABLE, load.dim, shards=load.shards), timeout=120)
        for start in range(0, rows, PUSH):
            some = ids[start : start + PUSH]
            table.push(some, rng.standard_normal((len(some), load.dim), np.float32))
        table.wait_readable(timeout=600)


def _start(made: Deployment, number: int) -> float:
    """Push a new row to every shard, start an aggregator, and kill it once all of them can be read."""
    ids = _one_per_shard(number, made.shards)
    with Client(made.options) as client:
        table = client.table(TABLE)
        table.push(ids, np.ones((len(ids), table.spec.dim), np.float32))
        client.flush()
        begun = time.perf_counter()
        worker = spawn("aggregator", made.command, made.directory / "worker")
        try:
            while not table.get(ids, on_missing="zero").found.all():
                if time.perf_counter() - begun > 120:
                    raise RuntimeError(f"no event applied within 120 s, see {made.directory}/worker")
                time.sleep(LOOK)
            return time.perf_counter() - begun
        finally:
            worker.kill()


def _one_per_shard(number: int, shards: int) -> NDArray[np.uint64]:
    drawn = splitmix64(np.arange(number << 8, (number << 8) + 256, dtype=np.uint64))
    home = shard_of(drawn, shards)
    firsts: Sequence[np.uint64] = [drawn[home == shard][0] for shard in range(shards)]
    return np.array(firsts, np.uint64)
