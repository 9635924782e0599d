"""Batches from the embedded log, with file locks for a group.

Invariant: the order of a rebalance is that of Kafka's: rebalance starts,
partitions are revoked, then given up, then locked, then the generation changes,
then they are assigned. Whoever applies holds the lock; the kernel frees it on kill -9.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from faust.transport import base
from faust.types import TP
from mode import Service

from driftline.errors import LogUnavailableError, OffsetError
from driftline.log.address import LocalAddress, parse_address
from driftline.log.local.log import LocalLog
from driftline.log.local.members import POLL_S, Membership
from driftline_services.chassis.consumer import BatchConsumer
from driftline_services.chassis.handler import Batch, TopicPartition
from driftline_services.chassis.lanes import Delivery, Loss, not_in_the_log

if TYPE_CHECKING:
    from driftline_services.chassis.app import ChassisApp


@dataclass(slots=True)
class Cursor:
    """Where a partition is read, in which turn."""

    turn: int
    next: int


class LocalConsumer(BatchConsumer):
    """Member of a consumer group on one machine."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        address = parse_address(cast("ChassisApp", self.app).url)
        assert isinstance(address, LocalAddress)
        self._log = LocalLog(address.root)
        self._root = self._log.root
        self._membership: Membership | None = None
        self._topics: frozenset[str] = frozenset()  # to be read
        self._joined: frozenset[str] = frozenset()  # that the membership covers
        self._assigned: frozenset[TopicPartition] = frozenset()
        self._cursors: dict[TopicPartition, Cursor] = {}
        self._generation = 0

    async def on_start(self) -> None:
        await super().on_start()
        await self._log.start()

    async def on_stop(self) -> None:
        await super().on_stop()
        if self._membership is not None:
            self._membership.leave()
        await self._log.close()

    # -- records --------------------------------------------------------------

    async def fetch(self, timeout: float) -> Sequence[Delivery | Loss]:
        cursors = {tp: self._cursors[tp] for tp in self.chassis.wanted() if tp in self._cursors}
        ready = [
            tp for tp, cursor in cursors.items() if self._log.heads(tp.topic)[tp.partition] > cursor.next
        ]
        if not ready:
            await self._news(cursors, timeout)
            return []
        fetched = await asyncio.gather(*(self._fetch_one(tp, cursors[tp]) for tp in ready))
        return [delivery for delivery in fetched if delivery is not None]

    async def _fetch_one(self, tp: TopicPartition, cursor: Cursor) -> Delivery | Loss | None:
        start = cursor.next
        end = self._log.heads(tp.topic)[tp.partition]  # before the fetch: what comes meanwhile is no backlog
        try:
            chunk = await self._log.fetch(*tp, start, self.chassis.settings.fetch_bytes)
        except OffsetError as error:
            if self._cursors.get(tp) is not cursor:
                return None
            del self._cursors[tp]
            return Loss(tp, cursor.turn, not_in_the_log(tp, start, str(error)))
        if self._cursors.get(tp) is not cursor or not chunk.records:
            return None
        cursor.next = chunk.records[-1].offset + 1
        batch = Batch(tp.topic, tp.partition, start, cursor.next, chunk.records, cursor.next < end)
        return Delivery(batch, cursor.turn, sum(len(record.value) for record in chunk.records))

    async def _news(self, cursors: Mapping[TopicPartition, Cursor], timeout: float) -> None:
        positions: dict[str, dict[int, int]] = {}
        for tp, cursor in cursors.items():
            positions.setdefault(tp.topic, {})[tp.partition] = cursor.next
        if not positions:
            await asyncio.sleep(timeout)
            return
        waits = [
            asyncio.ensure_future(self._log.wait_for_news(topic, at, timeout))
            for topic, at in positions.items()
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def move(self, tp: TopicPartition, position: int, turn: int) -> None:
        bounds = await self._log.bounds(*tp)
        if not bounds.begin <= position <= bounds.end:
            raise not_in_the_log(tp, position, f"it holds [{bounds.begin}, {bounds.end})")
        self._cursors[tp] = Cursor(turn, position)

    # -- the group ------------------------------------------------------------

    async def existing_topics(self) -> frozenset[str]:
        return frozenset(await self._log.topics())

    async def join(self, topics: frozenset[str]) -> None:
        self._topics = topics  # `_follow_group` does the rest: nobody may wait for a rebalance

    @Service.task
    async def _follow_group(self) -> None:
        while not self.should_stop:
            if self._topics:
                await self._balance()
            await self.sleep(POLL_S)

    async def _balance(self) -> None:
        if self._topics != self._joined:
            changes = True
        else:
            assert self._membership is not None
            changes = bool(self._membership.poll())
        if changes:
            self.app.on_rebalance_start()
            await self.on_partitions_revoked(self.assignment())
            self._cursors.clear()
            self._assigned = frozenset()
            if self.should_stop:
                return
            self._assigned = await self._take_share()
            self._generation += 1
            self.app.consumer_generation_id = self._generation
            await self.on_partitions_assigned(self.assignment(), self._generation)

    async def _take_share(self) -> frozenset[TopicPartition]:
        if self._membership is None or self._topics != self._joined:
            await self._rejoin()
        assert self._membership is not None
        for partition in self._membership.poll().give_up:
            self._membership.release(partition)
        return frozenset(TopicPartition(*tp) for tp in self._membership.held)

    async def _rejoin(self) -> None:
        topics = {t: n for t, n in (await self._log.topics()).items() if t in self._topics}
        if self._membership is not None:
            self._membership.leave()
        self._membership = Membership(self._root, self.app.conf.id, topics)
        self._membership.join()
        self._joined = self._topics

    def assignment(self) -> set[TP]:
        return {TP(*tp) for tp in self._assigned}

    async def store_hints(self, positions: Mapping[TopicPartition, int]) -> bool:
        try:
            await self._log.commit(
                self.app.conf.id,
                {(tp.topic, tp.partition): p for tp, p in positions.items()},
            )
        except LogUnavailableError as error:  # a hint: never a reason to stop
            self.log.warning("offset hint not committed: %r", error)
            return False
        return True

    # -- the rest of Faust's consumer interface, for whoever looks at the app ---------

    async def position(self, tp: TP) -> int | None:
        cursor = self._cursors.get(TopicPartition(*tp))
        return cursor.next if cursor is not None else None

    def highwater(self, tp: TP) -> int:
        return int(self._log.heads(tp.topic)[tp.partition])

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        return {tp: (await self._log.bounds(*tp)).end for tp in partitions}

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        return {tp: (await self._log.bounds(*tp)).begin for tp in partitions}

    def topic_partitions(self, topic: str) -> int | None:
        return len(self._log.heads(topic)) if topic in self._subscribed else None

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:
        return partition

    async def create_topic(self, topic: str, partitions: int, *_: object, **__: object) -> None:
        await self._log.create_topic(topic, partitions)

    def close(self) -> None:
        """Nothing to do: files are closed in `on_stop`."""


class LocalProducer(base.Producer):
    """Sends nothing: Faust wants one, services append through `driftline.log`."""


class LocalTransport(base.Transport):
    """`local://DIR`, with batches."""

    Consumer = LocalConsumer
    Producer = LocalProducer
    default_port = 0
    driver_version = "driftline"
