"""Aggregators frozen until another has taken over, then woken: nothing stale may be written.

Invariant judged, after every trial: equality with the serial oracle, and that the one
that woke learned of it, by its fence or, if it had nothing to commit, from its group.
On the embedded log a frozen process keeps its locks, so its lock files are removed, as
by somebody who believes it dead.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.kit.judge import Judge
from tests.chaos.kit.kills import add_counts
from tests.chaos.kit.report import Report
from tests.chaos.kit.stack import LOCAL, Stack, stack
from tests.chaos.kit.trainers import Trainer
from tests.integration.deployment import Worker
from tests.support.waiting import until

_FENCED = re.compile(r"fence lost|not everything applied was committed")
_LET_GO = "chassis.core: released"
_PATIENCE = 60.0  # seconds; a start of Python on a busy machine


@dataclass(frozen=True, slots=True)
class Zombies:
    """What a seed amounts to."""

    kind: str
    trials: int
    session_timeout: float = 1.0  # the test broker's minimum


def run(plan: Zombies, directory: Path, report: Report) -> None:
    """Run one seed; what is wrong ends up in `report`."""
    rng = random.Random(report.seed)
    with (
        stack(
            plan.kind,
            directory,
            static=report.seed % 2 == 0,
            session_timeout=plan.session_timeout,
            proxy_each=True,
        ) as built,
        ExitStack() as parts,
    ):
        deployment = built.deployment
        with deployment.client() as client:
            spec = client.create_table(deployment.spec(shards=4, seed=report.seed)).spec
        judge = Judge(deployment, spec)
        trainers = [
            parts.enter_context(Trainer(deployment, spec, f"trainer {n} of {report.seed}", rate=100))
            for n in range(2)
        ]
        for number in range(plan.trials):
            _trial(built, judge, trainers, rng, report)
            report.tell(f"trial {number + 1} of {plan.trials} done")
            if not report.good:
                break
        for trainer in trainers:
            trainer.finish(trainer.steps)
        judge.wait_until_applied(_PATIENCE)
        judge.catch_up()
        report.violated_all(judge.unlike(trainers))
        add_counts(report, judge)


def _trial(
    built: Stack, judge: Judge, trainers: Sequence[Trainer], rng: random.Random, report: Report
) -> None:
    deployment, spec = built.deployment, judge.spec
    until(lambda: len(deployment.owners(spec)) == 2, "both workers own shards", seconds=_PATIENCE)
    time.sleep(rng.uniform(0.05, 0.5))
    name = rng.choice(sorted(built.workers))
    zombie, proxy = built.workers[name], built.proxies[name]
    delayed = rng.random() < 0.4
    if delayed:  # its transactions are on the way, and arrive when another owns the shard
        proxy.hold()
        time.sleep(rng.uniform(0.02, 0.1))
    before, let_go = fenced(zombie), zombie.log.count(_LET_GO)
    zombie.freeze()
    report.inject("freeze with a commit on its way" if delayed else "freeze", name)
    if built.broker is None:
        forget_locks(Path(deployment.log_url.removeprefix("local://")), zombie.process.pid)
    with report.timing("seconds until another owned the shards"):
        until(lambda: len(deployment.owners(spec)) == 1, "another one takes over", seconds=_PATIENCE)
    time.sleep(rng.uniform(0.0, 0.4))  # it commits, or not yet
    proxy.heal()
    if rng.random() < 0.5:
        time.sleep(0.05)  # what was held arrives while its sender still sleeps
    zombie.thaw()
    report.inject("thaw", name)
    try:
        until(
            lambda: fenced(zombie) > before or zombie.log.count(_LET_GO) > let_go or not zombie.process.alive,
            f"{name} finds out",
            seconds=_PATIENCE,
        )
    except AssertionError:
        report.violated(f"{name} woke and took itself for the owner")
    if built.broker is None:
        built.kill_worker(name, 0.0)  # its lock files are gone, so it is no member any more
    else:
        until(
            lambda: bool(built.keep_alive()) or _has_shards(built, judge), "it is a member again", seconds=30
        )
    lost = fenced(zombie) - before
    report.measure("shards whose fence the zombie found lost", lost)
    if delayed and not lost:
        report.tell("nothing was on its way")
    _compare(judge, trainers, report)


def _compare(judge: Judge, trainers: Sequence[Trainer], report: Report) -> None:
    for trainer in trainers:
        trainer.pause()
    report.measure("seconds until all was applied", judge.wait_until_applied(_PATIENCE))
    judge.catch_up()
    report.violated_all(judge.differences())
    for trainer in trainers:
        trainer.go_on()


def _has_shards(built: Stack, judge: Judge) -> bool:
    return len(built.deployment.owners(judge.spec)) == 2


def fenced(worker: Worker) -> int:
    """Return how often a worker has found a fence lost, in all its lives."""
    return len(_FENCED.findall(worker.log))


def forget_locks(root: Path, pid: int) -> None:
    """Remove the lock files that a process holds."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        target = descriptor.readlink()
        locks = target.is_relative_to(root / "members") or target.is_relative_to(root / "own")
        if locks and not target.is_dir():  # it may have been frozen while it listed one
            target.unlink(missing_ok=True)


__all__ = ["LOCAL", "Zombies", "fenced", "forget_locks", "run"]
