"""An asyncio event loop in virtual time.

Invariant: one thread, no real waiting, no order that depends on memory addresses:
time jumps to the next timer, and tasks and futures hash by the order in which they
were made, so a set of them iterates alike in every run. When nothing is scheduled
and the main task is not done, that is a `DeadlockError`, not a hang. Sets of str
or bytes are the one thing left to PYTHONHASHSEED.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

ADOPT: ContextVar[Callable[[asyncio.Task[Any]], None] | None] = ContextVar("adopt", default=None)
"""Told of every task made in this context: how a process comes to own its tasks."""


class DeadlockError(AssertionError):
    """Every task waits and no timer is set: nothing could ever happen again."""


class RunawayError(AssertionError):
    """The virtual time or the number of turns allowed is used up: a livelock, or a test too long."""


class _Task(asyncio.Task[T]):
    def __init__(
        self, number: int, coro: Coroutine[Any, Any, T], loop: VirtualLoop, context: Context | None
    ) -> None:
        self._number = number
        super().__init__(coro, loop=loop, context=context)

    def __hash__(self) -> int:
        return self._number


class _Future(asyncio.Future[T]):
    def __init__(self, number: int, loop: VirtualLoop) -> None:
        self._number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._number


class _Clockwork:
    """Stands where the loop expects a selector: waiting for I/O is moving the clock."""

    def __init__(self, horizon: float, turns: int) -> None:
        self.now = 0.0
        self._horizon = horizon
        self._turns = turns

    def select(self, timeout: float | None) -> list[object]:
        if timeout is None:
            raise DeadlockError(f"nothing is scheduled at {self.now:.6f} s")
        self.now += max(timeout, 0.0)
        self._turns -= 1
        if self.now > self._horizon:
            raise RunawayError(f"still running after {self._horizon} virtual seconds")
        if self._turns < 0:
            raise RunawayError(f"still running after all turns of the loop, at {self.now:.6f} s")
        return []

    def allow(self, seconds: float, turns: int) -> None:
        """Set the limits anew, from now."""
        self._horizon = self.now + seconds
        self._turns = turns

    def close(self) -> None:
        """A loop closes its selector; there is nothing to release."""


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop whose `time()` starts at 0 and moves only when all tasks wait."""

    def __init__(self, *, horizon: float = 3600.0, turns: int = 2_000_000) -> None:
        super().__init__()
        self._selector = _Clockwork(horizon, turns)
        self._numbers = itertools.count(1)
        self.set_task_factory(_make_task)

    def time(self) -> float:
        return self._selector.now

    def allow(self, seconds: float, turns: int) -> None:
        """Limit the run to so many virtual seconds and turns of the loop, from now."""
        self._selector.allow(seconds, turns)

    def number(self) -> int:
        return next(self._numbers)

    def create_future(self) -> asyncio.Future[Any]:
        return _Future(self.number(), self)

    def run_in_executor(self, executor: object, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Call at once, in the one thread there is: a simulated world has no others."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  # as an executor does: it is raised where awaited
            future.set_exception(error)
        return future

    # What BaseEventLoop asks of its selector-based children.
    def _process_events(self, event_list: list[object]) -> None:
        """No events come from outside."""

    def _write_to_self(self) -> None:
        """Nobody has to be woken from another thread."""


def _make_task(
    loop: asyncio.AbstractEventLoop,
    coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
    context: Context | None = None,
    **options: Any,
) -> asyncio.Task[T]:
    assert isinstance(loop, VirtualLoop)
    assert asyncio.iscoroutine(coro)
    name = options.get("name")
    task = _Task(loop.number(), coro, loop, context)
    if name is not None:
        task.set_name(name)
    adopt = context.get(ADOPT) if context is not None else ADOPT.get()
    if adopt is not None:
        adopt(task)
    return task


def run_until_done(loop: VirtualLoop, main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end on `loop`, then cancel whatever it left behind and close the loop."""
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(main)
    finally:
        try:
            loop.allow(seconds=600.0, turns=100_000)
            left = sorted(asyncio.all_tasks(loop), key=hash)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.wait(left, timeout=60.0))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()
