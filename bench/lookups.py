"""How fast are 1,024 rows over 8 shards read, by 1 to 16 clients, against redis-py and against raw sockets?

Each client is a process of its own, as inference servers are, and reads one batch after the
other for a fixed time. All sides return float32 (1,024, d) in the order of the ids asked for.
driftline also reads each shard's position, tells which rows exist and when they last changed.
"""

from __future__ import annotations

import functools
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import redis

from bench.harness import Effort, Report
from bench.workload import Workload
from driftline.ids import lsn, shard_of, splitmix64
from driftline.rows.layout import RowLayout, ShardKeys
from driftline.servers import RedisServer
from driftline.shard.spec import TableSpec

TABLE, IDS, SECONDS = "lookups", 1_024, 1.5
CLIENTS = (1, 4, 16)
KINDS = ("uniform", "zipf")
SIDES = ("driftline", "redispy", "raw")


def run(report: Report, effort: Effort) -> None:
    """Measure and enter figures and ratios."""
    load = Workload(rows=effort.scaled(1_000_000))
    seconds = SECONDS * min(1.0, effort.scale * 2)
    report.settings["lookups"] = {**load.settings(), "ids": IDS, "clients": list(CLIENTS), "seconds": seconds}
    cells = [(kind, clients) for kind in KINDS for clients in CLIENTS]
    with (
        tempfile.TemporaryDirectory(prefix="driftline-bench-") as scratch,
        RedisServer(Path(scratch) / "redis") as server,
    ):
        fill(server.url, load)
        readers = Readers(server.url, scratch, load)
        for kind, clients in cells:
            sides = {side: functools.partial(readers.rate, side, kind, clients, seconds) for side in SIDES}
            report.measure(f"lookups.{kind}_{clients}", "rows/s", effort.repeats, sides)
        readers.close()
    for peer in SIDES[1:]:
        by_cell = []
        for kind, clients in cells:
            cell = f"lookups.{kind}_{clients}"
            report.ratio(f"get_vs_{peer}_{kind}_{clients}", f"{cell}.driftline", f"{cell}.{peer}")
            ours, theirs = report.figures[f"{cell}.driftline"].values, report.figures[f"{cell}.{peer}"].values
            by_cell.append([mine / other for mine, other in zip(ours, theirs, strict=True)])
        # over kinds and numbers of clients alike: each repeat's geometric mean
        report.enter_ratio(
            f"get_vs_{peer}", [statistics.geometric_mean(each) for each in zip(*by_cell, strict=True)]
        )


def fill(url: str, load: Workload) -> None:
    """Write the rows of a table as its aggregator would have."""
    spec = TableSpec(TABLE, load.dim, shards=load.shards, frame_bytes=1 << 20)
    layout, rng = RowLayout.of(spec), np.random.default_rng(load.seed)
    ids = splitmix64(np.arange(load.rows, dtype=np.uint64))
    home = shard_of(ids, load.shards)
    with redis.Redis.from_url(url) as client:
        client.config_set("appendonly", "no")  # nothing is written while rows are read
        for shard in range(load.shards):
            keys, mine = ShardKeys.of(TABLE, shard), ids[home == shard]
            client.hset(
                keys.position,
                mapping={"next": 1, "gen": 1, "epoch": 0, "spec": orjson.dumps(spec.to_json())},
            )
            for start in range(0, len(mine), 4_096):
                some = mine[start : start + 4_096]
                n = len(some)
                values = layout.pack(
                    rng.standard_normal((n, load.dim), np.float32),
                    np.full(n, lsn(1, 0), np.uint64),
                    np.arange(start, start + n, dtype=np.uint32),
                    np.zeros((n, spec.state_size), np.float32),
                )
                pairs = [part for pair in zip(some.tolist(), values, strict=True) for part in _pair(*pair)]
                client.execute_command("HSET", keys.values, *pairs)


def _pair(row: int, value: Any) -> tuple[bytes, bytes]:
    return row.to_bytes(8, "little"), value.tobytes()


class Readers:
    """Reading processes, started once: each reads as any side does, when told."""

    def __init__(self, url: str, scratch: str, load: Workload) -> None:
        arguments = orjson.dumps({"url": url, "scratch": scratch, "load": load.settings()}) + b"\n"
        command = [sys.executable, "-m", "bench.lookups_client"]
        pipe = subprocess.PIPE
        self._running = [subprocess.Popen(command, stdin=pipe, stdout=pipe) for _ in range(max(CLIENTS))]
        for each in self._running:
            _tell(each, arguments)
        for each in self._running:
            assert _hear(each) == b"ready\n", "a reader did not come up"

    def rate(self, side: str, kind: str, clients: int, seconds: float) -> float:
        """Return the rows a second that `clients` processes read together."""
        begin = time.monotonic() + 0.2
        asked = {"side": side, "kind": kind, "begin": begin, "seconds": seconds}
        for each in self._running[:clients]:
            _tell(each, orjson.dumps(asked) + b"\n")
        return sum(float(_hear(each)) for each in self._running[:clients])

    def close(self) -> None:
        """End the processes."""
        for each in self._running:
            each.kill()
            each.wait()


def _tell(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(line)
    process.stdin.flush()


def _hear(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()
