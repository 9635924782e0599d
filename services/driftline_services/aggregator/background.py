"""The background tasks of one runner, and how not to wait for what a dead one owes.

Invariant: whoever waits by `guard` is woken by the end of any task, with what ended it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import TypeVar

_Result = TypeVar("_Result")


class Background:
    """Tasks that run until `close`, unless one fails."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, *work: Coroutine[None, None, None]) -> None:
        """Begin `work`, none of which is to return."""
        self._tasks = [asyncio.create_task(each) for each in work]

    def check(self) -> None:
        """Raise what ended a task, if one has ended."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def guard(self, work: Awaitable[_Result]) -> _Result:
        """Await `work`, or raise what ended a task meanwhile: waiting for it would hang."""
        main: asyncio.Future[_Result] = asyncio.ensure_future(work)
        try:
            watched: set[asyncio.Future[object]] = {main, *self._tasks}  # type: ignore[arg-type]
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            if not main.done():
                self.check()
            return await main
        finally:
            if not main.done():
                main.cancel()

    async def failure(self) -> BaseException:
        """Wait until a task fails and return why."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(iter(done)).exception() or RuntimeError("a background task of the shard ended")

    async def close(self) -> None:
        """Stop all of them at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
