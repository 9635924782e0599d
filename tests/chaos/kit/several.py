"""One of several Redis servers comes back with less than it had acknowledged; the others go on.

Invariant judged, after every trial: equality with the serial oracle, on every server.
"""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from driftline.servers import RedisServer
from tests.chaos.kit import aof
from tests.chaos.kit.judge import Judge
from tests.chaos.kit.report import Report
from tests.chaos.kit.trainers import Trainer
from tests.chaos.kit.trials import PATIENCE, ended, judged
from tests.integration.deployment import LOCAL, Deployment

KINDS = ("cut at a byte", "cut between commands", "everything")


@dataclass(frozen=True, slots=True)
class Several:
    """What a seed amounts to."""

    trials: int
    servers: int = 3
    shards: int = 6


def run(plan: Several, directory: Path, report: Report) -> None:
    """Run one seed on the embedded log; what is wrong ends up in `report`."""
    rng = random.Random(report.seed)
    kinds = [KINDS[number % len(KINDS)] for number in range(plan.trials)]
    rng.shuffle(kinds)
    with ExitStack() as parts:
        servers = [parts.enter_context(RedisServer(directory / f"redis-{n}")) for n in range(plan.servers)]
        urls = ",".join(f"s{number}={server.url}" for number, server in enumerate(servers))
        deployment = Deployment(LOCAL, f"local://{directory}/log", urls, directory)
        worker = parts.enter_context(deployment.worker())
        optimizer = {"kind": "adam", "lr": 0.01} if report.seed % 2 else None
        with deployment.client() as client:
            made = client.create_table(
                deployment.spec(shards=plan.shards, seed=report.seed, optimizer=optimizer)
            )
        judge = Judge(deployment, made.spec)
        trainers = [
            parts.enter_context(Trainer(deployment, made.spec, f"trainer {n} of {report.seed}", rate=60))
            for n in range(2)
        ]
        for number, kind in enumerate(kinds):
            time.sleep(rng.uniform(0.1, 0.6))
            victim = rng.randrange(plan.servers)
            _lose(servers[victim], kind, rng, report, name=f"s{victim}")
            report.measure("seconds until all was applied", judge.wait_until_applied(PATIENCE))
            if not judged(judge, trainers, worker, report):
                return
            report.tell(f"trial {number + 1} of {len(kinds)} done")
        ended(judge, trainers, report)


def _lose(server: RedisServer, kind: str, rng: random.Random, report: Report, *, name: str) -> None:
    seconds = rng.uniform(0.0, 2.0)
    kept = aof.size(server)
    time.sleep(seconds)
    server.kill()
    if kind == "everything":
        report.inject(f"{kind} of one server", name)
        aof.wipe(server)
    else:
        cut = rng.randint(kept, max(kept, aof.size(server)))
        if kind == "cut between commands":
            cut = rng.choice([*aof.command_ends(server, kept), aof.size(server)])
        report.inject(
            f"{kind} of one server", f"{name}: {aof.cut_tail(server, cut)} bytes of {seconds:.2f} s"
        )
    server.start()
