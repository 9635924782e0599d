"""The versioner: follows the updates of a group's tables and cuts versions and backups from them.

Invariant: what a shard has taken in is a function of a version and of the updates behind it; a
shard that has reached a cut is held until the store says what became of it. Offsets are hinted
only for what a committed version holds, and a start never trusts them: it asks the store.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from driftline.control import VersionRejected
from driftline.errors import DeltaError, DriftlineError, FrameError, InputError, PositionError, StateError
from driftline.frames.states import read_update
from driftline.log import Log, Record
from driftline.ops.catalogue import Catalogue
from driftline.shard.screen import MAX_FRAME
from driftline.versions import Manifest
from driftline_services.chassis import Batch, Flow, TopicPartition
from driftline_services.versioner.announcing import Announcer
from driftline_services.versioner.backing_up import BackupTaker
from driftline_services.versioner.backups import Backups
from driftline_services.versioner.cutting import BACK_OFF, Arrival, GroupCut, Settler
from driftline_services.versioner.gates import Gates
from driftline_services.versioner.offload import Offload
from driftline_services.versioner.places import committed_event, schema_of, shard_of_tp
from driftline_services.versioner.restoring import put_back
from driftline_services.versioner.shards import BACKUP, CHECKOUT, ROLLBACK, Cut, Line, ShardState
from driftline_services.versioner.triggers import Stand
from driftline_services.versioner.works import Decision, Shard, TableAt, Works, line_of

T = TypeVar("T")
_logger = logging.getLogger(__name__)
_FULL_DISK_PAUSE = 5.0
_LEAST_MEMORY = 1 << 20


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
        self._memory, self._directory = memory, directory
        self._settler = Settler(works, offload, gates, self._broken)
        self._flow: Flow | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._taker = BackupTaker(backups, offload, announcer, instance)
        self._kept: dict[TopicPartition, ShardState] = {}  # of the last assignment
        self._mended: set[Shard] = set()  # followed anew since the last version
        self._homes: dict[Shard, TopicPartition] = {}  # the partition of each shard that is ours
        self.states: dict[TopicPartition, ShardState] = {}
        self.cuts: dict[int, GroupCut] = {}
        self.failed: dict[TopicPartition, str] = {}
        self.assigned: frozenset[TopicPartition] | None = None
        self.newest: Manifest | None = None
        self.unreadable = 0
        self.committed = 0
        self.rejected = 0
        self.waiting = ""  # why nothing is followed yet

    def bind(self, flow: Flow) -> None:
        self._flow = flow

    # -- assignment

    async def load(self, partitions: frozenset[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Take the shards; each is followed once the store has said from where, behind this."""
        self.assigned = partitions
        self._homes = {shard_of_tp(tp): tp for tp in partitions}
        self.states, self.cuts, self.failed = {}, {}, {}
        self._spawn(self._open(partitions), "open")
        return {}

    async def release(self, partitions: frozenset[TopicPartition]) -> None:
        """Let go of the shards: what is not in a version is collected again by whoever gets them."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.offload.quiet()
        self._kept = {tp: state for tp, state in self.states.items() if not state.open}
        self.assigned, self.states, self.cuts, self._homes = frozenset(), {}, {}, {}

    async def lost(self, tp: TopicPartition, error: PositionError) -> None:
        """Say that the updates a shard needs are gone."""
        self._stop(tp, str(error))

    async def _open(self, partitions: frozenset[TopicPartition]) -> None:
        newest = await self._patiently("finding the newest version", self._look)
        self.newest = newest
        mine = frozenset(shard_of_tp(tp) for tp in partitions)
        self.backups.keep_shards(mine)
        kept, self._kept = self._kept, {}
        for tp in sorted(partitions):
            state = kept.pop(tp, None)
            if state is not None and (newest is None or newest.op <= state.last_op):
                self.states[tp] = state
            else:
                self.backups.drop_shard(shard_of_tp(tp))
                self._follow(tp, newest)
            await self._start(tp)
        if newest is not None and self._leads(self._tables(newest.op)):
            await self._announcer.tell(committed_event(newest))
        await self._taker.state(self._homes)

    async def _look(self) -> Manifest | None:
        await self._catalogue.catch_up()
        await self._announcer.catch_up()
        return await self.offload.run(self.works.newest)

    def _follow(self, tp: TopicPartition, newest: Manifest | None) -> None:
        """Begin a shard as the newest version has it."""
        table, shard = shard_of_tp(tp)
        spec = self._catalogue.tables[table].spec
        known = newest.tables.get(table) if newest is not None else None
        base = known.parts[shard] if known is not None else None
        line = Line(*line_of(newest)) if newest is not None else Line()
        memory = max(_LEAST_MEMORY, self._memory // max(1, len(self.assigned or ())))
        shape = spec.dim, spec.state_size
        self.states[tp] = ShardState.begin(table, shard, shape, base, line, memory, self._directory)

    async def _start(self, tp: TopicPartition) -> None:
        state = self.states[tp]
        bounds = await self._patiently(
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
                self._spawn(self._meet(batch.tp, state, cut), f"op {cut.op} at {batch.tp}")
                return
        state.position = max(state.position, batch.next)
        self.failed.pop(batch.tp, None)

    def _take(self, state: ShardState, record: Record) -> Cut | None:
        try:
            update = read_update(record.value, limit=MAX_FRAME)
        except FrameError as error:
            self._pass_over(state, record, str(error))
            return None
        if (update.table, update.shard) != (state.table, state.shard):
            self._pass_over(state, record, f"it is of {update.table}:{update.shard}")
            return None
        return state.take(update, record.offset)

    def _pass_over(self, state: ShardState, record: Record, reason: str) -> None:
        # if it was a row's, the rows do not add up at the next version, which then is not made
        _logger.error("%s:%d: update at %d: %s", state.table, state.shard, record.offset, reason)
        self.unreadable += 1
        state.position = record.offset + 1

    def _pause(self, tp: TopicPartition, state: ShardState, error: OSError) -> None:
        """A temporary file could not grow: nothing of the record was taken in; try it again later."""
        self._running.hold(tp)
        self.failed[tp] = f"changed rows cannot be kept, {error}: give {self._directory or 'TMPDIR'} room"
        _logger.error("%s/%d: %s", tp.topic, tp.partition, self.failed[tp])
        self._spawn(self._resume_later(tp, state), f"pause {tp}")

    async def _resume_later(self, tp: TopicPartition, state: ShardState) -> None:
        await asyncio.sleep(_FULL_DISK_PAUSE)
        self._go_on(tp, state)

    # -- cuts

    async def _meet(self, tp: TopicPartition, state: ShardState, cut: Cut) -> None:
        if cut.kind == BACKUP:
            await self._taker.take(state, cut, self._mine(cut.op))
            self._go_on(tp, state)
            return
        if cut.kind in (ROLLBACK, CHECKOUT):
            put = functools.partial(self.offload.run, functools.partial(put_back, self.works, state, cut))
            await self._patiently(f"op {cut.op} at {state.table}:{state.shard}", put)
        if cut.kind == CHECKOUT:
            state.passed(cut.op)
            self._go_on(tp, state)
            return
        await self._arrive(shard_of_tp(tp), Arrival(state, cut))

    async def _arrive(self, shard: Shard, arrival: Arrival) -> None:
        op = arrival.cut.op
        if op not in self.cuts:
            await self._patiently("reading the ops log", self._catalogue.catch_up)
        group = self.cuts.get(op)
        if group is None:
            tables = self._tables(op)
            mine = frozenset(self._homes)
            of_cut = frozenset((name, n) for name, each in tables.items() for n in range(each.shards))
            group = self.cuts[op] = GroupCut(arrival.cut, tables, mine & of_cut, self._leads(tables))
            self._spawn(self._settle(group), f"settle op {op}")
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
                await self._patiently("tidying up", tidy)

    def _decided(self, shard: Shard, arrival: Arrival, decision: Decision) -> None:
        table, number = shard
        tp = self._homes[shard]
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
        tp = self._homes[shard]
        if shard in self._mended:
            self._stop(tp, f"{error}; a second look gave the same")
            return
        _logger.error("%s:%d is followed anew: %s", table, number, error)
        self._mended.add(shard)
        self.backups.drop_shard(shard)
        self._follow(tp, self.newest)
        self._spawn(self._start(tp), f"again {tp}")

    # -- what is where

    @property
    def backing_up(self) -> asyncio.Lock:
        """While it is held, no backup is dropped or merged."""
        return self._taker.lock

    def _tables(self, op: int) -> dict[str, TableAt]:
        """Return the tables that op number `op` went through: those born before it."""
        return {
            name: TableAt(born.spec.shards, born.spec.dim, born.spec.state_size, schema_of(born.spec))
            for name, born in sorted(self._catalogue.tables.items())
            if born.offset + 1 < op
        }

    def _mine(self, op: int) -> frozenset[Shard]:
        tables = self._tables(op)
        return frozenset(shard for shard in self._homes if shard[0] in tables)

    def _leads(self, tables: Iterable[str]) -> bool:
        first = min(tables, default=None)
        return first is not None and (first, 0) in self._homes

    @property
    def leads(self) -> bool:
        """Whether this instance asks for barriers and tells the news."""
        return self._leads(self._catalogue.tables)

    @property
    def last_op(self) -> int:
        """Number of the last cut that all shards of this instance have behind them."""
        return min((state.last_op for state in self.states.values()), default=0)

    def stand(self, started: float) -> Stand:
        """Return what barriers are asked for by; what other instances follow is taken to change alike."""
        mine = max(1, len(self.states))
        total = sum(born.spec.shards for born in self._catalogue.tables.values())
        changed = sum(state.delta.nbytes for state in self.states.values()) * total // mine
        newest = self.newest.created if self.newest is not None else started
        backups = [backup.time / 1e3 for backup in self.backups]
        return Stand(
            newest,
            max([started, newest, *backups]),
            changed,
            any(state.changed_since_backup for state in self.states.values()),
        )

    def shards_of_table(self, table: str) -> int | None:
        """Return how many shards a table has, None if the group has no such table."""
        born = self._catalogue.tables.get(table)
        return born.spec.shards if born is not None else None

    def shape_of(self, table: str) -> tuple[int, int]:
        """Return the numbers of float32 of a row and of its state."""
        spec = self._catalogue.tables[table].spec
        return spec.dim, spec.state_size

    def followed(self, table: str) -> set[int]:
        """Return the shards of a table that this instance follows."""
        return {state.shard for state in self.states.values() if state.table == table}

    def reached(self, table: str, op: int) -> set[int]:
        """Return the shards of a table that are behind cut `op`."""
        return {each.shard for each in self.states.values() if each.table == table and each.last_op >= op}

    # -- helpers

    def _go_on(self, tp: TopicPartition, state: ShardState) -> None:
        if self.states.get(tp) is state:
            self._running.resume(tp, state.position)

    def _stop(self, tp: TopicPartition, reason: str) -> None:
        _logger.error("%s/%d is not followed any more: %s", tp.topic, tp.partition, reason)
        self.failed[tp] = reason
        self._running.hold(tp)
        self.states.pop(tp, None)

    async def _patiently(self, what: str, attempt: Callable[[], Awaitable[T]]) -> T:
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

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._running.crash(error)

    @property
    def _running(self) -> Flow:
        assert self._flow is not None, "bind comes first"
        return self._flow
