"""Blocking work beside the event loop: object stores, sealing.

Invariant: what is begun is awaited by whoever began it, or by `quiet`: a thread that still works
on a shard's delta is never forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

T = TypeVar("T")
THREADS = 8  # most of a seal on local files is waiting for fsync


class Offload(Protocol):
    """Runs blocking work."""

    async def run(self, work: Callable[[], T]) -> T:
        """Return what `work` returns."""

    async def quiet(self) -> None:
        """Return when nothing is at work any more."""


class Threads:
    """Runs blocking work in a few threads."""

    def __init__(self, threads: int = THREADS) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="offload")
        self._working: set[asyncio.Future[object]] = set()

    async def run(self, work: Callable[[], T]) -> T:
        """Return what `work` returns; whoever is cancelled while waiting leaves it running."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        self._working.add(future)  # type: ignore[arg-type]
        future.add_done_callback(self._working.discard)
        return await asyncio.shield(future)

    async def quiet(self) -> None:
        """Return when nothing is at work any more."""
        while self._working:
            await asyncio.wait(self._working)

    def close(self) -> None:
        """Take no more work."""
        self._pool.shutdown(wait=False, cancel_futures=True)
