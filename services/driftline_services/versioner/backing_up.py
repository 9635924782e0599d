"""Takes the backups of an instance's shards and tells which it holds.

Invariant: under `lock` nothing is dropped or merged but by whoever holds it, so what is sealed on a
backup, or read from one, stays there meanwhile. A backup that fails holds up nothing.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Iterable

from driftline.control import BackupsHeld, BackupTaken
from driftline.errors import DriftlineError
from driftline.versions import PartManifest
from driftline_services.chassis.announcing import Announcer
from driftline_services.chassis.offload import Offload
from driftline_services.versioner.backups import Backup, Backups
from driftline_services.versioner.places import shards_of
from driftline_services.versioner.shards import Cut, ShardState
from driftline_services.versioner.works import Shard

_logger = logging.getLogger(__name__)


class BackupTaker:
    """Takes backups; `instance` is who says so."""

    def __init__(self, backups: Backups, offload: Offload, announcer: Announcer, instance: str) -> None:
        self._backups, self._offload = backups, offload
        self._announcer, self._instance = announcer, instance
        self._statements = 0
        self.lock = asyncio.Lock()

    async def take(self, state: ShardState, cut: Cut, mine: frozenset[Shard]) -> None:
        """Take the backup of one shard; with the last of `mine`, those that the cut goes through, tell it."""
        shard = state.table, state.shard
        async with self.lock:
            before = self._backups.current(shard, state.backup_op)
            if before is None:
                state.forget_backup()
            try:
                base = before
                if base is None and state.base is not None:
                    base = await self._offload.run(functools.partial(self._backups.base, state))
                part = await self._offload.run(functools.partial(self._seal, state, cut, base))
            except DriftlineError as error:  # a version would say so too: training and versions go on
                _logger.error("backup %d of %s:%d: %s", cut.op, *shard, error)
                state.passed(cut.op)
                return
            self._backups.add(shard, cut.op, cut.place.number("time"), base, part)
            state.backed_up(cut)
            state.passed(cut.op)
            backup = self._backups.find(cut.op)
            if backup is not None and backup.parts.keys() >= mine:
                await self._taken(backup, mine)

    async def give_up(self, doubted: Callable[[Iterable[int]], list[int]], shards: Iterable[Shard]) -> None:
        """Forget the backups that are called into doubt, and tell what is held then."""
        async with self.lock:
            gone = doubted([each.op for each in self._backups])
            if not gone:
                return
            self._backups.give_up(gone)
            await self.state(shards)

    async def state(self, shards: Iterable[Shard]) -> None:
        """Tell which backups are held, and of which shards."""
        self._statements += 1
        held = BackupsHeld(self._instance, self._statements, shards_of(shards), self._backups.facts())
        await self._announcer.tell(held)

    def _seal(self, state: ShardState, cut: Cut, base: PartManifest | None) -> PartManifest:
        shard, shape = (state.table, state.shard), (state.dim, state.state_size)
        return self._backups.seal(shard, cut.op, shape, base, state.changes_since_backup(), cut.place)

    async def _taken(self, backup: Backup, mine: frozenset[Shard]) -> None:
        self._backups.taken += 1
        size = sum(ref.ref.size for own in backup.own.values() for ref in own)
        shards = shards_of(backup.parts)
        self._backups.trim()
        held = self._backups.find(backup.op) is not None
        await self._announcer.tell(BackupTaken(backup.op, self._instance, shards, held, size))
        await self.state(mine)
