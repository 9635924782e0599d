"""Keeps the copies of deployed versions in Redis as the object store says they shall be.

Invariant: the register in the object store is the truth, Redis a copy of it that its shards'
owners mend: after a restart, a failover, a move or an emptied Redis it is loaded again. A
deployment that cannot be loaded is said, and does not touch the live rows.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping

from driftline.errors import ConfigError, DriftlineError, RetryError
from driftline.rows import deployed
from driftline.rows.layout import RowLayout
from driftline.rows.source import VersionSource
from driftline_services.aggregator.naming import shard_name, table_of
from driftline_services.aggregator.runner import ShardRunner
from driftline_services.chassis.handler import TopicPartition

_logger = logging.getLogger(__name__)

Runners = Callable[[], Mapping[TopicPartition, ShardRunner]]


class Deploying:
    """Reconciles the shards that one worker owns."""

    def __init__(self, versions: VersionSource, runners: Runners, every: float = 2.0) -> None:
        self._versions, self._runners, self._every = versions, runners, every
        self._said: dict[TopicPartition, str] = {}
        self._away: str | None = None

    async def run(self) -> None:
        """Reconcile for ever."""
        while True:
            await self.reconcile()
            await asyncio.sleep(self._every)

    async def reconcile(self) -> None:
        """Make every shard of this worker have the deployed versions, and no other."""
        try:
            wanted = await self._versions.deployed()
        except (RetryError, ConfigError) as error:
            if str(error) != self._away:
                _logger.warning("which versions are deployed is not known: %s", error)
            self._away = str(error)
            return
        self._away = None
        for tp, runner in list(self._runners().items()):
            if runner.shard.spec is None:
                continue
            try:
                await self._reconcile(tp, runner, wanted)
                self._said.pop(tp, None)
            except DriftlineError as error:
                self._say(tp, error)

    async def _reconcile(self, tp: TopicPartition, runner: ShardRunner, wanted: frozenset[str]) -> None:
        keys, connect = runner.store.keys, runner.store.connect
        there = await deployed.deployed(connect, keys)
        for version in sorted(there.keys() - wanted):
            await deployed.drop(connect, keys, version)
            _logger.info("%s: version %s is not deployed any more", shard_name(tp), version)
        for version in sorted(wanted):
            if there.get(version):
                continue
            part = await self._versions.part(version, table_of(tp), tp.partition)
            if part is None:
                continue  # a table that is younger than the version
            layout, token = RowLayout.of(runner.shard.spec), uuid.uuid4().hex[:8]
            rows = await deployed.add(connect, keys, version, table_of(tp), layout, token, part)
            _logger.info("%s: version %s is deployed, %d rows", shard_name(tp), version, rows)

    def _say(self, tp: TopicPartition, error: DriftlineError) -> None:
        if self._said.get(tp) != str(error):
            _logger.error("%s: a deployed version cannot be loaded: %s", shard_name(tp), error)
        self._said[tp] = str(error)
