"""Full disks under the log, Redis and the broker: work stops, resumes when there is room, loses nothing.

Invariant judged: while the disk is full nobody who must not give up gives up; once
there is room everything pushed is in the log and applied within LIMIT seconds; at the
end, equality with the serial oracle, and every step once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.kit.filesystem import SmallDisk, limit_file_size, small_disk
from tests.chaos.kit.judge import Judge
from tests.chaos.kit.kills import add_counts
from tests.chaos.kit.report import Report
from tests.chaos.kit.stack import KAFKA, Stack, stack
from tests.chaos.kit.trainers import Trainer
from tests.support.waiting import until

LIMIT = 30.0  # seconds
_LOG, _REDIS, _LIMITED = "disk full under the log", "disk full under Redis", "file-size limit of Redis"
KINDS = (_LOG, _REDIS, _LIMITED)
_SIZE = 256 << 20


@dataclass(frozen=True, slots=True)
class Disks:
    """What a seed amounts to; `full` seconds with no room."""

    kind: str
    rounds: int = 2
    full: float = 3.0


def run(plan: Disks, directory: Path, report: Report) -> None:
    """Run one seed; what is wrong ends up in `report`."""
    with ExitStack() as parts:
        log_disk = parts.enter_context(
            small_disk(directory / ("kafka" if plan.kind == KAFKA else "log"), _SIZE)
        )
        redis_disk = parts.enter_context(small_disk(directory / "redis", _SIZE))
        built = parts.enter_context(stack(plan.kind, directory, workers=1))
        with built.deployment.client() as client:
            spec = client.create_table(built.deployment.spec(shards=2, seed=report.seed)).spec
        judge = Judge(built.deployment, spec)
        trainer = parts.enter_context(Trainer(built.deployment, spec, f"trainer of {report.seed}", rate=60))
        judge.wait_until_applied(LIMIT)
        for _ in range(plan.rounds):
            for kind in KINDS:
                _one(built, kind, log_disk, redis_disk, trainer, plan.full, report)
                _recover(built, judge, trainer, kind, report)
        trainer.finish(trainer.steps)
        judge.wait_until_applied(LIMIT)
        judge.catch_up()
        report.violated_all(judge.differences())
        report.violated_all(judge.unlike([trainer]))
        add_counts(report, judge)


def _one(
    built: Stack,
    kind: str,
    log_disk: SmallDisk,
    redis_disk: SmallDisk,
    trainer: Trainer,
    full: float,
    report: Report,
) -> None:
    before = trainer.steps
    end: Callable[[], None]
    if kind == _LIMITED:
        pid = built.redis.pid
        limit_file_size(pid, _aof_size(built) + 4096)

        def end() -> None:
            limit_file_size(pid, None)

    else:
        disk = log_disk if kind == _LOG else redis_disk
        disk.fill(leave=1 << 16)
        end = disk.free
    report.inject(kind, f"for {full:g} s")
    time.sleep(full)
    trainer.check()
    report.tell(f"{trainer.steps - before} steps pushed meanwhile")
    end()


def _recover(built: Stack, judge: Judge, trainer: Trainer, kind: str, report: Report) -> None:
    begun = time.monotonic()
    if not built.redis.running:  # Redis ends itself when it cannot write its file, under `always`
        report.tell("Redis had ended by itself")
        built.redis.start()
    if built.broker is not None and not built.broker.running:  # Kafka does, when its one log directory fails
        report.tell("the broker had ended by itself")
        report.injected["end of the broker by itself"] += 1
        built.broker.start()
    for why in built.keep_alive():
        report.violated(f"{kind}: a worker ended by itself: {why}")
    trainer.pause()
    judge.wait_until_applied(LIMIT)
    took = time.monotonic() - begun
    report.measure(f"seconds to recover, {kind}", took)
    if took > LIMIT:
        report.violated(f"{kind}: recovered {took:.1f} s after there was room")
    judge.catch_up()
    report.violated_all(judge.differences())
    until(lambda: built.redis.running, "Redis runs")
    trainer.go_on()


def _aof_size(built: Stack) -> int:
    return max(file.stat().st_size for file in built.redis.data_dir.glob("appendonlydir/*.aof"))
