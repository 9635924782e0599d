"""Faust's consumer with batches as messages and positions owned by the handler.

Invariant: this is the only place where Faust's life cycle meets the chassis:
assigned -> `Chassis.begin`, revoked -> `Chassis.end`, fetched -> the stream.
Faust's own bookkeeping (acks, gaps, read and committed offsets, buffered and
paused partitions) is out of play: each method that would act on it is replaced.
"""

from __future__ import annotations

import abc
import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from faust.transport.consumer import Consumer, RecordMap
from faust.types import TP, ConsumerMessage, Message
from mode import Service

from driftline_services.chassis.handler import TopicPartition
from driftline_services.chassis.lanes import Delivery, Loss

if TYPE_CHECKING:
    from driftline_services.chassis.app import ChassisApp


class NothingRead(dict[TP, int | None]):
    """Faust's `_read_offset`, for ever empty.

    `Consumer._drain_messages` drops what lies below the offset it remembers, and
    remembers it only once the message is handed on: after a seek back in that
    moment it would silently drop the repetition. Positions are checked in the lanes.
    """

    def __getitem__(self, key: TP) -> None:
        return None

    def __setitem__(self, key: TP, value: int | None) -> None:
        return None


class BatchConsumer(Consumer):
    """What both transports share. One message is all that a fetch brought: Faust takes its time for each."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._read_offset = NothingRead()
        self.chassis = cast("ChassisApp", self.app).chassis
        self._may_subscribe = asyncio.Event()
        self._subscribed: frozenset[str] = frozenset()
        self._revoked = False

    # -- for the transports ---------------------------------------------------

    @abc.abstractmethod
    async def fetch(self, timeout: float) -> Sequence[Delivery | Loss]:
        """Return what has come for the partitions wanted; waits at most `timeout` seconds.

        A position that is not in the log comes as one `Loss`, and is not fetched again before a `move`.
        """

    @abc.abstractmethod
    async def move(self, tp: TopicPartition, position: int, turn: int) -> None:
        """Fetch `tp` from `position` on, stamping deliveries with `turn`."""

    @abc.abstractmethod
    async def existing_topics(self) -> frozenset[str]:
        """Return the topics the log has now, without creating any."""

    @abc.abstractmethod
    async def join(self, topics: frozenset[str]) -> None:
        """Subscribe the group member to exactly `topics`."""

    @abc.abstractmethod
    async def store_hints(self, positions: Mapping[TopicPartition, int]) -> bool:
        """Commit positions to the group; return whether that worked. Never raises for a broker's sake."""

    # -- records --------------------------------------------------------------

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:
        """Yield at most one message: what one fetch brought.

        Nothing fetched is filtered here, as Faust does by partition and generation:
        the lane knows by the turn what it still wants.
        """
        if not self.flow_active:
            await self.wait(self.can_resume_flow)  # type: ignore[arg-type]
        if self.should_stop or not self.flow_active:
            return
        fetched = await self.fetch(self.chassis.settings.poll_wait)
        if fetched:
            first = fetched[0]
            tp = TP(*(first.tp if isinstance(first, Loss) else first.batch.tp))
            yield tp, self._to_message(tp, fetched)

    def _to_message(self, tp: TP, record: Sequence[Delivery | Loss]) -> ConsumerMessage:
        # a loss goes the way of the records: it must not overtake what was fetched before
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            0,
            0.0,
            0,
            None,  # headers are the records'
            None,
            cast(bytes, record),
            None,
            0,
            sum(each.size for each in record if isinstance(each, Delivery)),
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    def on_buffer_full(self, tp: TP) -> None:
        """Do nothing: Faust would stop fetching `tp` and sleep a second once none is left.

        The lanes say what is fetched, and a full stream blocks the fetch anyhow.
        """

    def on_buffer_drop(self, tp: TP) -> None:
        """Do nothing, like `on_buffer_full`."""

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Do nothing: Faust reports partitions that are idle or held as stuck."""

    # -- assignment -----------------------------------------------------------

    async def perform_seek(self) -> None:
        """Begin a session. Faust calls this after an assignment, just before it resumes the flow.

        It may come late, when the next rebalance has revoked that assignment already.
        """
        if not self._revoked:
            self.chassis.begin((TopicPartition(*tp) for tp in self.assignment()), self.move)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """End the session before the group learns that its partitions are free."""
        self._revoked = True
        self.stop_flow()  # Faust does so only when it finds an assignment; a new subscription has none
        await self.chassis.end()
        await self.commit()
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        self._revoked = False
        await super().on_partitions_assigned(assigned, generation_id)

    async def commit(
        self, topics: object = None, start_new_transaction: bool = True
    ) -> bool:  # replaces Faust's ack bookkeeping
        """Tell the group the durable positions. A hint: it may be late, and it may fail."""
        hints = self.chassis.hints()
        if not hints or self.chassis.error is not None or self.app.crashed:
            return False
        assignment = self.assignment()
        todo = {
            tp: position
            for tp, position in hints.items()
            if TP(*tp) in assignment and position != self._committed_offset.get(TP(*tp))
        }
        if not todo or not await self.store_hints(todo):
            return False
        self._committed_offset.update({TP(*tp): position for tp, position in todo.items()})
        return True

    # -- subscription ---------------------------------------------------------

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Let the member join. Faust's conductor calls this once its services have started.

        Which topics, the chassis knows: they may grow, and need not exist yet.
        """
        self._may_subscribe.set()

    @Service.task
    async def _follow_topics(self) -> None:
        await self._may_subscribe.wait()
        while not self.should_stop:
            self.chassis.topics_changed.clear()
            wanted = self.chassis.topics
            if wanted != self._subscribed:
                topics = wanted & await self.existing_topics()
                if topics != self._subscribed and topics:
                    await self.join(topics)
                    self._subscribed = topics
            await self._topics_may_have_changed(complete=wanted == self._subscribed)

    async def _topics_may_have_changed(self, *, complete: bool) -> None:
        timeout = None if complete else self.chassis.settings.topic_poll_interval
        try:
            await asyncio.wait_for(self.chassis.topics_changed.wait(), timeout)
        except TimeoutError:
            return

    # -- ways around the handler, closed ----------------------------------------

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> RecordMap:
        raise _out_of_play("_getmany")

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        raise _out_of_play("_commit")

    async def seek_to_committed(self) -> Mapping[TP, int]:
        raise _out_of_play("seek_to_committed")

    async def _seek(self, partition: TP, offset: int) -> None:
        raise _out_of_play("seek")

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        raise _out_of_play("seek_wait")

    async def seek_to_beginning(self, *partitions: TP) -> None:
        raise _out_of_play("seek_to_beginning")

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)


def _out_of_play(name: str) -> NotImplementedError:
    return NotImplementedError(f"Consumer.{name}: positions are the handler's; use Flow.seek and Flow.hint")
