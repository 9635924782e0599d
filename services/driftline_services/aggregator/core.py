"""The aggregator: one runner per shard it owns, and routers for what it owns of the ops and ingest topics.

Invariant: a shard is in exactly one of three conditions: running; stopped with a
reason that a person must read; or being taken over again after a lost fence. A
foreign owner in the store is never fought from here: the worker crashes, so that
the group must first assign the shard to it anew.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Mapping

from driftline import topics
from driftline.errors import FenceLostError, PositionError, StateError
from driftline.frames.headers import Keyring
from driftline.log import Log
from driftline.ops.catalogue import Catalogue
from driftline.rows.connection import Connect
from driftline.rows.placement import EQUAL
from driftline.rows.servers import ONLY, Servers
from driftline.rows.source import VersionSource
from driftline_services.aggregator.ingest import IngestRouter
from driftline_services.aggregator.limits import Limits
from driftline_services.aggregator.moving import Homes
from driftline_services.aggregator.naming import shard_name, table_of
from driftline_services.aggregator.placing import Placement
from driftline_services.aggregator.router import Router, resume_offset
from driftline_services.aggregator.runner import ShardRunner
from driftline_services.aggregator.taking import Taker
from driftline_services.chassis import Batch, Flow, TopicPartition, patiently

_logger = logging.getLogger(__name__)
_PATIENCE = 0.25
"""Seconds that a start waits for shards whose server is away, before it goes on with the others.

