"""Where a table's watch begins: at its checkpoint, else at the newest version, else where its updates do.

Invariant: what is stood on belongs together: rows, positions and floors are those of one barrier, and
the updates behind it are all still there.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from driftline import topics
from driftline.drift import JudgeSettings
from driftline.errors import InputError
from driftline.graph import GraphSettings
from driftline.ids import lsn
from driftline.log import Log
from driftline.ops.catalogue import Catalogue
from driftline.versions import Manifest, Place, Repository
from driftline.versions.history import newest
from driftline.versions.reader import TableReader
from driftline_services.chassis import TopicPartition
from driftline_services.chassis.offload import Offload
from driftline_services.chassis.tasks import Tasks
from driftline_services.drift_monitor import checkpoint
from driftline_services.drift_monitor.gathering import Cut, ShardFollow
from driftline_services.drift_monitor.rows import Floats, Ids
from driftline_services.drift_monitor.watch import Scope, TableWatch

_logger = logging.getLogger(__name__)
_UPDATES = topics.updates("")


@dataclass(frozen=True, slots=True)
class Watching:
    """How tables are watched."""

    judge: JudgeSettings
    graph: GraphSettings
    rows: int  # at most, of all tables of an instance
    directory: Path  # of checkpoints
    group: str
    instance: str

    def path(self, scope: Scope) -> Path:
        """Return the file of a scope's checkpoint."""
        return checkpoint.path_of(self.directory, self.group, scope.table, scope.shards)


@dataclass(slots=True)
class Watched:
    """One table of the assignment."""

    watch: TableWatch
    follows: dict[int, ShardFollow]
    arrived: dict[int, Cut] = field(default_factory=dict)  # shards that stand at a cut
    task: asyncio.Task[None] | None = None
    saved_at: float = 0.0
    save_took: float = 0.0
    judged_op: int = 0
    tick_seconds: float = 0.0


class Beginning:
    """Puts tables to where they are to go on from; reads rows of versions."""

    def __init__(
        self,
        log: Log,
        catalogue: Catalogue,
        opening: Callable[[], Repository],
        offload: Offload,
        watching: Watching,
    ) -> None:
        self._log, self._catalogue, self._opening = log, catalogue, opening
        self._offload, self._watching = offload, watching
        self._repository: Repository | None = None

    async def stand(self, found: Watched, tasks: Tasks) -> None:
        """Put a table to where it is to go on from."""
        table, shards = found.watch.scope.table, found.watch.scope.shards
        topic = topics.updates(table)
        begins = {}
        for shard in shards:
            bounds = await tasks.patiently(
                f"bounds of {topic}", functools.partial(self._log.bounds, topic, shard)
            )
            begins[shard] = bounds
        path = self._watching.path(found.watch.scope)
        try:
            saved = await self._offload.run(
                functools.partial(checkpoint.read, path, shards, found.watch.rows.dims)
            )
        except InputError as error:
            _logger.error("%s", error)
            saved = None
        if saved is not None and all(
            begins[shard].begin <= stand.position <= begins[shard].end
            for shard, stand in saved.stands.items()
        ):
            await self._offload.run(functools.partial(checkpoint.enter, saved, found.watch, found.follows))
            found.judged_op = max(each.last_op for each in found.follows.values())
            _logger.info("%s goes on behind op %d", table, found.judged_op)
            return
        ops = functools.partial(self._log.bounds, topics.ops(self._watching.group), 0)
        found.watch.history = (await tasks.patiently("end of the ops log", ops)).end
        manifest = await tasks.patiently(
            "finding the newest version", functools.partial(self._offload.run, self._newest)
        )
        places = self._places(manifest, table)
        if manifest is not None and all(
            shard in places and begins[shard].begin <= places[shard].updates <= begins[shard].end
            for shard in shards
        ):
            version = manifest.version
            ids, vectors = await self.rows(version, table, shards, tasks)
            await self._offload.run(functools.partial(found.watch.stand_on, ids, vectors))
            for shard, follow in found.follows.items():
                place = places[shard]
                follow.position, follow.last_op = place.updates, place.number("op")
                follow.floor = max(place.number("floor"), lsn(place.number("gen"), place.number("next")))
            _logger.info("%s begins at %s", table, version)
            return
        for shard, follow in found.follows.items():
            follow.position = begins[shard].begin
        _logger.info("%s begins where its updates do", table)

    async def rows(
        self, version: str, table: str, shards: tuple[int, ...], tasks: Tasks
    ) -> tuple[Ids, Floats]:
        """Return ids and rows of shards as a version has them; none for no version."""
        load = functools.partial(self._offload.run, functools.partial(self._load, version, table, shards))
        return await tasks.patiently(f"loading {version}", load)

    # -- the store; blocking

    def _store(self) -> Repository:
        if self._repository is None:
            self._repository = self._opening()
        return self._repository

    def _newest(self) -> Manifest | None:
        return newest(self._store())

    def _load(self, version: str, table: str, shards: tuple[int, ...]) -> tuple[Ids, Floats]:
        ids, vectors = [np.empty(0, np.uint64)], []
        if version:
            repository = self._store()
            manifest = repository.manifest(version)
            if table in manifest.tables:
                reader = TableReader(repository.cache, manifest, table)
                blocks = [block for shard in shards for block in reader.blocks(shard)]
                ids += [block.ids for block in blocks]
                vectors += [block.rows for block in blocks]
        dims = self._catalogue.tables[table].spec.dim
        return np.concatenate(ids), np.concatenate([np.empty((0, dims), np.float32), *vectors])

    def _places(self, manifest: Manifest | None, table: str) -> dict[int, Place]:
        if manifest is None or table not in manifest.tables:
            return {}
        return {shard: part.place for shard, part in enumerate(manifest.tables[table].parts)}


def shard_of_tp(tp: TopicPartition) -> tuple[str, int]:
    """Return the shard whose updates a partition holds."""
    return str(tp.topic).removesuffix(_UPDATES), tp.partition
