"""Work on a shard beside its background tasks: it ends when one of them does.

Invariant: nothing awaited through `guard` outlives the loss of the shard, because what it
waits for would never come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable
from typing import Any, TypeVar

from driftline.errors import FenceLostError

_Result = TypeVar("_Result")


class Guarded:
    """The background tasks of a shard's owner, and its loss."""

    def __init__(self) -> None:
        self._lost = asyncio.Event()
        self._loss: BaseException = FenceLostError("not lost")
        self._tasks: list[asyncio.Task[None]] = []

    def lose(self, error: BaseException) -> None:
        """Have `failure` return `error`: not only a commit, also a read or a move finds the fence lost."""
        self._loss = error
        self._lost.set()

    async def failure(self) -> BaseException:
        """Wait until a background task fails and return why."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(iter(done)).exception() or RuntimeError("a background task of the shard ended")

    def _run(self, work: Iterable[Coroutine[Any, Any, None]]) -> None:
        self._tasks = [asyncio.create_task(each) for each in (*work, self._end_by_loss())]

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _end_by_loss(self) -> None:
        await self._lost.wait()
        raise self._loss

    def _check(self) -> None:
        """Raise what ended a background task, if one has ended."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def _guard(self, work: Awaitable[_Result]) -> _Result:
        """Await `work`, or raise what ended a background task meanwhile: waiting for it would hang."""
        main: asyncio.Future[_Result] = asyncio.ensure_future(work)
        try:
            watched: set[asyncio.Future[object]] = {main, *self._tasks}  # type: ignore[arg-type]
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            if not main.done():
                self._check()
            return await main
        finally:
            if not main.done():
                main.cancel()
