"""A Redis that stands still while a producer goes on pushing: the aggregator's memory stays in its budgets.

Invariant judged: resident memory never exceeds what it was before by more than
`budget`; once Redis answers, all is applied and the audit (a replay by the product's
own core: the scalar oracle would take hours for such volumes) finds nothing.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from driftline import Table
from driftline_services.chassis import ChassisSettings
from tests.chaos.kit.judge import Judge
from tests.chaos.kit.report import Report
from tests.chaos.kit.stack import LOCAL, stack

MIB = 1 << 20
_CACHE, _FLUSH, _PUBLISH, _SHARDS, _DIM, _IDS, _ROWS = 16 * MIB, 2 * MIB, 4 * MIB, 4, 64, 512, 200_000
_PATIENCE = 180.0
_OWN = 48 * MIB  # interpreter, libraries, fragments of the heap: a margin, not a measurement


@dataclass(frozen=True, slots=True)
class Memory:
    """What a seed amounts to: `seconds` of standstill, with so many steps (of 128 KiB) a second."""

    seconds: float
    rate: float = 10.0
    kind: str = LOCAL


def budget() -> int:
    """Return the bytes that settings allow on top of a worker at rest.

    The cache; each shard's rows on their way to Redis three times (changed, as values, as one
    command) and on their way from it twice (as replies, as rows); its states that are committed and
    not yet published; and what is queued: per shard no more than its lane holds and one fetch.
    """
    chassis = ChassisSettings()
    queued = min(chassis.buffer_bytes, _SHARDS * chassis.lane_bytes) + _SHARDS * chassis.fetch_bytes
    return _CACHE + _SHARDS * (5 * _FLUSH + _PUBLISH) + queued + _OWN


def run(plan: Memory, directory: Path, report: Report) -> None:
    """Run one seed; what is wrong ends up in `report`."""
    more = {
        "DRIFTLINE_CACHE_BYTES": str(_CACHE),
        "DRIFTLINE_FLUSH_BYTES": str(_FLUSH),
        "DRIFTLINE_PUBLISH_WINDOW": str(_PUBLISH),
    }
    with ExitStack() as parts:
        built = parts.enter_context(stack(plan.kind, directory, workers=1, more=more))
        client = parts.enter_context(built.deployment.client())
        table = client.create_table(built.deployment.spec(dim=_DIM, shards=_SHARDS, seed=report.seed))
        judge = Judge(built.deployment, table.spec)
        producer = parts.enter_context(_Producer(table, plan.rate, report.seed))
        producer.wait_for(40)
        judge.wait_until_applied(_PATIENCE)
        (worker,) = built.workers.values()
        at_rest, applied = resident(worker.process.pid), sum(judge.positions())
        watch = parts.enter_context(_Watch(worker.process.pid))
        os.kill(built.redis.pid, signal.SIGSTOP)
        report.inject("Redis stands still", f"for {plan.seconds:g} s")
        try:
            for _ in range(20):
                time.sleep(plan.seconds / 20)
                report.tell(f"{(watch.now - at_rest) / MIB:+.1f} MiB")
        finally:
            os.kill(built.redis.pid, signal.SIGCONT)
        report.counts["largest growth while it stands still, MiB"] = (watch.largest - at_rest) // MIB
        producer.end()
        client.flush()
        report.measure("seconds until all was applied", judge.wait_until_applied(_PATIENCE))
        report.counts["pushed, MiB"] = producer.steps * _IDS * _DIM * 4 // MIB
        report.counts["resident before, MiB"] = at_rest // MIB
        report.counts["largest growth, catching up included, MiB"] = (watch.largest - at_rest) // MIB
        report.counts["growth allowed, MiB"] = budget() // MIB
        report.counts["records applied afterwards"] = sum(judge.positions()) - applied
        if watch.largest - at_rest > budget():
            grown = (watch.largest - at_rest) / MIB
            report.violated(f"grew by {grown:.0f} MiB, {budget() / MIB:.0f} are allowed")
        audit = built.deployment.audit(table.spec)
        if not audit.ok:
            report.violated(f"audit: {[each for shard in audit.shards for each in shard.differences][:5]}")


def resident(pid: int) -> int:
    """Return the resident memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class _Watch:
    """Looks at the memory of a process ten times a second."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.now = self.largest = 0

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            self.now = resident(self._pid)
            self.largest = max(self.largest, self.now)


class _Producer:
    """Pushes large steps at a steady rate, whatever becomes of them."""

    def __init__(self, table: Table, rate: float, seed: int) -> None:
        self._table, self._rate = table, rate
        self._rng = np.random.default_rng(seed)
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="producer", daemon=True)
        self.steps = 0

    def __enter__(self) -> _Producer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30.0)

    def wait_for(self, steps: int) -> None:
        while self.steps < steps and self._thread.is_alive():
            time.sleep(0.05)

    def end(self) -> None:
        """Stop and raise what went wrong."""
        self._stop.set()
        self._thread.join(30.0)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._stop.wait(1 / self._rate):
                ids = self._rng.integers(0, _ROWS, _IDS).astype(np.uint64)
                self._table.push(ids, self._rng.standard_normal((_IDS, _DIM)).astype(np.float32), read={})
                self.steps += 1
        except BaseException as error:  # noqa: BLE001 - raised where the run can see it
            self._error = error
