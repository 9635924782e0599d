"""A bound on bytes in flight, first come first served.

Invariant: the sum of what is taken never exceeds the limit, but for a single taker
that alone is larger than it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Budget:
    """Bytes that may be in flight together; for one event loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def taken(self) -> int:
        """Bytes taken now."""
        return self._taken

    @asynccontextmanager
    async def take(self, size: int) -> AsyncIterator[None]:
        """Hold `size` bytes of the budget, waiting in line until they fit."""
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((size, granted))
        self._grant()
        try:
            await granted
            yield
        finally:
            if granted.cancelled():
                self._queue = deque(entry for entry in self._queue if entry[1] is not granted)
            else:
                self._taken -= size
            self._grant()

    def _grant(self) -> None:
        while self._queue and (self._taken == 0 or self._taken + self._queue[0][0] <= self._limit):
            size, granted = self._queue.popleft()
            if not granted.cancelled():
                self._taken += size
                granted.set_result(None)
