"""The drift monitor: follows the updates of a group's tables and judges each tick.

Invariant: a tick ends at a barrier; a shard that has reached it stands still until all shards of its
table that this instance follows have, and the table has been judged. A verdict is told once. Where an
instance begins it says: at its checkpoint, else at the newest version, else where the updates begin;
it never skips a tick that lies behind that.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Mapping

import numpy as np

from driftline import topics
from driftline.control import DriftVerdict
from driftline.errors import FrameError, PositionError
from driftline.ids import shard_of
from driftline.log import Log
from driftline.ops.catalogue import Catalogue
from driftline.versions import Repository
from driftline_services.chassis import Batch, Flow, TopicPartition
from driftline_services.chassis.announcing import Announcer
from driftline_services.chassis.offload import Offload
from driftline_services.chassis.tasks import Tasks
from driftline_services.drift_monitor import checkpoint
from driftline_services.drift_monitor.beginning import Beginning, Watched, Watching, shard_of_tp
from driftline_services.drift_monitor.gathering import RELOGGED, TICK, Cut, ShardFollow, gathered
from driftline_services.drift_monitor.producers import merged
from driftline_services.drift_monitor.watch import Scope, TableWatch

_logger = logging.getLogger(__name__)
_SAVE_EVERY = 30.0  # seconds between checkpoints, and
_SAVE_SHARE = 50  # so many times as long as the last one took


class Monitor:
    """Handler of the updates topics of one group."""

    def __init__(
        self,
        log: Log,
        catalogue: Catalogue,
        opening: Callable[[], Repository],
        announcer: Announcer,
        offload: Offload,
        watching: Watching,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalogue = catalogue
        self._announcer, self._offload, self._watching, self._now = announcer, offload, watching, now
        self._beginning = Beginning(log, catalogue, opening, offload, watching)
        self._flow: Flow | None = None
        self._tasks = Tasks(self._crash)
        self._frozen = False
        self.tables: dict[str, Watched] = {}
        self.assigned: frozenset[TopicPartition] | None = None
        self.failed: dict[TopicPartition, str] = {}
        self.verdicts: dict[str, int] = {}  # told, by standing
        self.unreadable = 0

    def bind(self, flow: Flow) -> None:
        self._flow = flow

    # -- assignment

    async def load(self, partitions: frozenset[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Take the shards; each table is followed once its beginning is known, behind this."""
        self.assigned, self.failed, self.tables = partitions, {}, {}
        self._tasks.spawn(self._open(partitions), "open")
        return {}

    async def release(self, partitions: frozenset[TopicPartition]) -> None:
        """Let go of the shards, and leave a checkpoint of each table for whoever gets the same ones."""
        await self._tasks.stop()
        await self._offload.quiet()
        for table in self.tables.values():
            table.watch.close()
        self.tables, self.assigned = {}, frozenset()

    async def lost(self, tp: TopicPartition, error: PositionError) -> None:
        """Say that the updates a shard needs are gone: its table begins anew."""
        table, shard = shard_of_tp(tp)
        _logger.warning("%s:%d: %s", table, shard, error)
        self._tasks.spawn(self._begin(table), f"begin {table} anew")

    async def _open(self, partitions: frozenset[TopicPartition]) -> None:
        await self._tasks.patiently("reading the ops log", self._catalogue.catch_up)
        await self._tasks.patiently("reading the control topic", self._announcer.catch_up)
        for table in sorted({shard_of_tp(tp)[0] for tp in partitions}):
            await self._begin(table)

    async def _begin(self, table: str) -> None:
        born = self._catalogue.tables.get(table)
        if born is None:  # its topic exists, but no op of ours made it
            return
        shards = tuple(
            sorted(shard_of_tp(tp)[1] for tp in self.assigned or () if shard_of_tp(tp)[0] == table)
        )
        before = self.tables.pop(table, None)
        if before is not None:
            before.watch.close()
        tables = max(1, len({shard_of_tp(tp)[0] for tp in self.assigned or ()}))
        limit = max(1_000, self._watching.rows // tables)
        scope = Scope(table, shards, born.spec.shards, self._watching.instance)
        watch = TableWatch(scope, born.spec.dim, self._watching.graph, self._watching.judge, limit)
        follows = {shard: ShardFollow(table, shard, born.spec.dim) for shard in shards}
        found = Watched(watch, follows, saved_at=self._now())
        await self._beginning.stand(found, self._tasks)
        await self._write(found)  # what comes from here on is judged, whatever ends this process
        self.tables[table] = found
        watch.freeze(self._frozen)
        for shard, follow in follows.items():
            self._running.resume(TopicPartition(topics.updates(table), shard), follow.position)

    # -- records

    async def apply(self, batch: Batch) -> None:
        table, shard = shard_of_tp(batch.tp)
        found = self.tables.get(table)
        if found is None or shard not in found.follows:
            return
        follow = found.follows[shard]
        for record in batch.records:
            if record.offset < follow.position:
                continue
            try:
                cut = follow.take(follow.read(record), record.offset)
            except FrameError as error:
                _logger.error("%s:%d: update at %d: %s", table, shard, record.offset, error)
                self.unreadable += 1
                follow.position = record.offset + 1
                continue
            if cut is not None:
                self._running.hold(batch.tp)
                self._arrive(found, shard, cut)
                return
        follow.position = max(follow.position, batch.next)

    def _arrive(self, found: Watched, shard: int, cut: Cut) -> None:
        found.arrived[shard] = cut
        due = cut.kind == RELOGGED or len(found.arrived) == len(found.follows)
        if due and (found.task is None or found.task.done()):
            found.task = self._tasks.spawn(self._meet(found), f"{found.watch.scope.table} at op {cut.op}")

    async def _meet(self, found: Watched) -> None:
        """Deal with the first cut at which shards stand, and let those go on that stood there."""
        while True:
            relogged = [shard for shard, cut in found.arrived.items() if cut.kind == RELOGGED]
            if not relogged and len(found.arrived) < len(found.follows):
                return
            op = min(cut.op for cut in found.arrived.values())
            here = relogged[:1] or [shard for shard, cut in found.arrived.items() if cut.op == op]
            begun = self._now()
            if found.arrived[here[0]].kind == TICK:
                await self._tick(found, op, here)
            else:
                await self._restored(found, here)
            found.tick_seconds = self._now() - begun
            table = found.watch.scope.table
            for shard in here:
                found.arrived.pop(shard)
                follow = found.follows[shard]
                follow.passed()
            await self._save(found)
            if self.tables.get(table) is not found:
                return
            for shard in here:
                self._running.resume(
                    TopicPartition(topics.updates(table), shard), found.follows[shard].position
                )

    async def _tick(self, found: Watched, op: int, here: list[int]) -> None:
        cuts = [found.arrived[shard] for shard in here]
        pending = [states for shard in here for states in found.follows[shard].pending]
        producers = merged(cut.producers for cut in cuts)
        whole = all(0 <= found.arrived[shard].since <= found.follows[shard].floor for shard in here)
        watch = found.watch

        def judge() -> DriftVerdict:
            change = gathered(pending, watch.rows.dims)
            complete = len(here) == len(found.follows)
            moment = max(cut.time for cut in cuts)
            return watch.tick(op, moment, change, producers, whole=whole, complete=complete)

        verdict = await self._offload.run(judge)
        found.judged_op = op
        self.verdicts[verdict.standing] = self.verdicts.get(verdict.standing, 0) + 1
        if verdict.action != "none":
            _logger.warning(
                "%s at op %d: %s by %s, %d nodes",
                verdict.table,
                op,
                verdict.standing,
                verdict.rule,
                verdict.node_count,
            )
        await self._announcer.tell(verdict)

    async def _restored(self, found: Watched, here: list[int]) -> None:
        """Stand on the rows of the version that a restore put in."""
        watch, version = found.watch, found.arrived[here[0]].version
        table, shards = watch.scope.table, tuple(here)
        ids, vectors = await self._beginning.rows(version, table, shards, self._tasks)

        def put_back() -> None:
            before = watch.rows.ids
            mine = np.isin(shard_of(before, watch.scope.of), shards)
            watch.put_back(before[mine], ids, vectors)

        await self._offload.run(put_back)
        _logger.info("%s stands at %s again", table, version or "nothing")

    async def _save(self, found: Watched) -> None:
        due = max(_SAVE_EVERY, _SAVE_SHARE * found.save_took)
        gathering = found.arrived or any(each.pending for each in found.follows.values())
        if not gathering and self._now() - found.saved_at >= due:
            await self._write(found)

    async def _write(self, found: Watched) -> None:
        begun = self._now()
        stands = {
            shard: checkpoint.Stand(each.position, each.floor, each.last_op)
            for shard, each in found.follows.items()
        }
        path = self._watching.path(found.watch.scope)
        try:
            await self._offload.run(functools.partial(checkpoint.write, path, found.watch, stands))
        except OSError as error:
            _logger.error("checkpoint %s: %s; a start goes on from an older one", path, error)
        found.saved_at, found.save_took = self._now(), self._now() - begun

    # -- what is where

    def freeze(self, on: bool) -> None:
        """Learn nothing while an alarm is open."""
        self._frozen = on
        for found in self.tables.values():
            found.watch.freeze(on)

    @property
    def leads(self) -> bool:
        """Whether this instance carries recoveries out: of all instances, one."""
        first = min(self._catalogue.tables, default=None)
        return first is not None and TopicPartition(topics.updates(first), 0) in (self.assigned or ())

    @property
    def waiting(self) -> str:
        """Why nothing is followed yet."""
        return self._tasks.waiting

    # -- helpers

    def _crash(self, error: BaseException) -> None:
        self._running.crash(error)

    @property
    def _running(self) -> Flow:
        assert self._flow is not None, "bind comes first"
        return self._flow
