"""The versioner: follows the updates of a group's tables and cuts versions and backups from them.

Invariant: what a shard has taken in is a function of a version and of the updates behind it; a
shard that has reached a cut is held until the store says what became of it. Offsets are hinted
only for what a committed version holds, and a start never trusts them: it asks the store.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Mapping
from pathlib import Path

from driftline.control import VersionRejected
from driftline.errors import DeltaError, FrameError, InputError, PositionError
from driftline.log import Log, Record
from driftline.ops.catalogue import Catalogue
from driftline.versions import Manifest
from driftline_services.chassis import Batch, Flow, TopicPartition
from driftline_services.chassis.announcing import Announcer
from driftline_services.chassis.offload import Offload
from driftline_services.chassis.tasks import Tasks
from driftline_services.versioner.backing_up import BackupTaker
from driftline_services.versioner.backups import Backups
from driftline_services.versioner.cutting import Arrival, GroupCut, Settler
from driftline_services.versioner.following import Following
from driftline_services.versioner.gates import Gates
from driftline_services.versioner.places import committed_event, shard_of_tp
from driftline_services.versioner.restoring import put_back
from driftline_services.versioner.shards import BACKUP, CHECKOUT, ROLLBACK, Cut, Line, ShardState
from driftline_services.versioner.works import Decision, Shard, Works, line_of

_logger = logging.getLogger(__name__)
_FULL_DISK_PAUSE = 5.0


class Versioner:
    """Handler of the updates topics of one group."""

    def __init__(
        self,
        log: Log,
        catalogue: Catalogue,
        works: Works,
        backups: Backups,
        gates: Gates,
        announcer: Announcer,
        offload: Offload,
        *,
        instance: str,
        memory: int,
        directory: Path | None = None,
    ) -> None:
        self._log, self._catalogue, self.works, self.backups = log, catalogue, works, backups
        self._announcer, self.offload = announcer, offload
        self._directory = directory
        self.following = Following(catalogue, memory, directory)
        self._settler = Settler(works, offload, gates, self._broken)
        self._flow: Flow | None = None
        self._tasks = Tasks(self._crash)
        self.taker = BackupTaker(backups, offload, announcer, instance)
        self._kept: dict[TopicPartition, ShardState] = {}  # of the last assignment
        self._mended: set[Shard] = set()  # followed anew since the last version
        self.cuts: dict[int, GroupCut] = {}
        self.failed: dict[TopicPartition, str] = {}
        self.assigned: frozenset[TopicPartition] | None = None
        self.newest: Manifest | None = None
        self.unreadable = 0
        self.committed = 0
        self.rejected = 0

    def bind(self, flow: Flow) -> None:
        self._flow = flow

    # -- assignment

    async def load(self, partitions: frozenset[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Take the shards; each is followed once the store has said from where, behind this."""
        self.assigned = partitions
        self.following.assign(partitions)
        self.cuts, self.failed = {}, {}
        self._tasks.spawn(self._open(partitions), "open")
        return {}

    async def release(self, partitions: frozenset[TopicPartition]) -> None:
        """Let go of the shards: what is not in a version is collected again by whoever gets them."""
        await self._tasks.stop()
        await self.offload.quiet()
        self._kept = {tp: state for tp, state in self.states.items() if not state.open}
        self.following.assign(())
        self.assigned, self.cuts = frozenset(), {}

    async def lost(self, tp: TopicPartition, error: PositionError) -> None:
        """Say that the updates a shard needs are gone."""
        self._stop(tp, str(error))

    async def _open(self, partitions: frozenset[TopicPartition]) -> None:
        newest = await self._tasks.patiently("finding the newest version", self._look)
        self.newest = newest
        mine = frozenset(shard_of_tp(tp) for tp in partitions)
        self.backups.keep_shards(mine)
        kept, self._kept = self._kept, {}
        for tp in sorted(partitions):
            state = kept.pop(tp, None)
            if state is not None and (newest is None or newest.op <= state.last_op):
                self.following.states[tp] = state
            else:
                self.backups.drop_shard(shard_of_tp(tp))
                self.following.begin(tp, newest)
            await self._start(tp)
        if newest is not None and self.following.leads_in(self.following.tables(newest.op)):
            await self._announcer.tell(committed_event(newest))
        await self.taker.state(self.following.homes)

    async def _look(self) -> Manifest | None:
        await self._catalogue.catch_up()
        await self._announcer.catch_up()
        return await self.offload.run(self.works.newest)

    async def _start(self, tp: TopicPartition) -> None:
        state = self.states[tp]
        bounds = await self._tasks.patiently(
            f"bounds of {tp.topic}", functools.partial(self._log.bounds, str(tp.topic), tp.partition)
        )
        if not bounds.begin <= state.position <= bounds.end:
            since = f"version {state.line.base}" if state.base is not None else "the table's birth"
            self._stop(
                tp,
                f"{tp.topic}/{tp.partition} holds offsets {bounds.begin} to {bounds.end}, and the updates "
                f"since {since} begin at {state.position}: keep updates for longer than versions "
                "are apart, and restore a version or make the table anew",
            )
            return
        self._running.resume(tp, state.position)

    # -- records

    async def apply(self, batch: Batch) -> None:
        state = self.states.get(batch.tp)
        if state is None:
            return
        for record in batch.records:
            if record.offset < state.position:
                continue
            try:
                cut = self._take(state, record)
            except OSError as error:
                self._pause(batch.tp, state, error)
                return
            except InputError as error:
                self._stop(batch.tp, f"{batch.topic}/{batch.partition} at offset {record.offset}: {error}")
                return
            if cut is not None:
                self._running.hold(batch.tp)
                self._tasks.spawn(self._meet(batch.tp, state, cut), f"op {cut.op} at {batch.tp}")
                return
        state.position = max(state.position, batch.next)
        self.failed.pop(batch.tp, None)

    def _take(self, state: ShardState, record: Record) -> Cut | None:
        try:
            update = state.read(record)
        except FrameError as error:
            # if it was a row's, the rows do not add up at the next version, which then is not made
            _logger.error("%s:%d: update at %d: %s", state.table, state.shard, record.offset, error)
            self.unreadable += 1
            state.position = record.offset + 1
            return None
        return state.take(update, record.offset)

    def _pause(self, tp: TopicPartition, state: ShardState, error: OSError) -> None:
        """A temporary file could not grow: nothing of the record was taken in; try it again later."""
        self._running.hold(tp)
        self.failed[tp] = f"changed rows cannot be kept, {error}: give {self._directory or 'TMPDIR'} room"
        _logger.error("%s/%d: %s", tp.topic, tp.partition, self.failed[tp])
        self._tasks.spawn(self._resume_later(tp, state), f"pause {tp}")

    async def _resume_later(self, tp: TopicPartition, state: ShardState) -> None:
        await asyncio.sleep(_FULL_DISK_PAUSE)
        self._go_on(tp, state)

    # -- cuts

    async def _meet(self, tp: TopicPartition, state: ShardState, cut: Cut) -> None:
        if cut.kind == BACKUP:
            await self.taker.take(state, cut, self.following.mine(cut.op))
            self._go_on(tp, state)
            return
        if cut.kind in (ROLLBACK, CHECKOUT):
            put = functools.partial(self.offload.run, functools.partial(put_back, self.works, state, cut))
            await self._tasks.patiently(f"op {cut.op} at {state.table}:{state.shard}", put)
        if cut.kind == CHECKOUT:
            state.passed(cut.op)
            self._go_on(tp, state)
            return
        await self._arrive(shard_of_tp(tp), Arrival(state, cut))

    async def _arrive(self, shard: Shard, arrival: Arrival) -> None:
        op = arrival.cut.op
        if op not in self.cuts:
            await self._tasks.patiently("reading the ops log", self._catalogue.catch_up)
        group = self.cuts.get(op)
        if group is None:
            tables = self.following.tables(op)
            leads = self.following.leads_in(tables)
            group = self.cuts[op] = GroupCut(arrival.cut, tables, self.following.mine(op), leads)
            self._tasks.spawn(self._settle(group), f"settle op {op}")
        group.arrive(shard, arrival)

    async def _settle(self, group: GroupCut) -> None:
        decision = await self._settler.settle(group)
        cut, manifest = group.cut, decision.manifest
        self.cuts.pop(cut.op, None)
        for shard, arrival in sorted(group.arrivals.items()):
            self._decided(shard, arrival, decision)
        if manifest is None:
            self.rejected += 1
            _logger.warning("op %d became no version: %s", cut.op, decision.reason)
        else:
            self.committed += 1
            self.newest = manifest
            self._mended.clear()
            _logger.info("op %d became %s", cut.op, manifest.version)
        if group.leads:
            await self._tell(group, decision)
            if manifest is not None:
                tidy = functools.partial(self.offload.run, functools.partial(self.works.tidy, cut))
                await self._tasks.patiently("tidying up", tidy)

    def _decided(self, shard: Shard, arrival: Arrival, decision: Decision) -> None:
        table, number = shard
        tp = self.following.homes[shard]
        state, manifest = arrival.state, decision.manifest
        if manifest is None:
            state.passed(arrival.cut.op)
        else:
            part = manifest.tables[table].parts[number]
            state.committed(arrival.cut.op, part, Line(*line_of(manifest)))
            self._running.hint(tp, part.place.updates)
        self._go_on(tp, state)

    async def _tell(self, group: GroupCut, decision: Decision) -> None:
        cut, works = group.cut, self.works
        if decision.manifest is not None:
            await self._announcer.tell(committed_event(decision.manifest))
            return
        branch, scenario = works.branch(cut), works.scenario(cut)
        await self._announcer.tell(VersionRejected(cut.op, branch, scenario, decision.reason, decision.gate))

    def _broken(self, shard: Shard, error: DeltaError) -> None:
        """Follow a shard anew whose rows do not add up; if that was in vain, stop it."""
        table, number = shard
        tp = self.following.homes[shard]
        if shard in self._mended:
            self._stop(tp, f"{error}; a second look gave the same")
            return
        _logger.error("%s:%d is followed anew: %s", table, number, error)
        self._mended.add(shard)
        self.backups.drop_shard(shard)
        self.following.begin(tp, self.newest)
        self._tasks.spawn(self._start(tp), f"again {tp}")

    # -- what is where

    @property
    def states(self) -> Mapping[TopicPartition, ShardState]:
        """The shards that are followed."""
        return self.following.states

    @property
    def waiting(self) -> str:
        """Why nothing is followed yet."""
        return self._tasks.waiting

    @property
    def backing_up(self) -> asyncio.Lock:
        """While it is held, no backup is dropped or merged."""
        return self.taker.lock

    # -- helpers

    def _go_on(self, tp: TopicPartition, state: ShardState) -> None:
        if self.states.get(tp) is state:
            self._running.resume(tp, state.position)

    def _stop(self, tp: TopicPartition, reason: str) -> None:
        _logger.error("%s/%d is not followed any more: %s", tp.topic, tp.partition, reason)
        self.failed[tp] = reason
        self._running.hold(tp)
        self.following.states.pop(tp, None)

    def _crash(self, error: BaseException) -> None:
        self._running.crash(error)

    @property
    def _running(self) -> Flow:
        assert self._flow is not None, "bind comes first"
        return self._flow
