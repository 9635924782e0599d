"""One lane per partition: a bounded queue, and the one task that applies from it.

Invariant: within a lane everything happens one after the other: an apply never
overlaps another, a seek, a hold or the end. Each seek starts a new *turn*;
records fetched for an earlier turn are refused, and within a turn the batches
must chain (`start` = previous `next`), or the worker stops.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from driftline.errors import PositionError
from driftline_services.chassis.handler import Batch, TopicPartition

TURNS = itertools.count(1)
"""Unique in the process, so that no delivery can be taken for one of another assignment."""

Mover = Callable[[TopicPartition, int, int], Awaitable[None]]
"""Makes the transport fetch (partition, from position, stamped with turn)."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A batch on its way from the fetch to its lane."""

    batch: Batch
    turn: int
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class Loss:
    """In place of a batch: the log does not hold the position that comes next."""

    tp: TopicPartition
    turn: int
    error: PositionError


def not_in_the_log(
    tp: TopicPartition, position: int, detail: str = "truncated, recreated, or expired"
) -> PositionError:
    """Return the error for a position that the log does not hold."""
    return PositionError(
        f"{tp.topic}/{tp.partition}: position {position} is not in the log ({detail}); "
        "it is never reset by itself: see `driftline table relog`"
    )


class Budget:
    """Bytes queued over all lanes, with someone waiting while they are too many."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._freed = asyncio.Event()
        self._freed.set()

    @property
    def used(self) -> int:
        return self._used

    def take(self, size: int) -> None:
        self._used += size
        if self._used >= self._limit:
            self._freed.clear()

    def give(self, size: int) -> None:
        self._used -= size
        if self._used < self._limit:
            self._freed.set()

    async def room(self) -> None:
        """Return once less than the limit is queued."""
        await self._freed.wait()


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """What one lane queues before its partition is no longer fetched."""

    batches: int
    bytes: int


class Lane:
    """Queue and task of one partition during one assignment; held until `resume`."""

    def __init__(
        self,
        tp: TopicPartition,
        *,
        apply: Callable[[Batch], Awaitable[None]],
        lost: Callable[[TopicPartition, PositionError], Awaitable[None]],
        move: Mover,
        budget: Budget,
        limits: LaneLimits,
        fatal: Callable[[BaseException], None],
    ) -> None:
        self.tp = tp
        self._apply = apply
        self._lost = lost
        self._move = move
        self._budget = budget
        self._limits = limits
        self._fatal = fatal
        self._queue: deque[Delivery] = deque()
        self._loss: PositionError | None = None  # comes behind what is queued
        self._queued = 0  # bytes, the batch in hand included
        self._turn: int | None = None
        self._expected = 0
        self._target: int | None = None  # position a seek or resume asked for, not yet carried out
        self._held = True
        self._closed = False
        self._moved = False
        self._wake = asyncio.Event()
        self._waiters: list[asyncio.Future[None]] = []
        self._task = asyncio.create_task(self._run(), name=f"lane {tp.topic}/{tp.partition}")

    @property
    def wanting(self) -> bool:
        """Whether more should be fetched. Plain reads only: the consumer's thread asks too."""
        return (
            self._moved
            and not self._held
            and not self._closed
            and len(self._queue) < self._limits.batches
            and self._queued < self._limits.bytes
        )

    def put(self, delivery: Delivery) -> None:
        """Queue a batch; refused when the lane has moved on since it was fetched."""
        if delivery.turn != self._turn or self._closed:
            return
        if delivery.batch.start != self._expected:
            self._fatal(
                PositionError(
                    f"{self.tp.topic}/{self.tp.partition}: expected position {self._expected} but the next "
                    f"batch starts at {delivery.batch.start}; restart the worker, it resumes from its store"
                )
            )
            return
        self._expected = delivery.batch.next
        self._queue.append(delivery)
        self._queued += delivery.size
        self._budget.take(delivery.size)
        self._wake.set()

    def lose(self, loss: Loss) -> None:
        """Report a loss behind what is queued; refused when the lane has moved on."""
        if loss.turn == self._turn and not self._closed:
            self._loss = loss.error
            self._wake.set()

    def seek(self, position: int) -> asyncio.Future[None]:
        self._drop()
        self._target = None if self._held else position  # a held lane gets its position from resume
        return self._settled()

    def hold(self) -> asyncio.Future[None]:
        self._drop()
        self._held, self._target = True, None
        return self._settled()

    def resume(self, position: int) -> asyncio.Future[None]:
        self._held = False
        return self.seek(position)

    async def end(self) -> None:
        """Apply nothing more, and return when no apply is in hand."""
        self._closed = True
        self._drop()
        self._wake.set()
        await asyncio.wait({self._task})

    def abort(self) -> asyncio.Task[None]:
        """Cancel the apply in hand, for a worker that has crashed, and return the task to wait for."""
        self._closed = True
        self._drop()
        self._task.cancel()
        return self._task

    def _drop(self) -> None:
        self._turn, self._moved, self._loss = None, False, None
        size = sum(delivery.size for delivery in self._queue)
        self._queue.clear()
        self._refund(size)

    def _refund(self, size: int) -> None:
        self._queued -= size
        self._budget.give(size)

    def _settled(self) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._task.done():
            future.set_result(None)
        else:
            self._waiters.append(future)
            self._wake.set()
        return future

    async def _run(self) -> None:
        try:
            while not self._closed:
                self._wake.clear()
                await self._carry_out_seek()
                if self._target is None:
                    self._settle()
                if self._queue:
                    await self._apply_next()
                elif self._loss is not None:
                    await self._report_loss(self._loss)
                elif not self._wake.is_set():
                    await self._wake.wait()
        except Exception as error:  # noqa: BLE001 - whatever it is, it stops the worker
            self._closed = True
            self._drop()
            self._fatal(error)
        finally:
            self._settle()

    async def _carry_out_seek(self) -> None:
        if self._target is None or self._held:
            return
        position, self._target = self._target, None
        turn = next(TURNS)
        self._turn, self._expected = turn, position
        try:
            await self._move(self.tp, position, turn)
        except PositionError as error:
            self.lose(Loss(self.tp, turn, error))
        else:
            self._moved = self._turn == turn  # a newer seek may have come in the meantime

    async def _apply_next(self) -> None:
        delivery = self._queue.popleft()
        self._wake.set()  # look again afterwards, whatever comes
        try:
            await self._apply(delivery.batch)
        finally:
            self._refund(delivery.size)

    async def _report_loss(self, error: PositionError) -> None:
        self._drop()
        self._held = True
        await self._lost(self.tp, error)

    def _settle(self) -> None:
        waiters, self._waiters = self._waiters, []
        for future in waiters:
            if not future.done():
                future.set_result(None)
