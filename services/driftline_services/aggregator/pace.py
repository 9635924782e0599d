"""When the next commit starts: at once, unless the log is known to hold more.

Invariant: a commit waits only while the fetch has told of records behind those
applied, nobody waits for it, and what it holds is below `gather_bytes`; and never for
longer than `gather_for`. A row that changes several times meanwhile is written and
published once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from driftline_services.aggregator.limits import Limits


class Pace:
    """Wakes the flush of one shard, and holds it while it pays."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._work = asyncio.Event()
        self._behind = False
        self._waiting = 0  # callers that need a commit now

    def applied(self, *, behind: bool) -> None:
        """There is something to commit, and, if `behind`, more in the log."""
        self._behind = behind
        self._work.set()

    def wake(self) -> None:
        """Look again whether there is something to do."""
        self._work.set()

    @contextmanager
    def hurried(self) -> Iterator[None]:
        """Start commits at once within the block."""
        self._waiting += 1
        self._work.set()
        try:
            yield
        finally:
            self._waiting -= 1

    async def work(self, timeout: float) -> bool:
        """Wait until there may be something to do; False if there was nothing for `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._work.wait()
        except TimeoutError:
            return False
        self._work.clear()
        return True

    async def gather(self, dirty_bytes: Callable[[], int]) -> None:
        """Return when a commit is due."""
        try:
            async with asyncio.timeout(self._limits.gather_for):
                while self._behind and not self._waiting and dirty_bytes() < self._limits.gather_bytes:
                    await self._work.wait()
                    self._work.clear()
        except TimeoutError:
            return
