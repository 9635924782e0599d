"""The chassis without Faust: sessions, lanes, hints and what the handler may ask for.

Invariant: at most one session is alive; the handler sees load, apply* and
release strictly in that order for each, whatever the transport reports and in
whatever order. The first error wins and is reported once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping

from driftline.errors import StateError
from driftline_services.chassis.handler import Handler, TopicPartition
from driftline_services.chassis.lanes import Budget, Delivery, Lane, LaneLimits, Loss, Mover
from driftline_services.chassis.session import Session
from driftline_services.chassis.settings import ChassisSettings

logger = logging.getLogger(__name__)


class Chassis:
    """Owns the current session; implements `handler.Flow`."""

    def __init__(self, handler: Handler, topics: Iterable[str], settings: ChassisSettings) -> None:
        self.settings = settings
        self.budget = Budget(settings.buffer_bytes)
        self.error: BaseException | None = None
        self._handler = handler
        self._topics = set(topics)
        self.topics_changed = asyncio.Event()
        self._session: Session | None = None
        self._beginning: asyncio.Task[None] | None = None
        self._hints: dict[TopicPartition, int] = {}
        self._end_lock = asyncio.Lock()
        self._on_error: list[Callable[[BaseException], None]] = []
        handler.bind(self)

    # -- topics ---------------------------------------------------------------

    @property
    def topics(self) -> frozenset[str]:
        """Topics wanted; those that do not exist yet are subscribed once they do."""
        return frozenset(self._topics)

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Add topics to the subscription, now or while the worker runs.

        Returns at once; the group rebalances when the topics exist.
        """
        if not self._topics.issuperset(added := frozenset(topics)):
            self._topics |= added
            self.topics_changed.set()

    # -- what the transport reports -------------------------------------------

    def begin(self, partitions: Iterable[TopicPartition], move: Mover) -> None:
        """Start a session for an assignment; returns before the handler has loaded."""
        if self.error is not None:
            return
        partitions = frozenset(partitions)
        if self._session is not None:
            if self._session.partitions == partitions:
                return  # Faust may ask twice when one rebalance follows on another
            self.fail(StateError("partitions were assigned before the last ones were revoked; restart"))
            return
        self._hints.clear()
        limits = LaneLimits(batches=self.settings.lane_batches, bytes=self.settings.lane_bytes)
        lanes = {
            tp: Lane(
                tp,
                apply=self._handler.apply,
                lost=self._handler.lost,
                move=move,
                budget=self.budget,
                limits=limits,
                fatal=self.fail,
            )
            for tp in partitions
        }
        logger.info("assigned %d partitions of %s", len(lanes), sorted({tp.topic for tp in lanes}))
        self._session = Session(lanes, self._handler, self.settings.drain_timeout)
        self._beginning = asyncio.create_task(self._guard(self._session.begin()), name="begin")

    async def end(self) -> None:
        """End the session, if one is alive; returns when its partitions are released."""
        async with self._end_lock:
            session = self._session
            if session is None:
                return
            if self.error is None:
                await self._guard(session.end())
            if self.error is None:
                logger.info("released %d partitions", len(session.lanes))
            else:
                await session.abort()
            self._session = None

    def wanting(self, tp: TopicPartition) -> bool:
        """Whether records of `tp` should be fetched now; safe to call from another thread."""
        session = self._session
        lane = session.lanes.get(tp) if session is not None else None
        return lane is not None and lane.wanting

    def wanted(self) -> frozenset[TopicPartition]:
        session = self._session
        return frozenset(tp for tp, lane in session.lanes.items() if lane.wanting) if session else frozenset()

    async def deliver(self, delivery: Delivery) -> None:
        """Hand a batch to its lane; waits while too much is queued over all of them."""
        await self.budget.room()
        lane = self._lane(delivery.batch.tp)
        if lane is not None:
            lane.put(delivery)

    def lose(self, loss: Loss) -> None:
        """Have the handler learn, in its turn, that a position is not in the log any more."""
        lane = self._lane(loss.tp)
        if lane is not None:
            lane.lose(loss)

    def hints(self) -> Mapping[TopicPartition, int]:
        """Durable positions, as far as the handler has told."""
        return dict(self._hints)

    def on_error(self, report: Callable[[BaseException], None]) -> None:
        """Call `report` with the error that stops the worker, once."""
        self._on_error.append(report)

    def fail(self, error: BaseException) -> None:
        if self.error is None:
            self.error = error
            for report in self._on_error:
                report(error)

    async def _guard(self, step: Awaitable[None]) -> None:
        try:
            await step
        except Exception as error:  # noqa: BLE001 - whatever it is, it stops the worker
            self.fail(error)

    # -- Flow -----------------------------------------------------------------

    def hint(self, tp: TopicPartition, position: int) -> None:
        if self._lane(tp) is not None:
            self._hints[TopicPartition(*tp)] = position

    def seek(self, tp: TopicPartition, position: int) -> asyncio.Future[None]:
        lane = self._lane(tp)
        return lane.seek(position) if lane is not None else _done()

    def hold(self, tp: TopicPartition) -> asyncio.Future[None]:
        lane = self._lane(tp)
        return lane.hold() if lane is not None else _done()

    def resume(self, tp: TopicPartition, position: int) -> asyncio.Future[None]:
        lane = self._lane(tp)
        return lane.resume(position) if lane is not None else _done()

    def crash(self, error: BaseException) -> None:
        self.fail(error)

    def _lane(self, tp: TopicPartition) -> Lane | None:
        return self._session.lanes.get(tp) if self._session is not None else None


def _done() -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_result(None)
    return future
