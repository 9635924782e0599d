"""kill -9 of every part while trainers push, and nobody waits for a recovery.

Invariant judged: rows and positions equal the serial oracle's to the bit, and every
step of every trainer took effect exactly once.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from driftline import Client, TableSpec
from driftline.errors import RetryError
from tests.chaos.kit.judge import Judge
from tests.chaos.kit.report import Report
from tests.chaos.kit.schedule import Fault, schedule
from tests.chaos.kit.stack import KAFKA, Stack, stack, wait_until_owned
from tests.chaos.kit.trainers import PER_STEP, Trainer

MIX: Mapping[str, int] = MappingProxyType(
    {"aggregator": 16, "router": 8, "redis": 12, "broker": 5, "trainer": 3}
)
RECOVERY = 90.0  # seconds; on a busy machine, after the last fault
_SNAPSHOT_EVERY = 4.0
_SHARDS = 4


@dataclass(frozen=True, slots=True)
class Kills:
    """What a seed amounts to; `mix` counts kills by part."""

    frames: int = 20_000
    mix: Mapping[str, int] = field(default_factory=lambda: MIX)
    kind: str = KAFKA
    trainers: int = 4
    gap: tuple[float, float] = (0.3, 3.0)


def run(plan: Kills, directory: Path, report: Report) -> None:
    """Run one seed; what is wrong ends up in `report`."""
    faults = schedule(report.seed, plan.mix, gap=plan.gap)
    with stack(plan.kind, directory) as built, ExitStack() as parts:
        deployment = built.deployment
        client = parts.enter_context(deployment.client())
        specs = [
            deployment.spec(shards=_SHARDS, seed=report.seed),
            deployment.spec(shards=_SHARDS, seed=report.seed, optimizer={"kind": "adam", "lr": 0.01}),
        ]
        for spec in specs:
            client.create_table(spec)
        wait_until_owned(built)
        trainers = [
            Trainer(deployment, specs[n % 2], f"trainer {n} of {report.seed}", rate=_rate(plan, faults))
            for n in range(plan.trainers)
        ]
        for trainer in trainers:
            parts.enter_context(trainer)
        operator = parts.enter_context(_Operator(client))
        for number, fault in enumerate(faults):
            time.sleep(fault.gap)
            _inject(built, trainers, fault, report)
            for why in built.keep_alive():
                report.tell(f"ended by itself: {why}")
                report.measure("workers that ended by themselves", 1)
            for trainer in trainers:
                trainer.check()
            report.tell(f"fault {number + 1} of {len(faults)} done, {sum(t.steps for t in trainers)} steps")
        per_trainer = math.ceil(plan.frames / plan.trainers / _frames_per_step())
        for trainer in trainers:
            trainer.finish(per_trainer)
        operator.end()
        report.counts["snapshots"] = operator.done
        report.counts["snapshots that timed out"] = operator.failed
        for n, spec in enumerate(specs):
            _judge(built, spec, trainers[n::2], report)


def _rate(plan: Kills, faults: list[Fault]) -> float:
    """Return steps a second with which a trainer is done a little after the last fault."""
    cost = {"broker": 6.0, "aggregator": 0.1, "router": 0.1, "redis": 0.3, "trainer": 0.0}
    expected = sum(fault.gap + fault.down + cost[fault.kind] for fault in faults)
    return plan.frames / plan.trainers / _frames_per_step() / expected


def _frames_per_step() -> float:
    return _SHARDS * (1 - (1 - 1 / _SHARDS) ** PER_STEP)  # shards hit by random ids


def _inject(built: Stack, trainers: list[Trainer], fault: Fault, report: Report) -> None:
    names = sorted(built.workers)
    if fault.kind in ("aggregator", "router"):
        any_name = names[int(fault.at * len(names))]
        name = (built.router() or any_name) if fault.kind == "router" else any_name
        report.inject(f"kill {fault.kind}", f"{name}, back after {fault.down:.2f} s")
        built.kill_worker(name, fault.down)
    elif fault.kind == "redis":
        report.inject("kill redis", f"back after {fault.down:.2f} s")
        built.kill_redis(fault.down)
    elif fault.kind == "broker":
        report.inject("kill broker", f"back after {fault.down:.2f} s")
        built.kill_broker(fault.down)
    elif fault.kind == "trainer":
        trainer = trainers[int(fault.at * len(trainers))]
        report.inject("crash of a trainer", trainer.name)
        trainer.crash(forget=int(fault.down * 50))
    else:
        raise ValueError(f"fault {fault.kind!r} is unknown")


def _judge(built: Stack, spec: TableSpec, trainers: list[Trainer], report: Report) -> None:
    judge = Judge(built.deployment, spec)
    try:
        report.measure("seconds until all was applied", judge.wait_until_applied(RECOVERY))
    except AssertionError as error:
        report.violated(str(error))
        return
    judge.catch_up()
    report.violated_all(judge.differences())
    report.violated_all(judge.unlike(trainers))
    add_counts(report, judge)


def add_counts(report: Report, judge: Judge) -> None:
    """Add what a judge has seen to the counts of a report."""
    for name, count in (("records", judge.records), ("gradient frames applied once", judge.frames)):
        report.counts[name] = report.counts.get(name, 0) + count
    repeated = judge.verdicts["no-op duplicate"]
    name = "frames sent again and passed over"
    report.counts[name] = report.counts.get(name, 0) + repeated


class _Operator:
    """Cuts barriers through all tables all the time, so that the router is always at work."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="operator", daemon=True)
        self.done = self.failed = 0

    def __enter__(self) -> _Operator:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def end(self) -> None:
        """Return when the snapshot under way has ended."""
        self._stop.set()
        self._thread.join(RECOVERY)

    def _run(self) -> None:
        for number in itertools.count():
            if self._stop.wait(_SNAPSHOT_EVERY):
                return
            try:
                self._client.snapshot(metadata={"number": number}, timeout=30.0)
                self.done += 1
            except RetryError:
                self.failed += 1
