"""Memory of a versioner while very many row updates flow between two versions.

`python -m bench.versioner_memory [--rows 20000000]` writes the updates of a table straight to an
embedded log, between two barriers, runs a versioner on it as a process of its own, and prints how
long that took and the greatest resident memory there was, beside the bytes that changed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from driftline import TableSpec, topics
from driftline.config import new_key
from driftline.control import ControlTopic, VersionCommitted
from driftline.frames.events import BARRIER, SPEC
from driftline.frames.headers import Keyring
from driftline.frames.states import Marker, States, write_marker, write_states
from driftline.ids import lsn, shard_of
from driftline.log import Log, Outgoing, open_log
from driftline.ops.requests import Signer
from driftline.servers.child import Child, Command, spawn

GROUP, TABLE = "default", "items"
FRAME_ROWS = 2_000
_BATCH = 16


class Updates:
    """The updates topic as aggregators would write it: random rows of each shard, LSN rising."""

    def __init__(self, log: Log, spec: TableSpec, ids: int, seed: int) -> None:
        self._log, self._spec = log, spec
        self._rng = np.random.default_rng(seed)
        every = np.arange(ids, dtype=np.uint64)
        shards = shard_of(every, spec.shards)
        self._pools = [every[shards == shard] for shard in range(spec.shards)]
        self._offsets = [0] * spec.shards
        self._seen = [np.zeros(len(pool), np.bool_) for pool in self._pools]

    async def flow(self, rows: int) -> None:
        """Write so many row states, evenly over the shards."""
        each = FRAME_ROWS * _BATCH
        for _ in range(max(1, rows // (each * self._spec.shards))):
            for shard in range(self._spec.shards):
                frames = [Outgoing(write_states(self._states(shard))) for _ in range(_BATCH)]
                await self._log.append(topics.updates(TABLE), shard, frames)

    async def mark(self, op: int) -> None:
        """Write a version barrier's marker in each shard."""
        for shard, offset in enumerate(self._offsets):
            rows = int(np.count_nonzero(self._seen[shard]))
            position = {"next": offset, "gen": 1, "op": op, "rows": rows, "floor": 0, "time": 0}
            marker = Marker(BARRIER, TABLE, shard, op, {"kind": "version"}, position, {})
            await self._log.append(topics.updates(TABLE), shard, [Outgoing(write_marker(marker))])

    def _states(self, shard: int) -> States:
        pool = self._pools[shard]
        places = np.unique(self._rng.integers(0, len(pool), FRAME_ROWS))
        self._seen[shard][places] = True
        self._offsets[shard] += 1
        count = len(places)
        rows = self._rng.random((count, self._spec.dim), np.float32)
        return States(
            TABLE,
            shard,
            pool[places],
            places.astype(np.uint32),
            np.full(count, lsn(1, self._offsets[shard] - 1), np.uint64),
            rows,
            rows[:, : self._spec.state_size],
            np.full(count, 2, np.uint8),
        )


def peak_of(child: Child) -> int:
    """Return the greatest resident memory that a process has had, bytes."""
    for line in Path(f"/proc/{child.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM")


async def run(rows: int, ids: int, dim: int, shards: int, buffer: int, directory: Path) -> float:
    """Write, watch, print; return the peak of resident memory, MiB."""
    key = new_key()
    keyring = Keyring.parse(key)
    spec = TableSpec(TABLE, dim, GROUP, shards)
    environment = {
        "DRIFTLINE_LOG_URL": f"local://{directory}/log",
        "DRIFTLINE_DATA_DIR": str(directory / "data"),
        "DRIFTLINE_KEY": key,
        "DRIFTLINE_HTTP_PORT": "0",
        "DRIFTLINE_VERSION_BUFFER_BYTES": str(buffer),
        "DRIFTLINE_VERSION_DAILY_AT": "off",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "TMPDIR": str(directory),
    }
    async with open_log(environment["DRIFTLINE_LOG_URL"]) as log:
        for topic, partitions in ((topics.ops(GROUP), 1), (topics.updates(TABLE), shards)):
            await log.create_topic(topic, partitions)
        control = ControlTopic(log, GROUP, keyring)
        await control.create()
        signer = Signer(GROUP, b"b" * 16, keyring)
        await log.append(topics.ops(GROUP), 0, [signer.request(SPEC, TABLE, spec.to_json(), 0)])
        for behind in (1, 2):
            barrier = signer.request(BARRIER, GROUP, {"kind": "version"}, behind)
            await log.append(topics.ops(GROUP), 0, [barrier])
        updates = Updates(log, spec, ids, 1)
        command = Command([sys.executable, "-m", "driftline_services.versioner"], environment)
        child = spawn("versioner", command, directory)
        try:
            await updates.flow(shards * FRAME_ROWS * _BATCH)
            await updates.mark(2)
            await _committed(control, 2)
            before, begun = peak_of(child), time.perf_counter()
            print(f"first version committed; resident at most {before / 2**20:.0f} MiB so far", flush=True)
            await updates.flow(rows)
            await updates.mark(3)
            version = await _committed(control, 3)
            taken = time.perf_counter() - begun
            changed = sum(version.changed.values())
            stride = 12 + 4 * (dim + spec.state_size)
            print(f"{rows:,} row updates of {ids:,} ids, {dim} dimensions, in {taken:.0f} s")
            print(f"{changed:,} rows in {version.version}, {changed * stride / 2**20:.0f} MiB")
            peak = peak_of(child) / 2**20
            print(f"peak resident memory {peak:.0f} MiB (buffers may take {buffer / 2**20:.0f} MiB)")
            return peak
        finally:
            child.stop(20.0)


async def _committed(control: ControlTopic, op: int) -> VersionCommitted:
    reader = await control.reader(0)
    try:
        while True:
            for told in await reader.read(wait=1.0):
                if isinstance(told.event, VersionCommitted) and told.event.op == op:
                    return told.event
    finally:
        await reader.close()


def peak(rows: int, ids: int = 2_000_000, dim: int = 32, shards: int = 4, buffer: int = 64 << 20) -> float:
    """Return the peak of a versioner's resident memory, MiB."""
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as directory:
        return asyncio.run(run(rows, ids, dim, shards, buffer, Path(directory)))


def main() -> None:
    """Run it as asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.versioner_memory", description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--ids", type=int, default=2_000_000)
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--buffer", type=int, default=64 << 20, help="version_buffer_bytes")
    asked = parser.parse_args()
    peak(asked.rows, asked.ids, asked.dim, asked.shards, asked.buffer)


if __name__ == "__main__":
    main()
