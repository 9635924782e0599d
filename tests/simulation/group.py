"""A consumer group as its members see it: they join, get a share, and may be left behind.

Invariant: within a generation a partition belongs to one member. A member that has
not let go in time is left behind and its partitions are given away: it goes on
with them until it hears of it. That is what the fence is for.
"""

from __future__ import annotations

import asyncio

from driftline_services.chassis.handler import TopicPartition
from tests.simulation.member import Member, TopicName
from tests.simulation.world import FakeLog, World

PATIENCE = 0.25
"""Virtual seconds until members who do not answer are left behind."""


class Group:
    """The coordinator."""

    def __init__(self, world: World, log: FakeLog) -> None:
        self._world, self._log = world, log
        self._rng = world.random("group")
        self._members: list[Member] = []
        self._ready: list[Member] = []
        self._changed = asyncio.Event()
        self._rebalancing = False

    def change(self) -> None:
        """Have the partitions given out anew."""
        self._changed.set()

    def join(self, member: Member) -> None:
        """`member` has let go of everything and waits for its share."""
        self._ready.append(member)
        if member not in self._members:
            self._members.append(member)
        if not self._rebalancing:
            self.change()

    async def run(self) -> None:
        """Coordinate, for ever."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            self._rebalancing = True
            await self._gather()
            self._rebalancing = False
            self._give_out()

    async def _gather(self) -> None:
        """Wait until all have let go, or for as long as patience lasts."""
        for member in self._members:
            if member not in self._ready:
                member.summon()
        deadline = self._world.loop.time() + PATIENCE
        while self._world.loop.time() < deadline and not self._complete():
            await asyncio.sleep(0.01)

    def _give_out(self) -> None:
        self._members = [member for member in self._ready if member.process.alive]
        self._ready = []
        if not self._members:
            return
        wanted = frozenset[str]().union(*(member.topics for member in self._members))
        shares: list[set[TopicPartition]] = [set() for _ in self._members]
        for topic in sorted(wanted & self._log.topics.keys()):
            for partition in range(len(self._log.topics[topic])):
                self._rng.choice(shares).add(TopicPartition(TopicName(topic), partition))
        for member, share in zip(self._members, shares, strict=True):
            member.assign(frozenset(share))

    def _complete(self) -> bool:
        return all(member in self._ready for member in self._members if member.process.alive)
