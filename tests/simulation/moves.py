"""The aggregator's life with several Redis servers, between which shards are moved all the time.

Invariant: as in `scenario`; and to a reader of the newest place, a shard's image goes
on as if it had never moved: what the farm shows is what a client would be led to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from driftline import topics
from driftline.errors import LogUnavailableError
from driftline.frames.events import Op, Origin
from driftline.ids import producer_id
from driftline.ops.requests import Signer
from driftline.rows.placement import FIELDS, Holding, View, read_holding
from driftline.rows.servers import Servers
from driftline.rows.shard_store import MOVED
from tests.simulation import scenario
from tests.simulation.judge import GROUP, SHARDS, TABLE
from tests.simulation.random_log import KEYRING
from tests.simulation.scenario import Plan, Scenario
from tests.simulation.world import FakeRedis, Process, World, run
from tests.simulation.world.keyspace import Reply

NAMES = ("a", "b", "c")
_PLACE = (b"place", b"moved_to")


class Farm:
    """Three servers that show themselves to the judge as the one a reader would see."""

    def __init__(self, world: World) -> None:
        self.servers = {name: FakeRedis(world, name) for name in NAMES}
        self._rng = world.random("farm")
        self.on_leave: Callable[[bytes], None] | None = None  # told who has just left a server with a shard
        self.on_return: Callable[[], None] | None = (
            None  # told when an older life becomes the one that counts
        )
        self._left: set[tuple[str, int, bytes]] = set()
        self._homes: dict[int, tuple[str, int]] = {}

    def connector(self, process: Process) -> Servers:
        """Return the servers as `process` reaches them."""
        return Servers.by_connect({name: each.connector(process) for name, each in self.servers.items()})

    def watch_changes(self, watcher: Callable[[set[bytes]], None]) -> None:
        for name, each in self.servers.items():
            each.watch_changes(lambda changed, name=name: self._changed(name, changed, watcher))  # type: ignore[misc]

    def _changed(self, name: str, changed: set[bytes], watcher: Callable[[set[bytes]], None]) -> None:
        for shard in range(SHARDS):
            home, before = self._home(shard), self._homes.get(shard)
            at = self._next(home, shard)
            if before is not None and home != before[0] and at < before[1] and self.on_return is not None:
                self.on_return()
            self._homes[shard] = home, at
        watcher(changed)
        for shard in range(SHARDS):
            owner = self.servers[name].ask(b"HGET", b"dl:{%s:%d}:w" % (TABLE.encode(), shard), b"owner")
            if not isinstance(owner, bytes) or not owner.startswith(MOVED):
                continue
            if (name, shard, owner) not in self._left and self.on_leave is not None:
                self._left.add((name, shard, owner))
                self.on_leave(owner.removeprefix(MOVED))

    def restart(self, *, lose: int = 0, down: float = 0.0) -> None:
        self._one().restart(lose=lose, down=down)

    def fail_over(self, *, lag: int) -> None:
        self._one().fail_over(lag=lag)

    def ask(self, *command: bytes) -> Reply:
        """Read from where the shard is, without what says where; write everywhere."""
        name, key = command[0], command[1]
        if name != b"HGETALL":
            return [each.ask(*command) for each in self.servers.values()]
        server = self._home(int(key.partition(b"}")[0].rpartition(b":")[2]))
        flat = self.servers[server].ask(*command)
        if not key.endswith(b":w"):
            return flat
        assert isinstance(flat, list)
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return [part for field, value in pairs if field not in _PLACE for part in (field, value)]

    def view(self, shard: int) -> View:
        """Return what all servers hold of a shard."""
        held = (self._holding(name, shard) for name in NAMES)
        return View(shard, tuple(each for each in held if each is not None))

    def _home(self, shard: int) -> str:
        view = self.view(shard)
        found = view.live or view.signpost
        return found.server if found is not None else NAMES[0]

    def _next(self, name: str, shard: int) -> int:
        held = self._holding(name, shard)
        return held.next if held is not None else 0

    def _holding(self, name: str, shard: int) -> Holding | None:
        stem = b"dl:{%s:%d}:" % (TABLE.encode(), shard)
        fields = self.servers[name].ask(b"HMGET", stem + b"w", *FIELDS)
        values = self.servers[name].ask(b"HLEN", stem + b"v")
        assert isinstance(fields, list)
        assert isinstance(values, int)
        return read_holding(name, [each if isinstance(each, bytes) else None for each in fields], values)

    def _one(self) -> FakeRedis:
        return self.servers[self._rng.choice(NAMES)]


class MovingScenario(Scenario):
    """A scenario whose shards move; what is left behind is cleared at once, or much later."""

    def __init__(self, world: World, plan: Plan) -> None:
        super().__init__(world, plan)
        self._forgetful = world.seed % 2 == 0
        self.farm.on_leave = self._disturb
        if self._forgetful:  # a server that forgets that a shard has left lets two lives overlap for a while
            self.farm.on_return = self.judge.redis_went_back

    def make_redis(self, world: World) -> FakeRedis:
        self.farm = Farm(world)
        return self.farm  # type: ignore[return-value]  # the part of one server that a scenario uses

    async def run(self) -> None:
        moving = asyncio.create_task(self._move_about())
        await super().run()
        await moving
        for shard in range(SHARDS):
            assert self.farm.view(shard).live is not None, f"shard {shard} is nowhere"

    def _start(self) -> None:
        super()._start()
        # Rows may go only when the new server's file has them: a server that forgets clears late.
        member = self.members[-1]
        member.aggregator._homes._clear_after = 15.0 if self._forgetful else 0.02
        member.aggregator.patrol_every = 0.5
        member.process.spawn(member.aggregator.patrol())

    def _lose(self, transactions: int, down: float) -> None:
        super()._lose(transactions if self._forgetful else 0, down)

    def _fail_over(self, lag: int) -> None:
        super()._fail_over(lag if self._forgetful else 0)

    def _disturb(self, owner: bytes) -> None:
        """A shard has left its server and is live nowhere: the worst moment there is."""
        draw = self._rng.random()
        if draw < 0.35:
            self._kill_owner(owner)
        elif draw < 0.55:
            for member in list(self.members):
                if member.process.alive and any(
                    runner._store.owner == owner for runner in member.aggregator.runners.values()
                ):
                    self._freeze(member)
        elif draw < 0.65:
            self._world.loop.call_later(self._rng.random() * 0.01, self._lose, self._rng.randrange(3), 0.05)

    async def _move_about(self) -> None:
        rng = self._world.random("mover")
        log = self.log.handle(self._world.process("mover"))
        requester = producer_id("mover")
        asked_for = self.log.partition(topics.ops(GROUP), 0)
        await self._world.until(lambda: asked_for.end > 0, within=60.0)  # the table comes first
        for _ in range(10):  # a request that is sent twice counts once
            await asyncio.sleep(rng.expovariate(1 / 0.06))
            body = {"shard": rng.randrange(SHARDS), "server": rng.choice([*NAMES, *NAMES, "nowhere"])}
            op = Op("move", TABLE, 0, Origin(requester, 0, 0), body)
            asked = Signer(GROUP, requester, KEYRING).sign(op, 0, rng.randbytes(16))
            while True:
                try:
                    await log.append(topics.ops(GROUP), 0, [asked])
                    break
                except LogUnavailableError:
                    await asyncio.sleep(0.02)


def plan_of(seed: int) -> Plan:
    """Return the plan of a seed; no server comes back empty: that loses a shard that has moved there."""
    plan = Plan.of(seed)
    return Plan(plan.spec, plan.limits, plan.rates, plan.steps, plan.ops, plan.storms, rebuilds=False)


async def live(world: World) -> str:
    """Run the scenario of the world's seed and return the trace; raises what the judge finds."""
    moving = MovingScenario(world, plan_of(world.seed))
    living = asyncio.ensure_future(moving.run())
    await asyncio.wait({living, moving.judge.verdict}, return_when=asyncio.FIRST_COMPLETED)
    if moving.judge.verdict.done():
        living.cancel()
        moving.judge.verdict.result()
    await living
    return world.trace.text()


def run_seeds(seeds: Sequence[int]) -> None:
    """Run these seeds; the error raised carries the seed and the end of the trace."""
    with scenario.silence():
        for seed in seeds:
            run(seed, live, rates=plan_of(seed).rates)