Well below the time in which a member must give its partitions back."""


class Aggregator:
    """Handler of the gradients topics, the ops topic and the ingest topic of one group."""

    def __init__(
        self,
        group: str,
        log: Log,
        redis: Servers | Connect,
        keyring: Keyring,
        catalogue: Catalogue,
        limits: Limits,
        ingest_incarnation: int = 0,
        placement: str = EQUAL,
        versions: VersionSource | None = None,
    ) -> None:
        self._group, self._log = group, log
        servers = redis if isinstance(redis, Servers) else Servers.by_connect({ONLY: redis})
        self._catalogue, self._limits, self._share = catalogue, limits, limits
        self._homes = Homes(servers, log, keyring)
        self.router = Router(log, group, keyring, catalogue.tables, Placement(servers, placement))
        self.ingest = IngestRouter(group, log, keyring, catalogue, servers.aside, ingest_incarnation)
        self._taker = Taker(log, keyring, self._homes, versions)
        self._flow: Flow | None = None
        self._watches: dict[TopicPartition, asyncio.Task[None]] = {}
        self._late: dict[TopicPartition, asyncio.Task[None]] = {}
        self._loaded = asyncio.Event()
        self.runners: dict[TopicPartition, ShardRunner] = {}
        self.stopped: dict[TopicPartition, StateError] = {}
        self.assigned: frozenset[TopicPartition] | None = None  # shards and ingest; None before the first
        self.fence_losses = 0
        self.patrol_every = 5.0  # seconds

    def bind(self, flow: Flow) -> None:
        self._flow = flow

    async def load(self, partitions: frozenset[TopicPartition]) -> Mapping[TopicPartition, int]:
        self._loaded.clear()
        self.runners, self.stopped = {}, {}
        self.ingest.positions.clear()
        self.assigned = frozenset(tp for tp in partitions if tp.topic != topics.ops(self._group))
        shards = sum(not self._is_ingest(tp) for tp in self.assigned)
        self._share = self._limits.shared_by(max(1, shards))
        begun = {tp: asyncio.create_task(self._begin(tp), name=f"begin {tp}") for tp in sorted(partitions)}
        try:
            if begun:
                await asyncio.wait(begun.values(), timeout=_PATIENCE, return_when=asyncio.FIRST_EXCEPTION)
            ready = {tp: task.result() for tp, task in begun.items() if task.done()}
        except BaseException:
            for task in begun.values():
                task.cancel()
            await asyncio.gather(*begun.values(), return_exceptions=True)
            raise
        for tp, task in begun.items():
            if tp not in ready:  # its server is away: the others do not wait for it
                self._late[tp] = asyncio.create_task(self._resume_late(tp, task), name=f"late {tp}")
        self._loaded.set()
        return {tp: start for tp, start in ready.items() if start is not None}

    async def _resume_late(self, tp: TopicPartition, begun: asyncio.Task[int | None]) -> None:
        try:
            start = await begun
        except asyncio.CancelledError:
            begun.cancel()
            await asyncio.gather(begun, return_exceptions=True)
            raise
        except Exception as error:  # noqa: BLE001 - as from `load`: it stops the worker, which says why
            self._running.crash(error)
            return
        del self._late[tp]
        if start is not None:
            self._running.resume(tp, start)

    async def apply(self, batch: Batch) -> None:
        if batch.topic == topics.ops(self._group):
            for record in batch.records:
                await self._catalogue.note(record)
                await self.router.forward(record)
            self._running.hint(batch.tp, batch.next)
            return
        if self._is_ingest(batch.tp):
            await self.ingest.forward(batch)
            self._running.hint(batch.tp, batch.next)
            return
        runner = self.runners[batch.tp]
        try:
            await runner.apply(batch.records, behind=batch.behind)
        except FenceLostError as error:
            self._running.hold(batch.tp)  # the watch takes the shard over again
            runner.lose(error)
            return
        except StateError as error:
            self._stop(batch.tp, error)
            self._watches.pop(batch.tp).cancel()
            await self.runners.pop(batch.tp).close()
            return
        self._running.hint(batch.tp, runner.progress.committed)

    async def lost(self, tp: TopicPartition, error: PositionError) -> None:
        """Begin `tp` again from what is stored, which says how log and store disagree, and stops it."""
        if tp.topic == topics.ops(self._group):
            raise error  # the catalogue reads it too: without its ops log a group has no tables
        _logger.error("%s", error)
        if self._is_ingest(tp) or tp in self.runners:  # else it is being taken over again already
            watch = self._watches.pop(tp, None)
            if watch is not None:
                watch.cancel()
            again = self._begin_again(tp, self.runners.get(tp))
            self._watches[tp] = asyncio.create_task(again, name=f"begin again {tp}")

    async def _begin_again(self, tp: TopicPartition, runner: ShardRunner | None) -> None:
        try:
            if runner is not None:
                await self._settle(tp, runner)
                self.runners.pop(tp, None)
            start = await self._begin(tp)
        except Exception as failure:  # noqa: BLE001 - nobody else would hear of it
            self._running.crash(failure)
            return
        if start is not None:
            self._running.resume(tp, start)

    async def release(self, partitions: frozenset[TopicPartition]) -> None:
        self.assigned = frozenset()
        late = [self._late.pop(tp) for tp in partitions if tp in self._late]
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        await asyncio.gather(*(self._release(tp) for tp in sorted(partitions)))

    async def _release(self, tp: TopicPartition) -> None:
        watch = self._watches.pop(tp, None)
        if watch is not None:  # it may be taking the shard over again
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        runner = self.runners.pop(tp, None)
        if runner is not None:
            await self._settle(tp, runner)

    async def _settle(self, tp: TopicPartition, runner: ShardRunner) -> None:
        try:
            await runner.finish()
        except FenceLostError as error:
            _logger.warning("%s: not everything applied was committed: %s", shard_name(tp), error)
        finally:
            await runner.close()

    async def _begin(self, tp: TopicPartition) -> int | None:
        # what the log does not answer now it may answer soon; a worker that ends must start and join again
        return await patiently(
            f"beginning {tp.topic}/{tp.partition}", functools.partial(self._begin_once, tp)
        )

    async def _begin_once(self, tp: TopicPartition) -> int | None:
        if tp.topic == topics.ops(self._group):
            return await self._router_start()
        if self._is_ingest(tp):
            return await self._ingest_start(tp)
        try:
            runner, start = await self._taker.take(table_of(tp), tp.partition, self._share)
        except StateError as error:
            self._stop(tp, error)
            return None
        self.runners[tp] = runner
        self._watches[tp] = asyncio.create_task(self._watch(tp, runner), name=f"watch {shard_name(tp)}")
        _logger.info("%s taken over, reading from offset %d", shard_name(tp), start)
        return start

    async def _router_start(self) -> int:
        await self._catalogue.catch_up()
        seen = await self._homes.ops_seen(self._catalogue.tables)
        begin = (await self._log.bounds(topics.ops(self._group), 0)).begin
        start = resume_offset(self._catalogue.tables, seen)
        start = begin if start is None else max(start, begin)
        await self.router.begin(start)
        return start

    async def _ingest_start(self, tp: TopicPartition) -> int | None:
        try:
            return await self.ingest.start(tp.partition)
        except PositionError as error:
            self._stop(tp, error)
            return None

    async def _watch(self, tp: TopicPartition, runner: ShardRunner) -> None:
        """Take the shard over again after a lost fence; crash the worker on anything else."""
        error = await runner.failure()
        if not isinstance(error, FenceLostError):
            self._running.crash(error)
            return
        try:
            await self._regain(tp, runner, error)
        except Exception as failure:  # noqa: BLE001 - nobody else would hear of it
            self._running.crash(failure)

    async def _regain(self, tp: TopicPartition, runner: ShardRunner, error: FenceLostError) -> None:
        self.fence_losses += 1
        _logger.warning("%s: fence lost, dropping what is not committed: %s", shard_name(tp), error)
        await self._loaded.wait()  # or the start of the lost runner would be resumed behind our back
        await self._running.hold(tp)
        self.runners.pop(tp, None)
        await runner.close()
        owner = await self._homes.owner(table_of(tp), tp.partition)
        if owner is not None and not self._taker.took(owner):
            self._running.crash(error)  # somebody else's now, unless the group gives it to us again
            return
        start = await self._begin(tp)
        if start is not None:
            self._running.resume(tp, start)

    async def patrol(self) -> None:
        """Look for ever whether a shard lives on another server than this worker believes."""
        while True:
            await asyncio.sleep(self.patrol_every)
            running = dict(self.runners)
            tables: dict[str, dict[int, TopicPartition]] = {}
            for tp in running:
                tables.setdefault(table_of(tp), {})[tp.partition] = tp
            await self.router.look_again()
            for table, shards in tables.items():
                for shard, server in (await self._homes.overtaken(table, sorted(shards))).items():
                    runner = running[shards[shard]]
                    runner.lose(FenceLostError(f"shard {table}:{shard}: {server} has been further"))

    def _stop(self, tp: TopicPartition, error: StateError) -> None:
        _logger.error("%s stopped: %s", shard_name(tp), error)
        self.stopped[tp] = error
        self._running.hold(tp)

    def applied(self, tp: TopicPartition) -> int | None:
        """Return the next offset of a partition, None while it has not been taken over."""
        if self._is_ingest(tp):
            return self.ingest.positions.get(tp.partition)
        runner = self.runners.get(tp)
        return runner.progress.applied if runner else None

    @property
    def gone(self) -> Mapping[str, str]:
        """Tables whose gradients topic the router found missing, each with what that means."""
        return self.router.gone

    def store_full(self, tp: TopicPartition) -> str | None:
        """Return why Redis takes no writes of a shard for want of memory; None while it does."""
        runner = self.runners.get(tp)
        taking = self._taker.under_way.get((table_of(tp), tp.partition))
        return runner.store.full if runner else taking.full if taking else None

    def _is_ingest(self, tp: TopicPartition) -> bool:
        return tp.topic == topics.ingest(self._group)

    @property
    def _running(self) -> Flow:
        assert self._flow is not None, "the chassis binds its flow before anything else"
        return self._flow
