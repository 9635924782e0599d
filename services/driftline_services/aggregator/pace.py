"""When the next commit starts: at once, unless the log is known to hold more or commits are slow.

Invariant: a commit waits only while nobody waits for it and what it holds is below
`gather_bytes`; for one of two reasons. The fetch has told of records behind those applied:
then never for longer than `gather_for`. Or the last commit was slow, which says that
processors are short: then for as long as that one took, and never for longer than
`rest_for`. A row that changes several times meanwhile is written and published once, and
what a commit costs beside its rows is paid less often just when it is dear.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from driftline_services.aggregator.limits import Limits


class Pace:
    """Wakes the flush of one shard, and holds it while it pays."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._work = asyncio.Event()
        self._behind = False
        self._waiting = 0  # callers that need a commit now
        self._rested = 0.0  # when the next commit may start, by the loop's clock

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

    @asynccontextmanager
    async def commit(self, dirty_bytes: Callable[[], int]) -> AsyncIterator[None]:
        """Wait until a commit is due; it is made within the block."""
        await self._due(dirty_bytes)
        clock = asyncio.get_running_loop().time
        begun = clock()
        yield
        now = clock()
        self._rested = now + min(now - begun, self._limits.rest_for)

    async def _due(self, dirty_bytes: Callable[[], int]) -> None:
        def small() -> bool:
            return not self._waiting and dirty_bytes() < self._limits.gather_bytes

        now = asyncio.get_running_loop().time()
        if self._rested > now:
            await self._wait_while(small, self._rested)
        if self._behind:
            await self._wait_while(lambda: self._behind and small(), now + self._limits.gather_for)

    async def _wait_while(self, condition: Callable[[], bool], until: float) -> None:
        try:
            async with asyncio.timeout_at(until):
                while condition():
                    await self._work.wait()
                    self._work.clear()
        except TimeoutError:
            return
