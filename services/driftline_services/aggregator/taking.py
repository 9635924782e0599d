"""Takes shards over: finds where each lives, becomes its owner, starts its runner.

Invariant: each takeover has an owner token of its own, so a shard taken twice by one
worker is fenced against itself.
"""

from __future__ import annotations

import logging
import uuid

from driftline.errors import FenceLostError
from driftline.frames.headers import Keyring
from driftline.log import Log
from driftline.rows.shard_store import ShardStore
from driftline.rows.source import VersionSource
from driftline_services.aggregator.limits import Limits
from driftline_services.aggregator.moving import Homes
from driftline_services.aggregator.runner import ShardRunner

_logger = logging.getLogger(__name__)


class Taker:
    """Takes shards over for one worker."""

    def __init__(
        self, log: Log, keyring: Keyring, homes: Homes, versions: VersionSource | None = None
    ) -> None:
        self._log, self._keyring, self._homes, self._versions = log, keyring, homes, versions
        self._name = uuid.uuid4().hex
        self._takeovers = 0
        self.under_way: dict[tuple[str, int], ShardStore] = {}  # (table, shard): waiting for their server

    def took(self, owner: bytes) -> bool:
        """Tell whether `owner` is a token of this worker."""
        return owner.startswith(self._name.encode())

    async def take(self, table: str, shard: int, limits: Limits) -> tuple[ShardRunner, int]:
        """Return the shard's runner, started, and the offset to read from. Raises StateError."""
        try:
            return await self._take(table, shard, limits)
        finally:
            self.under_way.pop((table, shard), None)

    async def _take(self, table: str, shard: int, limits: Limits) -> tuple[ShardRunner, int]:
        while True:
            self._takeovers += 1
            owner = f"{self._name}:{self._takeovers}".encode()
            store = self.under_way[table, shard] = await self._homes.settle(table, shard, owner)
            runner = ShardRunner(
                table,
                shard,
                store=store,
                log=self._log,
                keyring=self._keyring,
                limits=limits,
                move=self._homes.move,
                versions=self._versions,
            )
            try:
                return runner, await runner.start()
            except FenceLostError as error:  # it has just moved on
                await runner.close()
                _logger.info("shard %s:%d: %s", table, shard, error)
            except BaseException:
                await runner.close()
                raise
