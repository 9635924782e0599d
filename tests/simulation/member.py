"""One aggregator process of the simulation: the real handler on the real chassis core.

Invariant: only what Faust and the broker do is imitated here: fetching, and a
consumer group that may give partitions to others before their owner has heard of
it. Whatever decides what is applied, committed or published is the product's.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from driftline import topics
from driftline.errors import LogUnavailableError
from driftline.frames.headers import Keyring
from driftline.ops.catalogue import Catalogue
from driftline.rows.source import VersionSource
from driftline.shard.spec import TableSpec
from driftline_services.aggregator.core import Aggregator
from driftline_services.aggregator.limits import Limits
from driftline_services.chassis.core import Chassis
from driftline_services.chassis.handler import Batch, Handler, TopicPartition
from driftline_services.chassis.lanes import Delivery
from driftline_services.chassis.settings import ChassisSettings
from tests.simulation.judge import GROUP
from tests.simulation.world import FakeLog, FakeRedis, Process, World

if TYPE_CHECKING:
    from tests.simulation.group import Group

SETTINGS = ChassisSettings(drain_timeout=3.0, rebalance_timeout=5.0, lane_batches=2)


class TopicName(str):
    """A topic's name whose hash does not change from process to process, as that of a str does."""

    __slots__ = ()

    def __hash__(self) -> int:
        return int.from_bytes(self.encode(), "little") % (1 << 61)


@dataclass(slots=True)
class _Cursor:
    turn: int
    next: int


class Member:
    """A process that is a member of the group until it dies; what it may do as a zombie it does."""

    def __init__(
        self,
        name: str,
        world: World,
        group: Group,
        redis: FakeRedis,
        log: FakeLog,
        keyring: Keyring,
        limits: Limits,
        crashed: Callable[[Member, BaseException], None],
        versions: Callable[[Process], VersionSource] | None = None,
    ) -> None:
        self._enter(name, world, group, log, keyring, crashed)
        self.aggregator = Aggregator(
            GROUP,
            self._log,
            redis.connector(self.process),
            keyring,
            self._catalogue,
            limits,
            versions=versions(self.process) if versions is not None else None,
        )
        self._serve(self.aggregator, [topics.ops(GROUP)])

    def _enter(
        self,
        name: str,
        world: World,
        group: Group,
        log: FakeLog,
        keyring: Keyring,
        crashed: Callable[[Member, BaseException], None],
    ) -> None:
        """Start the process."""
        self.process = world.process(name)
        self._world, self._group, self._crashed = world, group, crashed
        self._rng = world.random(f"member:{self.process.name}")
        self._log = log.handle(self.process)
        self._catalogue = Catalogue(self._log, GROUP, keyring, self._on_table)
        self._cursors: dict[TopicPartition, _Cursor] = {}
        self._pumps: list[asyncio.Task[None]] = []
        self._share: asyncio.Future[frozenset[TopicPartition]] | None = None
        self._summoned = asyncio.Event()
        self.deaf_until = 0.0

    def _serve(self, handler: Handler, first: list[str]) -> None:
        """Join the group with `handler`."""
        self.chassis = Chassis(handler, first, SETTINGS)
        self.chassis.on_error(functools.partial(self._crashed, self))
        self.process.spawn(self._run())

    def _topic_of(self, table: str) -> str:
        return topics.gradients(table)

    @property
    def topics(self) -> frozenset[str]:
        """Topics this member wants to read."""
        return self.chassis.topics

    def summon(self) -> None:
        """Tell the member that the group rebalances; it may hear it late, or never."""
        self._summoned.set()

    def assign(self, share: frozenset[TopicPartition]) -> None:
        """Give the member its partitions, once it has joined."""
        if self._share is not None and not self._share.done():
            self._share.set_result(share)

    async def _on_table(self, spec: TableSpec) -> None:
        await self.chassis.subscribe([self._topic_of(spec.name)])
        self._group.change()

    async def _run(self) -> None:
        try:
            await self._catalogue.catch_up()
            following = asyncio.create_task(self._catalogue.follow())
            following.add_done_callback(self._ended)
            while True:
                await self._join()
                await self._summoned.wait()
                await self._hear()
                await self.chassis.end()
                for pump in self._pumps:
                    pump.cancel()
                self._cursors.clear()
        except Exception as error:  # noqa: BLE001  # whatever it is, the process ends of it
            self.chassis.fail(error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.chassis.fail(error)

    async def _join(self) -> None:
        self._summoned.clear()
        self._share = asyncio.get_running_loop().create_future()
        self._group.join(self)
        share = await self._share
        await self._hear()
        self._world.trace(self.process.name, f"assigned {sorted((str(tp[0]), tp[1]) for tp in share)}")
        self._pumps = [asyncio.create_task(self._pump(tp)) for tp in sorted(share)]
        self.chassis.begin(share, self._move)

    async def _hear(self) -> None:
        """News takes its time; it does not get through to a process that is frozen or busy elsewhere."""
        await asyncio.sleep(max(self._rng.random() * 0.02, self.deaf_until - self._world.loop.time()))
        await self.process.pass_door()

    async def _move(self, tp: TopicPartition, position: int, turn: int) -> None:
        self._cursors[tp] = _Cursor(turn, position)

    async def _pump(self, tp: TopicPartition) -> None:
        reader = self._log.reader(str(tp.topic), tp.partition, 0)
        while True:
            cursor = self._cursors.get(tp)
            if cursor is None or not self.chassis.wanting(tp):
                await asyncio.sleep(0.005)
                continue
            reader.seek(cursor.next)
            try:
                records = await reader.read(max_bytes=self._rng.choice([1, 1000, 1 << 20]), wait=0.1)
            except LogUnavailableError:
                continue
            if not records or self._cursors.get(tp) is not cursor:
                continue
            following = records[-1].offset + 1
            behind = following % 3 == 0  # right or wrong: it may only delay a commit
            batch = Batch(tp.topic, tp.partition, cursor.next, following, records, behind)
            cursor.next = batch.next
            await self.chassis.deliver(Delivery(batch, cursor.turn, sum(len(r.value) for r in records)))
            if self._rng.random() < 0.1:  # a slow fetch
                await asyncio.sleep(self._rng.random() * 0.1)
