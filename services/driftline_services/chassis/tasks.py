"""What an instance does beside taking in records: waiting for stores and logs, settling cuts.

Invariant: what can pass is tried until it has, and what holds it up is said in `waiting`; what
cannot is not swallowed: it goes to `crash`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from driftline.errors import DriftlineError, StateError

T = TypeVar("T")
BACK_OFF = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Seconds between attempts."""
_logger = logging.getLogger(__name__)


class Tasks:
    """The tasks of one instance; they end with its assignment."""

    def __init__(self, crash: Callable[[BaseException], None]) -> None:
        self._crash = crash
        self._tasks: set[asyncio.Task[None]] = set()
        self.waiting = ""  # what is tried again, and why

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Begin a task and return it."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def stop(self) -> None:
        """Cancel all tasks and return when they have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def patiently(self, what: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return what `attempt` returns, tried until it does not fail; what holds it up is said."""
        for number in range(1 << 62):
            try:
                result = await attempt()
            except DriftlineError as error:
                self.waiting = f"{what}: {error}"
                _logger.warning("%s", self.waiting)
                await asyncio.sleep(BACK_OFF[min(number, len(BACK_OFF) - 1)])
            else:
                self.waiting = ""
                return result
        raise StateError(what)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._crash(error)
