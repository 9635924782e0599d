"""The demo end to end: stack up, stream in, model trained through the pipeline, audit.

Invariant: the trainer sees two tables and nothing else, so what it learns here
can be compared bit for bit with the same trainer in process.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

import driftline
from driftline.audit import AuditVersions, audit_table
from driftline.config import Settings as Deployment
from driftline.config import load_settings, new_key
from driftline.connecting import versions_of
from driftline.demo import sources
from driftline.demo.cutting import Cutter, log_of
from driftline.demo.events import Events
from driftline.demo.faults import Faults
from driftline.demo.progress import ProgressView
from driftline.demo.run import Health, Hooks, Progress, run
from driftline.demo.summary import Audit, render, summarise
from driftline.demo.tables import Settings, TableSettings
from driftline.demo.watching import DriftWatch
from driftline.errors import DriftlineError
from driftline.frames.headers import Keyring
from driftline.log import open_log
from driftline.rows.servers import Servers
from driftline.stack.local import Endpoints, LocalStack
from driftline.versions import find_group

TICK_STEPS = 6
"""Steps of a tick: some 75 in a run of the default length, of which the first 30 calibrate."""
_TABLES = 2
_SETTLE = 30.0  # seconds for the monitor to come to an end with what it sees
_DRIFT = {
    "drift_mode": "auto",
    "drift_metric": "l2",
    "drift_thresholds": "offset_distance=3.2",
    "drift_few_nodes": 8,
    "drift_least_ticks": 20,
    "drift_settle_ticks": 2,
    "drift_cool_ticks": 4,
}
"""So short a calibration promises little: rows are held to a fixed threshold, see docs/how-to/alarm.md."""
_RECENT = 2_000  # pushes that the freshness shown while running covers


@dataclass(frozen=True, slots=True)
class Demo:
    """What the command line asked for."""

    git: Path | None
    csv: Path | None
    events: int
    dims: int
    seed: int
    shards: int
    kafka: str | None
    redis: str | None
    data_dir: Path | None
    wait: bool
    json_file: Path | None
    fault: bool = True


class PipelineTable:
    """A table of the store as the trainer sees it: reads include what it has pushed."""

    def __init__(self, table: driftline.Table) -> None:
        self._table = table
        self._pushed: float | None = None
        self.freshness_ms: list[float] = []  # push called -> everything readable
        self.on_push: Callable[[NDArray[np.uint64], NDArray[np.float32]], None] = lambda ids, grads: None

    def get(self, ids: NDArray[np.uint64]) -> driftline.Rows:
        """Return rows that include every push of this trainer; note how long that took."""
        self.settle()
        return self._table.get(ids)

    def settle(self) -> None:
        """Return once every push of this trainer can be read; note how long that took."""
        if self._pushed is not None:
            self._table.wait_readable()
            self.freshness_ms.append((time.perf_counter() - self._pushed) * 1e3)
            self._pushed = None

    def push(self, ids: NDArray[np.uint64], grads: NDArray[np.float32], *, step: int, read: object) -> None:
        """Push gradients made from rows read at `read`."""
        assert isinstance(read, dict), "the token comes from `get`"
        self._pushed = time.perf_counter()
        self._table.push(ids, grads, step=step, read=read)
        self.on_push(ids, grads)

    def flush(self) -> None:
        """Return once everything pushed is acknowledged."""
        self._table.flush()


def run_demo(demo: Demo) -> int:
    """Run the demo and return the exit status: 0 if the audit found every bit in place."""
    console = Console(stderr=True)
    out = Console()
    events, source, ceiling = _stream(demo)
    settings = Settings(dims=demo.dims, seed=demo.seed)
    with (
        _stack(demo, console) as (deployment, endpoints, log_file),
        _client(endpoints, deployment.data_dir) as client,
    ):
        users = PipelineTable(
            client.create_table(demo_spec("users", settings.users(), endpoints, demo.shards))
        )
        items = PipelineTable(
            client.create_table(demo_spec("items", settings.items(), endpoints, demo.shards))
        )

        def settle() -> None:
            users.settle()
            items.settle()

        steps = -(-len(events) // settings.batch)
        cutter = Cutter(client, steps, source, settle, TICK_STEPS)

        def show(line: str) -> None:
            console.print(line, highlight=False, markup=False, soft_wrap=True)

        items_name = demo_spec("items", settings.items(), endpoints, demo.shards).name
        with ProgressView(console) as view, DriftWatch(endpoints, show) as drift:
            faults = Faults(
                endpoints,
                items_name,
                demo.dims,
                steps,
                demo.seed,
                lambda: drift.judges(_TABLES),
                show,
                deployment.data_dir,
            )
            items.on_push = faults.pushed

            def on_progress(progress: Progress) -> None:
                cutter.progress = progress
                view.update(progress)

            def after_push(step: int) -> None:
                cutter.after_push(step)
                if demo.fault:
                    faults.after_push(step)

            def health() -> Health:
                return replace(_health(users, items), drift=drift.line)

            end = run(events, users, items, settings, on_progress, hooks=Hooks(after_push, health))
            faults.close()
            settle()
            drift.settle(cutter.last, _TABLES, _SETTLE)  # so that nothing is under way when the last is cut
            cutter.cut_version()
            drift.settle(cutter.last, _TABLES, _SETTLE)
        console.print(f"barrier {cutter.versions[-1].op} passed by every shard; auditing …", highlight=False)
        audit = asyncio.run(audit_demo(endpoints, demo.shards, versions_of(deployment)))
        repository = find_group(None, deployment.group, deployment.data_dir)
        summary = summarise(
            end,
            settings,
            source=source,
            recall_ceiling=ceiling,
            audit=audit,
            versions=tuple(cutter.committed(repository)),
            backups=cutter.backups,
            drift=drift,
            faults=tuple(faults.planted),
        )
        out.print(render(summary))
        out.print("\n$ driftline log", highlight=False)
        for line in log_of(repository):
            out.print(line, highlight=False, markup=False, soft_wrap=True)
        if demo.json_file is not None:
            demo.json_file.write_text(summary.to_json() + "\n")
        if demo.wait and sys.stdin.isatty():
            _explain(console, deployment, endpoints, log_file)
            _wait_for_enter()
    return 0 if audit.ok else 1


def _stream(demo: Demo) -> tuple[Events, str, float | None]:
    if demo.git is not None:
        return sources.git(demo.git, limit=demo.events), f"git {demo.git}", None
    if demo.csv is not None:
        return sources.csv(demo.csv, limit=demo.events), f"csv {demo.csv.name}", None
    made = sources.synthetic(demo.events, demo.seed)
    return made.events, "synthetic", made.ceiling(Settings().warm_up)


@contextmanager
def _stack(demo: Demo, console: Console) -> Iterator[tuple[Deployment, Endpoints, str]]:
    with tempfile.TemporaryDirectory(prefix="driftline-demo-") as scratch:
        directory = demo.data_dir or Path(scratch)
        # on servers that others use too, every run has tables of its own
        group = f"demo-{secrets.token_hex(4)}" if demo.kafka or demo.redis or demo.data_dir else "demo"
        environment = {"DRIFTLINE_KEY": new_key()} if demo.kafka else {}
        deployment: Deployment = load_settings(
            {
                "log_url": demo.kafka or f"local://{directory.absolute()}",
                "redis_url": demo.redis,
                "data_dir": directory.absolute(),
                "group": group,
                "http_port": 0,
                **_DRIFT,
            },
            cwd=directory if directory.is_dir() else Path.cwd(),
            environ=environment,
        ).settings
        with LocalStack(deployment) as stack:
            console.print(f"stack up, data in {directory}", highlight=False)
            try:
                yield deployment, stack.endpoints, stack.worker_log
            except DriftlineError:
                if stack.failure is not None:  # what went wrong is only what came of it
                    raise stack.failure from None
                raise


def _client(endpoints: Endpoints, data_dir: Path) -> driftline.Client:
    return driftline.Client(
        driftline.Options(
            endpoints.log_url,
            endpoints.redis_url,
            endpoints.group,
            endpoints.key,
            security=endpoints.security,
            data_dir=data_dir,
        )
    )


def demo_spec(name: str, table: TableSettings, endpoints: Endpoints, shards: int) -> driftline.TableSpec:
    """Return the spec of one of the demo's tables."""
    full = name if endpoints.group == "demo" else f"{endpoints.group}-{name}"
    return driftline.TableSpec(
        full,
        table.dims,
        endpoints.group,
        shards,
        {"kind": "rowwise_adagrad", "lr": table.lr, "eps": table.eps},
        driftline.Init(table.seed, table.scale),
    )


