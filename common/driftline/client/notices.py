"""Tells a client that tables it reads were rolled back.

Invariant: each restore that shows in the replies to reads is told once per table, whichever
shard shows it first. What a client saw first is its beginning, and no restore.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from driftline.client.restoring import fields_of, manifest_of
from driftline.errors import DriftlineError, RetryError
from driftline.rows.staging import VERSION, SwappedIn
from driftline.versions.manifest import Attachment

if TYPE_CHECKING:
    from driftline.client.aio import AsyncClient

_logger = logging.getLogger(__name__)
_ATTEMPTS, _PAUSE = 5, 0.5


@dataclass(frozen=True, slots=True)
class RolledBack:
    """A table stands at a version again: what was computed from its rows before is void."""

    table: str
    version: str
    mode: str
    epoch: int  # restores of the table so far
    attachments: Mapping[str, Attachment] = field(default_factory=dict)  # the version's dense weights …
    problem: str = ""  # why the attachments are not known


OnRolledBack = Callable[[RolledBack], None]


class Notices:
    """Which epochs a client has seen, and whom it tells."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._told: dict[str, int] = {}  # table -> epoch
        self._lock = threading.Lock()
        self._listeners: list[OnRolledBack] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def listen(self, listener: OnRolledBack) -> None:
        """Have `listener` called in the client's event loop at each rollback from now on."""
        self._listeners.append(listener)

    def news(self, table: str, epochs: Mapping[int, int]) -> int | None:
        """Return the epoch in the reply to a read if it is one that nobody has been told of."""
        if not epochs:
            return None
        newest = max(epochs.values())
        if self._told.get(table) == newest:
            return None
        with self._lock:  # threads read side by side
            known = self._told.setdefault(table, newest)
            if newest <= known:
                return None
            self._told[table] = newest
        return newest

    def tell(self, table: str, epoch: int, shards: int) -> None:
        """Find out what happened, and tell it. In the client's loop."""
        task = asyncio.get_running_loop().create_task(self._tell(table, epoch, shards))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Tell nobody anything any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _tell(self, table: str, epoch: int, shards: int) -> None:
        swapped = await self._swapped(table, shards)
        notice = RolledBack(table, swapped.version, swapped.mode, epoch)
        for attempt in range(_ATTEMPTS):
            try:
                manifest = await manifest_of(self._client, swapped.version)
                notice = RolledBack(table, swapped.version, swapped.mode, epoch, manifest.attachments)
                break
            except DriftlineError as error:
                _logger.warning("attachments of version %s: %s", swapped.version, error)
                notice = RolledBack(table, swapped.version, swapped.mode, epoch, problem=str(error))
                if not isinstance(error, RetryError) or attempt + 1 == _ATTEMPTS:
                    break
                await asyncio.sleep(_PAUSE)
        for listener in list(self._listeners):
            listener(notice)

    async def _swapped(self, table: str, shards: int) -> SwappedIn:
        """Return the newest restore that any shard shows."""
        while True:
            said = [each[0] for each in await fields_of(self._client, table, shards, (VERSION,))]
            found = [SwappedIn.of(each) for each in said if each is not None]
            if found:
                return max(found, key=lambda each: each.op)
            await asyncio.sleep(_PAUSE)
