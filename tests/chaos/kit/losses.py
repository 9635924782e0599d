"""A Redis that comes back with less than it had acknowledged: the log makes up for it.

Invariant judged, after every trial: equality with the serial oracle. Lost are the
last 0 to 2 seconds (the append-only file cut at a byte or between commands),
everything, or what a replica had not yet received when it was promoted.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from driftline.servers import RedisServer
from tests.chaos.kit import aof
from tests.chaos.kit.judge import Judge
from tests.chaos.kit.proxy import HOST, Proxy
from tests.chaos.kit.report import Report
from tests.chaos.kit.trainers import Trainer
from tests.chaos.kit.trials import PATIENCE, ended, judged
from tests.integration.deployment import LOCAL, Deployment
from tests.support.waiting import until

KINDS = ("cut at a byte", "cut between commands", "everything", "failover", "failover, master alive")


@dataclass(slots=True)
class Pair:
    """A master and its replica; the deployment reaches the master, and the replica it, through proxies."""

    front: Proxy
    master: tuple[RedisServer, Proxy]
    replica: tuple[RedisServer, Proxy]

    @property
    def url(self) -> str:
        return self.front.url(self.master[0].url)

    def attach(self) -> None:
        """Make the replica follow the master and wait until it is in step."""
        self.master[1].heal()
        with _client(self.replica[0]) as client:
            client.replicaof(HOST, str(self.master[1].port))
            until(
                lambda: client.info("replication")["master_link_status"] == "up",
                "the replica is in step",
                seconds=PATIENCE,
            )

    def fail_over(self, lag: float, *, kill: bool) -> None:
        """Let the replica fall `lag` seconds behind, then make it the master."""
        old, new = self.master, self.replica
        old[1].hold()
        time.sleep(lag)
        if kill:
            old[0].kill()
        old[1].swallow()  # what it held on its way never arrives
        with _client(new[0]) as client:
            client.execute_command("REPLICAOF", "NO", "ONE")
        self.front.retarget(new[0].port)
        self.front.cut()
        self.master, self.replica = new, old

    def bring_back(self) -> None:
        """Start the former master, if need be, as the replica."""
        self.replica[0].start()
        self.attach()


@contextmanager
def pair(directory: Path) -> Iterator[Pair]:
    """Start two servers, one following the other."""
    with ExitStack() as parts:
        servers = [parts.enter_context(RedisServer(directory / f"redis-{n}")) for n in range(2)]
        behind = [parts.enter_context(Proxy(server.port)) for server in servers]
        front = parts.enter_context(Proxy(servers[0].port))
        made = Pair(front, (servers[0], behind[0]), (servers[1], behind[1]))
        made.attach()
        yield made


@dataclass(frozen=True, slots=True)
class Losses:
    """What a seed amounts to."""

    trials: int
    kinds: Sequence[str] = KINDS
    kind: str = LOCAL


def run(plan: Losses, directory: Path, report: Report) -> None:
    """Run one seed on the embedded log; what is wrong ends up in `report`."""
    rng = random.Random(report.seed)
    kinds = [plan.kinds[number % len(plan.kinds)] for number in range(plan.trials)]
    rng.shuffle(kinds)
    with pair(directory) as servers, ExitStack() as parts:
        deployment = Deployment(LOCAL, f"local://{directory}/log", servers.url, directory)
        worker = parts.enter_context(deployment.worker())
        optimizer = {"kind": "adam", "lr": 0.01} if report.seed % 2 else None
        with deployment.client() as client:
            made = client.create_table(deployment.spec(shards=3, seed=report.seed, optimizer=optimizer))
        judge = Judge(deployment, made.spec)
        trainers = [
            parts.enter_context(Trainer(deployment, made.spec, f"trainer {n} of {report.seed}", rate=60))
            for n in range(2)
        ]
        for number, kind in enumerate(kinds):
            time.sleep(rng.uniform(0.1, 0.6))
            back = _lose(servers, kind, judge, rng, report)
            report.measure("records to be applied again", back)
            report.measure("seconds until all was applied", judge.wait_until_applied(PATIENCE))
            if kind.startswith("failover"):
                servers.bring_back()
            if not judged(judge, trainers, worker, report):
                return
            report.tell(f"trial {number + 1} of {len(kinds)} done")
        ended(judge, trainers, report)


def _lose(servers: Pair, kind: str, judge: Judge, rng: random.Random, report: Report) -> int:
    """Inject one loss and return how many committed records it cost."""
    seconds = rng.uniform(0.0, 2.0)
    master = servers.master[0]
    if kind.startswith("failover"):
        before = judge.positions()
        report.inject(kind, f"the replica {seconds:.2f} s behind")
        servers.fail_over(seconds, kill=not kind.endswith("alive"))
        return _behind(judge, before)
    kept = aof.size(master)
    time.sleep(seconds)
    before = judge.positions()
    master.kill()
    if kind == "everything":
        report.inject(kind)
        aof.wipe(master)
    else:
        cut = rng.randint(kept, max(kept, aof.size(master)))
        if kind == "cut between commands":
            cut = rng.choice([*aof.command_ends(master, kept), aof.size(master)])
        report.inject(kind, f"{aof.cut_tail(master, cut)} bytes of {seconds:.2f} s")
    master.start()
    return _behind(judge, before)


def _behind(judge: Judge, before: Sequence[int]) -> int:
    return sum(max(0, was - max(0, now)) for was, now in zip(before, judge.positions(), strict=True))


def _client(server: RedisServer) -> redis.Redis:
    return redis.Redis(host=HOST, port=server.port, socket_timeout=5.0)
