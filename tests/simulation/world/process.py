"""A process that can be killed or frozen while it works.

Invariant: after `kill` nothing the process attempts has an effect, and each
attempt raises. What it had under way may still arrive or not, by the seed. While
frozen it neither sends nor hears an answer; what it had sent is done all the same,
so that after `thaw` it acts on a world that has moved on (a zombie).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any, TypeVar

from tests.simulation.world.loop import ADOPT
from tests.simulation.world.schedule import Trace

T = TypeVar("T")


class ProcessKilledError(asyncio.CancelledError):
    """A dead process tried to act. A cancellation, so that no `except Exception` retries it."""


class Process:
    """Tasks that live and die together, and the only door through which they reach the world."""

    def __init__(self, name: str, trace: Trace) -> None:
        self.name = name
        self._trace = trace
        self._alive = True
        self._thawed: asyncio.Future[None] | None = None
        self._tasks: list[asyncio.Task[Any]] = []

    @property
    def alive(self) -> bool:
        return self._alive

    @property
    def frozen(self) -> bool:
        return self._thawed is not None

    def spawn(self, coro: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
        """Start a task of this process; tasks that it starts in turn belong to the process too."""
        if not self._alive:
            coro.close()
            raise ProcessKilledError(f"{self.name} is dead")
        context = copy_context()
        context.run(ADOPT.set, self._adopt)
        loop = asyncio.get_running_loop()
        return loop.create_task(coro, name=name or self.name, context=context)

    def _adopt(self, task: asyncio.Task[Any]) -> None:
        self._tasks = [known for known in self._tasks if not known.done()]
        self._tasks.append(task)
        if not self._alive:
            task.cancel()

    def kill(self) -> None:
        """End the process as kill -9 does: no clean-up of its own reaches the world."""
        if not self._alive:
            return
        self._trace(self.name, "killed")
        self._alive = False
        for task in self._tasks:
            task.cancel()
        if self._thawed is not None and not self._thawed.done():
            self._thawed.set_result(None)
        self._thawed = None

    def freeze(self) -> None:
        """Stop all traffic of the process, as SIGSTOP or a long pause does."""
        if self._alive and self._thawed is None:
            self._trace(self.name, "frozen")
            self._thawed = asyncio.get_running_loop().create_future()

    def thaw(self) -> None:
        if self._thawed is not None:
            self._trace(self.name, "thawed")
            self._thawed.set_result(None)
            self._thawed = None

    async def pass_door(self) -> None:
        """Wait until the process runs; raise ProcessKilledError when it is dead."""
        while self._thawed is not None:
            await asyncio.shield(self._thawed)
        self.check()

    def check(self) -> None:
        if not self._alive:
            raise ProcessKilledError(f"{self.name} is dead")

    async def outcome(self, future: asyncio.Future[T], abandoned: Callable[[], None]) -> T:
        """Wait for the answer to something sent, as long as the process is there to hear it.

        `abandoned` is called when nobody waits any more: the task was cancelled, the process killed.
        """
        try:
            try:
                answer = await future
            except Exception:
                await self.pass_door()
                raise
            await self.pass_door()
            return answer
        except asyncio.CancelledError:
            abandoned()
            raise
