"""Waiting for news: one small polling task per event loop, however many wait.

Invariant: a waiter wakes within a few milliseconds of a head passing its offset, and
within `REFRESH_S` of a commit whose writer died before it could raise the head. Heads
are polled rather than signalled: shared memory has no wake-up that works across
processes and event loops, and a look at 32 heads costs about 3 µs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from driftline.errors import DriftlineError
from driftline.log.local.heads import Heads

POLL_S = (0.001, 0.004)
"""Pause between two looks: right after news, and when nothing has come for long."""

IDLE_SHARE = 1 / 100
"""The pause grows to this share of the idle time, within `POLL_S`."""

REFRESH_S = 0.1
"""How often the heads that are waited for are compared with SQLite."""

Refresh = Callable[[str, tuple[int, ...]], Awaitable[None]]
"""Bring the heads of (topic, partitions) up to what SQLite holds."""


@dataclass(eq=False, slots=True)
class _Waiter:
    topic: str
    heads: Heads
    positions: Mapping[int, int]  # partition -> offset already known
    future: asyncio.Future[None] = field(repr=False)

    def has_news(self) -> bool:
        get = self.heads.get
        return any(get(partition) > offset for partition, offset in self.positions.items())


class Watch:
    """All waiters of one event loop."""

    def __init__(self, refresh: Refresh) -> None:
        self._refresh = refresh
        self._waiters: set[_Waiter] = set()
        self._poller: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._last_news = 0.0
        self._next_refresh = 0.0
        self._closed = False

    async def news(self, topic: str, heads: Heads, positions: Mapping[int, int], wait: float) -> bool:
        """Return True once a head is past its offset in `positions`, False after `wait` seconds.

        Raises LogUnavailableError when the partitions cannot be read any more.
        """
        waiter = _Waiter(topic, heads, positions, asyncio.get_running_loop().create_future())
        if waiter.has_news():
            self._last_news = time.monotonic()
            return True
        if wait <= 0:
            return False
        self._waiters.add(waiter)
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())
        try:
            await asyncio.wait({waiter.future}, timeout=wait)
            if not waiter.future.done():
                return False
            waiter.future.result()
            return True
        finally:
            self._waiters.discard(waiter)
            waiter.future.cancel()

    def close(self) -> None:
        """Wake everybody, without news, and stop polling at the next look; callable from any thread."""
        self._closed = True

    async def _poll(self) -> None:
        shortest, longest = POLL_S
        while self._waiters:
            now = time.monotonic()
            for waiter in [waiter for waiter in self._waiters if self._closed or waiter.has_news()]:
                self._last_news = now
                self._waiters.discard(waiter)
                if not waiter.future.done():
                    waiter.future.set_result(None)
            if (
                self._waiters
                and now >= self._next_refresh
                and (self._refreshing is None or self._refreshing.done())
            ):
                self._next_refresh = now + REFRESH_S
                self._refreshing = asyncio.create_task(self._refresh_waited())
            await asyncio.sleep(min(max((now - self._last_news) * IDLE_SHARE, shortest), longest))

    async def _refresh_waited(self) -> None:
        waited: dict[str, set[int]] = {}
        for waiter in self._waiters:
            waited.setdefault(waiter.topic, set()).update(waiter.positions)
        for topic, partitions in waited.items():
            try:
                await self._refresh(topic, tuple(sorted(partitions)))
            except DriftlineError as error:  # handed to those who wait for this topic
                for waiter in [waiter for waiter in self._waiters if waiter.topic == topic]:
                    self._waiters.discard(waiter)
                    if not waiter.future.done():
                        waiter.future.set_exception(error)
