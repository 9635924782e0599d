"""Batches from Kafka: Faust's aiokafka transport, merged where aiokafka hands records over.

Invariant: records and the position behind them are read in one step of the
consumer thread's event loop, as are a seek and the turn it starts. So each batch
carries its exact [start, next), and none is taken for one of another turn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import aiokafka
from aiokafka.client import ConnectionGroup
from aiokafka.errors import IllegalStateError, KafkaError, OffsetOutOfRangeError, RequestTimedOutError
from aiokafka.protocol.group import JoinGroupRequest, SyncGroupRequest
from aiokafka.structs import ConsumerRecord, OffsetAndMetadata
from aiokafka.structs import TopicPartition as KafkaPartition
from faust.transport.drivers import aiokafka as driver
from mode import Service

from driftline.log.base import Record
from driftline.log.kafka.guarding import MAX_RECORDS, guard
from driftline_services.chassis.consumer import BatchConsumer
from driftline_services.chassis.handler import Batch, TopicPartition
from driftline_services.chassis.lanes import Delivery, Loss, not_in_the_log

T = TypeVar("T")
HINT_TIMEOUT = 5.0  # seconds; a commit is not worth a longer wait
LEAVE_TIMEOUT = 5.0


@dataclass(slots=True)
class Cursor:
    """Where a partition is read, in which turn."""

    turn: int
    next: int


class Wanted:
    """The partitions to fetch, asked for at the moment records are handed over.

    A set would be a snapshot, and an empty one means *all* to aiokafka.
    """

    def __init__(self, consumer: BatchConsumer) -> None:
        self._wanting = consumer.chassis.wanting

    def __bool__(self) -> bool:
        return True

    def __contains__(self, tp: object) -> bool:
        return self._wanting(cast(TopicPartition, tp))


class Answers:
    """Gives up on a connection that a path has swallowed, long before the request time-out.

    That one must fit a JoinGroup, which a broker holds until the whole group has come; for a
    fetch or a heartbeat it is an age in which the member is evicted. A broker that is only
    slow is met with twice the patience each time, up to the request time-out.
    """

    def __init__(self, client: Any, shortest: float, longest: float) -> None:
        self._client, self._shortest, self._longest = client, shortest, longest
        self._patience = shortest
        self._send = client.send
        self._joining = 0  # a broker answers the requests of a connection one after the other

    def guard(self) -> None:
        self._client.send = self.send
        self._client._request_timeout_ms = int(self._shortest * 1000)  # of new connections

    async def send(self, node_id: object, request: object, *, group: int = ConnectionGroup.DEFAULT) -> object:
        slow = isinstance(request, (JoinGroupRequest, SyncGroupRequest))
        self._joining += slow
        try:
            connection = await self._client._get_conn(node_id, group=group)
            if connection is not None:
                connection._request_timeout = self._longest if self._joining else self._patience
            answer = await self._send(node_id, request, group=group)
        except RequestTimedOutError:
            self._patience = min(2 * self._patience, self._longest)
            raise
        finally:
            self._joining -= slow
        self._patience = self._shortest
        return answer


class BatchThread(driver.AIOKafkaConsumerThread):
    """The thread that owns the aiokafka consumer. All but `run` runs inside it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._cursors: dict[TopicPartition, Cursor] = {}

    def _create_worker_consumer(self, transport: driver.Transport) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        # Faust fixes 1.5 s; meanwhile a partition that is sought or re-opened waits.
        settings = cast(BatchConsumer, self.consumer).chassis.settings
        consumer._fetch_max_wait_ms = int(settings.fetch_wait * 1000)
        consumer._fetch_max_bytes = settings.answer_bytes
        guard(consumer)
        Answers(consumer._client, settings.answer_timeout, settings.request_timeout).guard()
        return consumer

    async def on_thread_stop(self) -> None:
        """Leave the group if the broker answers; it finds out by itself otherwise.

        In a task of its own: while a broker is away, aiokafka's `stop` lets the CancelledError
        of its fetches escape, and the thread would die without reporting that it is down.
        """
        leaving = asyncio.ensure_future(super().on_thread_stop())
        await asyncio.wait({leaving}, timeout=LEAVE_TIMEOUT)
        if not leaving.done():
            leaving.cancel()
            await asyncio.wait({leaving}, timeout=1.0)
        if not leaving.done() or leaving.cancelled() or leaving.exception() is not None:
            self.log.warning("the broker did not take leave of this member: is it away?")

    async def run(self, step: Coroutine[Any, Any, T], timeout: float) -> T:
        """Run `step` inside the thread, from outside. TimeoutError if the thread does not answer.

        Faust's `call_thread` has two workers only, and waits for ever for a thread that has died.
        """
        future = asyncio.run_coroutine_threadsafe(step, self.thread_loop)
        return await asyncio.wait_for(asyncio.wrap_future(future), timeout)

    async def fetch(self, wanted: Wanted, timeout: float) -> Sequence[Delivery | Loss]:
        consumer = self._ensure_consumer()
        try:
            records = await self._fetch_records(consumer, cast(Any, wanted), timeout, MAX_RECORDS)
        except OffsetOutOfRangeError as error:
            return self._losses(error.args[0])
        if not records:
            return []
        assignment = consumer._subscription.subscription.assignment
        deliveries = []
        for (
            tp,
            got,
        ) in records.items():  # no await since the drain: the position is exactly its end
            cursor = self._cursors.get(cast(TopicPartition, tp))
            if cursor is not None:
                state = assignment.state_value(tp)
                deliveries.append(_delivery(got, cursor, state.position, state.highwater or 0))
                cursor.next = state.position
        return deliveries

    def _losses(self, positions: Mapping[KafkaPartition, int]) -> Sequence[Loss]:
        losses = []
        for at, position in positions.items():
            tp = TopicPartition(*at)
            cursor = self._cursors.get(tp)
            if cursor is not None and cursor.next == position:  # else: sought meanwhile
                del self._cursors[tp]
                losses.append(Loss(tp, cursor.turn, not_in_the_log(tp, position)))
        return losses

    async def move(self, tp: TopicPartition, position: int, turn: int) -> None:
        try:
            self._ensure_consumer().seek(KafkaPartition(*tp), position)
        except IllegalStateError:  # just taken away; the session is about to end
            self._cursors.pop(tp, None)
        else:
            self._cursors[tp] = Cursor(turn, position)

    async def all_topics(self) -> frozenset[str]:
        return frozenset(await self._ensure_consumer().topics())

    async def join(self, topics: frozenset[str]) -> None:
        self._ensure_consumer().subscribe(topics=set(topics), listener=self._rebalance_listener)

    async def commit_offsets(self, offsets: Mapping[KafkaPartition, OffsetAndMetadata]) -> None:
        await self._ensure_consumer().commit(offsets)