def _health(*tables: PipelineTable) -> Health:
    recent = [value for table in tables for value in table.freshness_ms[-_RECENT:]]
    if not recent:
        return Health()
    p50, p99 = np.percentile(recent, (50, 99)).tolist()
    return Health(p50, p99, None)


async def audit_demo(endpoints: Endpoints, shards: int, versions: AuditVersions) -> Audit:
    """Return the audit of both tables; `versions` loads what somebody restored meanwhile."""
    keyring = Keyring.parse(endpoints.key)
    servers = Servers.at(endpoints.redis_url)
    names = [demo_spec(name, table, endpoints, shards).name for name, table in _tables()]
    async with open_log(endpoints.log_url, endpoints.security) as log:
        audits = [await audit_table(log, servers, keyring, name, shards, versions=versions) for name in names]
    rows, records = sum(each.rows for each in audits), sum(each.records for each in audits)
    if all(each.ok for each in audits):
        return Audit(True, f"ok: {rows:,} rows equal a replay of {records:,} records, bit for bit")
    first = next(shard for each in audits for shard in each.shards if not shard.ok)
    what = first.reason or f"{first.differences[0].what}: {first.differences[0]}"
    return Audit(False, f"FAILED at shard {first.shard}: {what}")


def _tables() -> list[tuple[str, TableSettings]]:
    return [("users", Settings().users()), ("items", Settings().items())]


def _explain(console: Console, deployment: Deployment, endpoints: Endpoints, log_file: str) -> None:
    console.print(
        f"\nStill running. Look around from another terminal:\n"
        f"  export DRIFTLINE_LOG_URL={endpoints.log_url} DRIFTLINE_REDIS_URL={endpoints.redis_url} "
        f"DRIFTLINE_GROUP={endpoints.group} DRIFTLINE_DATA_DIR={deployment.data_dir}\n"
        f"  driftline table ls\n  driftline where items 1\n  driftline log\n  less {log_file}\n"
        "Enter ends it.",
        highlight=False,
        soft_wrap=True,
    )


def _wait_for_enter() -> None:
    try:
        input()
    except (EOFError, KeyboardInterrupt):
        os.write(2, b"\n")
