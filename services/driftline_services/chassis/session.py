"""One assignment, from load to release.

Invariant: `load` comes first, `release` last, and no apply overlaps either. A
session that cannot end in time, or whose load or apply failed, stops the worker
without a release: what was not durable is applied again by the next owner.
"""

from __future__ import annotations

import asyncio

from driftline.errors import TimedOutError
from driftline_services.chassis.handler import Handler, TopicPartition
from driftline_services.chassis.lanes import Lane


class Session:
    """The lanes of the partitions assigned now."""

    def __init__(self, lanes: dict[TopicPartition, Lane], handler: Handler, drain_timeout: float) -> None:
        self.lanes = lanes
        self._handler = handler
        self._drain_timeout = drain_timeout
        self._ending = False
        self._loading: asyncio.Task[None] | None = None

    @property
    def partitions(self) -> frozenset[TopicPartition]:
        return frozenset(self.lanes)

    async def begin(self) -> None:
        """Load, then let the lanes run. Raises what `Handler.load` raises."""
        self._loading = asyncio.create_task(self._load(), name="load")
        # shielded: Faust gives up on a slow load after a request time-out and goes on without it
        await asyncio.shield(self._loading)

    async def _load(self) -> None:
        positions = await self._handler.load(self.partitions)
        if self._ending:
            return
        for tp, position in positions.items():
            lane = self.lanes.get(TopicPartition(*tp))
            if lane is not None:
                lane.resume(position)

    async def end(self) -> None:
        """Stop applying, then have the handler make everything durable.

        Raises TimedOutError when an apply, the load or the release does not end in time.
        """
        self._ending = True
        try:
            async with asyncio.timeout(self._drain_timeout):
                loaded = await self._quiet()
                if loaded:
                    await self._handler.release(self.partitions)
        except TimeoutError:
            names = ", ".join(f"{tp.topic}/{tp.partition}" for tp in sorted(self.lanes))
            raise TimedOutError(
                f"{names}: still busy {self._drain_timeout} s after the partitions had to be released; "
                "the worker stops, nothing is lost"
            ) from None

    async def abort(self) -> None:
        """Cancel whatever is in hand: only for a worker that has crashed."""
        self._ending = True
        tasks = [lane.abort() for lane in self.lanes.values()]
        if self._loading is not None:
            self._loading.cancel()
            tasks.append(self._loading)
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)

    async def _quiet(self) -> bool:
        loaded = False
        if self._loading is not None:
            await asyncio.wait({self._loading})
            loaded = not self._loading.cancelled() and self._loading.exception() is None
        if self.lanes:
            await asyncio.gather(*(lane.end() for lane in self.lanes.values()))
        return loaded