def _delivery(
    records: Sequence[ConsumerRecord[bytes, bytes]], cursor: Cursor, position: int, end: int
) -> Delivery:
    first = records[0]
    batch = Batch(
        first.topic,
        first.partition,
        cursor.next,
        position,
        [
            Record(
                r.offset,
                r.timestamp,
                r.key,
                r.value if r.value is not None else b"",
                tuple((name, content or b"") for name, content in r.headers),  # nulls read as empty
            )
            for r in records
        ],
        position < end,
    )
    return Delivery(batch, cursor.turn, sum(max(0, r.serialized_value_size) for r in records))


class KafkaConsumer(BatchConsumer, driver.Consumer):
    """Group member on a Kafka broker; static if the app has an instance id."""

    _thread: BatchThread

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._wanted = Wanted(self)
        self._ahead: asyncio.Future[Sequence[Delivery | Loss]] | None = None

    async def on_stop(self) -> None:
        if self._ahead is not None:
            self._ahead.cancel()
        await super().on_stop()

    def _new_consumer_thread(self) -> BatchThread:
        return BatchThread(self, loop=self.loop, beacon=self.beacon)

    async def fetch(self, timeout: float) -> Sequence[Delivery | Loss]:
        """Return what the fetch under way brings, and have the next one follow it.

        What aiokafka holds for 0.1 s without being asked for makes it fetch the other partitions alone;
        until that is answered, the busy ones wait for up to `fetch_wait`. A result is never lost when
        whoever waits here is cancelled: positions have moved over it.
        """
        ahead = self._ahead or self._ask(timeout)
        self._ahead = ahead
        try:
            fetched = await asyncio.shield(ahead)
        finally:
            if ahead.done():
                self._ahead = None
        self._ahead = self._ask(timeout)
        return fetched

    def _ask(self, timeout: float) -> asyncio.Future[Sequence[Delivery | Loss]]:
        asked = asyncio.ensure_future(self._thread.call_thread(self._thread.fetch, self._wanted, timeout))
        asked.add_done_callback(lambda done: done.cancelled() or done.exception())  # read, or too late to be
        return asked

    async def move(self, tp: TopicPartition, position: int, turn: int) -> None:
        await self._thread.run(self._thread.move(tp, position, turn), self._answer_timeout)

    async def existing_topics(self) -> frozenset[str]:
        try:
            return await self._thread.run(self._thread.all_topics(), self._answer_timeout)
        except (KafkaError, TimeoutError) as error:
            self.log.warning("topics cannot be listed now, asking again: %r", error)
            return self._subscribed

    async def join(self, topics: frozenset[str]) -> None:
        await self._thread.run(self._thread.join(topics), self._answer_timeout)

    async def store_hints(self, positions: Mapping[TopicPartition, int]) -> bool:
        offsets = {KafkaPartition(*tp): OffsetAndMetadata(p, "") for tp, p in positions.items()}
        try:
            await self._thread.run(self._thread.commit_offsets(offsets), HINT_TIMEOUT)
        except (KafkaError, TimeoutError) as error:  # a hint: never a reason to stop
            self.log.warning("offset hint not committed: %r", error)
            return False
        return True

    @property
    def _answer_timeout(self) -> float:
        return self.chassis.settings.request_timeout

    @Service.task
    async def _stay_alive(self) -> None:
        """Count as polling while nothing can be fetched.

        aiokafka leaves the group after `max_poll_interval` without a poll, and joins again only
        on a poll. A stream that is full, or a flow that is stopped, polls neither: without this
        tick the first evicts us, and after any eviction the worker would hang for ever. A handler
        that really hangs is the business of `drain_timeout`, not of the group.
        """
        async for _ in self.itertimer(1.0, name="stay_alive"):
            consumer = self._thread._consumer  # none while the thread is starting
            if consumer is not None:
                consumer._subscription._last_fetch_ended = time.monotonic()


class KafkaTransport(driver.Transport):
    """`kafka://`, with batches."""

    Consumer = KafkaConsumer
