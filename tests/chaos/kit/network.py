"""Delays, cuts and black holes between aggregator, broker and Redis: recovery in bounded time.

Invariant judged: within LIMIT seconds of the end of a fault everything pushed by then
is acknowledged by the log and applied to Redis; at the end, equality with the serial oracle.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.kit.judge import Judge
from tests.chaos.kit.proxy import Proxy
from tests.chaos.kit.report import Report
from tests.chaos.kit.stack import KAFKA, Stack, stack
from tests.chaos.kit.trainers import Trainer
from tests.chaos.kit.trials import ended

LIMIT = 10.0  # seconds
SIDES = ("redis", "kafka")
KINDS = ("delays", "cut", "late", "black hole")
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Network:
    """What a seed amounts to."""

    trials: int
    sides: Sequence[str] = SIDES
    kinds: Sequence[str] = KINDS
    longest: float = 6.0  # seconds that a fault lasts


def run(plan: Network, directory: Path, report: Report) -> None:
    """Run one seed; what is wrong ends up in `report`."""
    rng = random.Random(report.seed)
    pairs = [(side, kind) for side in plan.sides for kind in plan.kinds]
    trials = [pairs[number % len(pairs)] for number in range(plan.trials)]
    rng.shuffle(trials)
    with stack(KAFKA, directory, workers=1, proxies=True) as built, ExitStack() as parts:
        deployment = built.deployment
        with deployment.client() as client:
            spec = client.create_table(deployment.spec(shards=4, seed=report.seed)).spec
        judge = Judge(deployment, spec)
        trainers = [
            parts.enter_context(Trainer(deployment, spec, f"trainer {n} of {report.seed}", rate=40))
            for n in range(2)
        ]
        judge.wait_until_applied(_PATIENCE)
        for number, (side, kind) in enumerate(trials):
            time.sleep(rng.uniform(0.2, 0.8))
            _trial(built, side, kind, plan.longest, rng, report)
            _measure(judge, trainers, f"{side}: {kind}", report)
            for why in built.keep_alive():
                report.violated(f"a worker ended by itself: {why}")
            for trainer in trainers:
                trainer.go_on()
            report.tell(f"trial {number + 1} of {len(trials)} done")
        ended(judge, trainers, report)


def _trial(built: Stack, side: str, kind: str, longest: float, rng: random.Random, report: Report) -> None:
    """Inject one fault and end it."""
    proxy = built.redis_proxy if side == "redis" else built.kafka_proxy
    assert isinstance(proxy, Proxy), "the stack was made with proxies"
    seconds = rng.choice([rng.uniform(0.1, 1.0), rng.uniform(1.0, longest)])
    if kind == "cut":
        count = rng.choice([rng.randint(1, 200), rng.randint(200, 50_000)])
        report.inject(f"{side}: cut", f"after {count} bytes")
        proxy.cut_after(count)
        seconds = 1.0
    elif kind == "delays":
        report.inject(f"{side}: delays of 0 to 2 s", f"for {seconds:.2f} s")
        proxy.delay(0.0, 2.0)
    elif kind == "late":
        report.inject(f"{side}: nothing passes, then all of it", f"for {seconds:.2f} s")
        proxy.hold()
    else:
        report.inject(f"{side}: black hole", f"for {seconds:.2f} s")
        proxy.swallow()
    time.sleep(seconds)
    proxy.heal()


def _measure(judge: Judge, trainers: Sequence[Trainer], what: str, report: Report) -> None:
    begun = time.monotonic()
    for trainer in trainers:
        trainer.pause()
    acknowledged = time.monotonic() - begun
    try:
        judge.wait_until_applied(_PATIENCE)
    except AssertionError as error:
        report.violated(f"{what}: {error}")
        return
    took = time.monotonic() - begun
    report.measure(f"seconds to recover, {what}", took)
    report.tell(f"acknowledged after {acknowledged:.2f} s, applied after {took:.2f} s")
    if took > LIMIT:
        report.violated(
            f"{what}: recovered {took:.1f} s after its end, {acknowledged:.1f} s of it in the log"
        )
