"""One seed's life of an aggregator: traffic, two owners, a storm, and rest at the end.

Invariant: everything is drawn from the seed. After the storm the system must come
to rest by itself, and what it leaves behind must be what the log says.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from driftline import topics
from driftline.errors import FenceLostError, PositionError, RetryError
from driftline.rows.source import VersionSource
from tests.oracle import differences, wire
from tests.simulation.fake_versions import FakeVersions
from tests.simulation.group import Group
from tests.simulation.judge import GROUP, SHARDS, TABLE, Judge, Violation
from tests.simulation.member import Member
from tests.simulation.plan import Plan as Plan
from tests.simulation.random_log import KEYRING, KEYS
from tests.simulation.traffic import Operator, Trainer
from tests.simulation.world import Action, FakeLog, FakeRedis, Process, World, run

REST = 120.0
"""Virtual seconds after the storm within which everything must be committed and published."""


class Scenario:
    """The processes of one run and what happens to them."""

    def __init__(self, world: World, plan: Plan) -> None:
        self._world, self._plan = world, plan
        self._rng = world.random("scenario")
        self.redis, self.log = self.make_redis(world), FakeLog(world)
        for name in (topics.ops(GROUP), topics.refused_ops(GROUP)):
            self.log.create(name, 1)
        self.judge = Judge(self.redis, self.log, KEYS)
        self.group = Group(world, self.log)
        self.members: list[Member] = []
        self._started = 0
        self._calm = False
        self.trainers = [Trainer(name, world, self.log, plan.spec, self._stands) for name in "ab"]
        self._evicted: set[int] = set()
        self._eviction = world.random("eviction")

    def make_redis(self, world: World) -> FakeRedis:
        """Return the store; a scenario with several servers has its own."""
        return FakeRedis(world)

    def make_operator(self) -> Operator:
        """Return who asks for ops; a scenario may have one of its own."""
        return Operator(self._world, self.log, KEYRING, self._plan.spec)

    async def run(self) -> None:
        """Live through the storm and come to rest."""
        coordinating = asyncio.create_task(self.group.run())
        for _ in range(2):
            self._start()
        operator = self.make_operator()
        traffic = [asyncio.create_task(trainer.run(self._plan.steps)) for trainer in self.trainers]
        traffic.append(asyncio.create_task(operator.run(self._plan.ops)))
        storm = self._world.storm(self._actions(), count=self._plan.storms, mean_gap=0.06)
        await storm.run()
        await asyncio.gather(*traffic)
        self._world.calm()
        self._calm = True
        for member in self.members:
            member.process.thaw()
            member.deaf_until = 0.0
        self.group.change()
        deadline = self._world.loop.time() + REST
        while not self._at_rest():
            if self._world.loop.time() > deadline:
                raise Violation("rest", f"no rest within {REST} virtual seconds: {self._standing()}")
            await asyncio.sleep(0.02)
        self._finally()
        coordinating.cancel()

    # What goes wrong

    def _actions(self) -> list[Action]:
        rng = self._rng
        actions = [
            Action("kill an aggregator", lambda: self._with_one(self._kill), 5),
            Action("kill at a commit", self._set_trap, 5),
            Action("freeze an aggregator", lambda: self._with_one(self._freeze), 3),
            Action("rebalance", self.group.change, 2),
            Action("rebalance unheard", lambda: self._with_one(self._rebalance_unheard), 3),
            Action("kill a trainer", self._kill_trainer, 1),
            Action("restart Redis", lambda: self._lose(rng.randrange(3), rng.random() * 0.2), 1),
            Action("fail over", lambda: self._fail_over(rng.randrange(6)), 1),
            Action("updates away", lambda: self.log.take_away(topics.updates(TABLE), rng.random() * 0.5), 5),
            Action("evict rows", self._evict, 0.7),
        ]
        if self._plan.rebuilds:
            actions.append(Action("empty Redis", self._empty, 1))
        return actions

    def _with_one(self, do: Callable[[Member], None]) -> None:
        """Do something to one of the aggregators, if there is one just now."""
        if self.members:
            do(self._rng.choice(self.members))

    def _start(self) -> None:
        self._started += 1
        self.members.append(
            Member(
                f"owner-{self._started}",
                self._world,
                self.group,
                self.redis,
                self.log,
                KEYRING,
                self._plan.limits,
                self._crashed,
                self._versions,
            )
        )

    def _versions(self, process: Process) -> VersionSource:
        timelines, spec = self.judge.timelines, self._plan.spec
        return FakeVersions(self._world, process, timelines, spec, 0.0 if self._calm else 0.1)

    def _kill(self, member: Member) -> None:
        if member in self.members:
            self.members.remove(member)
            member.process.kill()
            self._world.loop.call_later(self._rng.random() * 0.2, self._start)
            self._world.loop.call_later(0.1 + self._rng.random() * 0.2, self.group.change)

    def _crashed(self, member: Member, error: BaseException) -> None:
        self._world.trace(member.process.name, f"crashes: {error}")
        if not isinstance(error, RetryError | FenceLostError):
            self.judge.fail(error)
        self._kill(member)

    def _kill_trainer(self) -> None:
        self._rng.choice(self.trainers).process.kill()

    def _set_trap(self) -> None:
        """Kill the next owner who commits before it can hear of it."""
        self.judge.trap = self._kill_owner

    def _kill_owner(self, owner: bytes) -> None:
        for member in list(self.members):
            if any(runner._store.owner == owner for runner in member.aggregator.runners.values()):
                self._kill(member)

    def _freeze(self, member: Member) -> None:
        member.process.freeze()
        self._world.loop.call_later(self._rng.random() * 1.0, member.process.thaw)
        self._world.loop.call_later(self._rng.random() * 0.3, self.group.change)

    def _rebalance_unheard(self, member: Member) -> None:
        member.deaf_until = self._world.loop.time() + self._rng.random() * 1.5
        self.group.change()

    def _lose(self, transactions: int, down: float) -> None:
        self.redis.restart(lose=transactions, down=down)
        self.judge.redis_went_back()

    def _fail_over(self, lag: int) -> None:
        self.redis.fail_over(lag=lag)
        self.judge.redis_went_back()

    def _empty(self) -> None:
        self.redis.restart_empty(down=self._rng.random() * 0.1)
        self.judge.redis_went_back()

    def _evict(self) -> None:
        """All owners are gone and a shard's rows as well: the next owner has to notice."""
        for member in list(self.members):
            self._kill(member)
        shard = self._rng.randrange(SHARDS)
        if self.judge.timelines[shard].at(int(self.judge.fields(shard).get(b"next", b"0"))).table:
            self._evicted.add(shard)
            self.judge.evicted.add(shard)
            image = self.judge.timelines[shard].at(int(self.judge.fields(shard)[b"next"])).image
            self._key(shard, self._eviction.choice([b"v", b"s"]) if image[1] else b"v")

    def _key(self, shard: int, *names: bytes) -> None:
        stem = b"dl:{%s:%d}:" % (TABLE.encode(), shard)
        self.redis.ask(b"DEL", *(stem + name for name in names))

    def _stands(self, shard: int) -> int:
        reached = int(self.judge.fields(shard).get(b"next", b"0"))
        return 1 << 48 | max(0, reached - self._rng.randrange(10))

    # How it ends

    def _at_rest(self) -> bool:
        for member in self.members:
            for tp, error in list(member.aggregator.stopped.items()):
                self._attend(member, tp.partition, error)
        drained = all(self._drained(shard) for shard in range(SHARDS))
        return drained and not self.judge.evicted and self._ops_forwarded()

    def _standing(self) -> str:
        shards = [(self.judge.fields(n), self._end(n)) for n in range(SHARDS)]
        stand = [f"{w.get(b'next')!r} published {w.get(b'published')!r} of {end}" for w, end in shards]
        return f"{stand}, ops {self.judge.ops} of {self.log.partition(topics.ops(GROUP), 0).end}"

    def _end(self, shard: int) -> int:
        return self.log.partition(topics.gradients(TABLE), shard).end

    def _attend(self, member: Member, shard: int, error: Exception) -> None:
        """Do what the message of a stopped shard asks for; any other stop is a failure."""
        if not (isinstance(error, PositionError) and "lost keys" in str(error) and shard in self._evicted):
            self.judge.fail(error)
        self._world.trace("operator", f"rebuilds shard {shard}")
        self._key(shard, b"w", b"v", b"s")
        member.aggregator.stopped.clear()
        self.group.change()

    def _drained(self, shard: int) -> bool:
        fields, end = self.judge.fields(shard), self._end(shard)
        return fields.get(b"next") == fields.get(b"published") == b"%d" % end

    def _ops_forwarded(self) -> bool:
        asked = self.log.partition(topics.ops(GROUP), 0).end
        refused = {record.key for record in self.log.partition(topics.refused_ops(GROUP), 0).records}
        return all(
            n in seen or b"0:%d" % (n - 1) in refused for n in range(1, asked + 1) for seen in self.judge.ops
        )

    def _finally(self) -> None:
        judge = self.judge
        for shard, timeline in enumerate(judge.timelines):
            moment = timeline.at(self._end(shard))
            judge.check_image(shard)
            if wrong := differences(moment.table, judge.published[shard].rows):
                raise Violation("updates-final", f"shard {shard}: {wrong}")
            refused = {
                b"%d:%d" % (shard, offset)
                for offset, judged in enumerate(timeline.judged)
                if judged.outcome.verdict == "dead letter"
            }
            if refused != judge.dead_letters[shard]:
                raise Violation("dead-letter", f"shard {shard}: {refused ^ judge.dead_letters[shard]}")
            ops = {judged.frame.seq for judged in timeline.judged if judged.marker and judged.frame}
            if ops != judge.published[shard].markers.keys():
                raise Violation("marker", f"shard {shard}: {ops}, not {judge.published[shard].markers}")
            self._check_once(shard)

    def _check_once(self, shard: int) -> None:
        """Every frame of the trainers took effect once."""
        effects: Counter[tuple[bytes, int]] = Counter()
        for judged in self.judge.timelines[shard].judged:
            if judged.frame is not None and judged.frame.kind in wire.EVENTS:
                effects[judged.frame.producer, judged.frame.seq] += judged.outcome.reason != "duplicate"
        for trainer in self.trainers:
            for number in trainer.sent(shard):
                if effects[trainer.producer, number] != 1:
                    raise Violation(
                        "exactly-once", f"shard {shard}: frame {number} of {trainer.producer.hex()}"
                    )


async def live(world: World) -> str:
    """Run the scenario of the world's seed and return the trace; raises what the judge finds."""
    scenario = Scenario(world, Plan.of(world.seed))
    living = asyncio.ensure_future(scenario.run())
    await asyncio.wait({living, scenario.judge.verdict}, return_when=asyncio.FIRST_COMPLETED)
    if scenario.judge.verdict.done():
        living.cancel()
        scenario.judge.verdict.result()
    await living
    return world.trace.text()


def trace_of(seed: int) -> str:
    """Run one seed and return its trace; an error raised carries the seed and the end of the trace."""
    with silence():
        return run(seed, live, rates=Plan.of(seed).rates)


def run_seed(seed: int) -> None:
    """Run one seed; the error raised carries the seed and the end of the trace."""
    trace_of(seed)


@contextmanager
def silence() -> Iterator[None]:
    """Keep the product's warnings about the faults it is given out of the reports."""
    logger = logging.getLogger("driftline_services")
    client = logging.getLogger("driftline")
    before = logger.level, client.level
    logger.setLevel(logging.CRITICAL)
    client.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before[0])
        client.setLevel(before[1])
