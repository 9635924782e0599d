"""The aggregator: one runner per shard it owns, and routers for what it owns of the ops and ingest topics.

Invariant: a shard is in exactly one of three conditions: running; stopped with a
reason that a person must read; or being taken over again after a lost fence. A
foreign owner in the store is never fought from here: the worker crashes, so that
the group must first assign the shard to it anew.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping

from driftline import topics
from driftline.errors import FenceLostError, PositionError, StateError
from driftline.frames.headers import Keyring
from driftline.log import Log
from driftline.ops.catalogue import Catalogue
from driftline.rows.connection import Connect
from driftline.rows.layout import ShardKeys
from driftline.rows.shard_store import ShardStore, read_fields
from driftline_services.aggregator.ingest import IngestRouter
from driftline_services.aggregator.router import Router, resume_offset
from driftline_services.aggregator.runner import Limits, ShardRunner
from driftline_services.chassis import Batch, Flow, TopicPartition

_logger = logging.getLogger(__name__)
_GRADIENTS = ".gradients"


class Aggregator:
    """Handler of the gradients topics, the ops topic and the ingest topic of one group."""

    def __init__(
        self,
        group: str,
        log: Log,
        connect: Connect,
        keyring: Keyring,
        catalogue: Catalogue,
        limits: Limits,
        ingest_incarnation: int = 0,
    ) -> None:
        self._group, self._log, self._connect, self._keyring = group, log, connect, keyring
        self._catalogue, self._limits, self._share = catalogue, limits, limits
        self._router = Router(log, group, keyring, catalogue.tables)
        self.ingest = IngestRouter(group, log, keyring, catalogue, connect, ingest_incarnation)
        self._name = uuid.uuid4().hex
        self._takeovers = 0
        self._flow: Flow | None = None
        self._watches: dict[TopicPartition, asyncio.Task[None]] = {}
        self.runners: dict[TopicPartition, ShardRunner] = {}
        self.stopped: dict[TopicPartition, StateError] = {}
        self.assigned: frozenset[TopicPartition] | None = (
            None  # shards and ingest; None before the first time
        )
        self.fence_losses = 0

    def bind(self, flow: Flow) -> None:
        self._flow = flow

    async def load(self, partitions: frozenset[TopicPartition]) -> Mapping[TopicPartition, int]:
        self.runners, self.stopped = {}, {}
        self.assigned = frozenset(tp for tp in partitions if tp.topic != topics.ops(self._group))
        shards = sum(not self._is_ingest(tp) for tp in self.assigned)
        self._share = self._limits.shared_by(max(1, shards))
        starts = await asyncio.gather(*(self._begin(tp) for tp in sorted(partitions)))
        return {tp: start for tp, start in zip(sorted(partitions), starts, strict=True) if start is not None}

    async def apply(self, batch: Batch) -> None:
        if batch.topic == topics.ops(self._group):
            for record in batch.records:
                await self._catalogue.note(record)
                await self._router.forward(record)
            self._running.hint(batch.tp, batch.next)
            return
        if self._is_ingest(batch.tp):
            await self.ingest.forward(batch)
            self._running.hint(batch.tp, batch.next)
            return
        runner = self.runners[batch.tp]
        try:
            await runner.apply(batch.records)
        except FenceLostError:
            self._running.hold(batch.tp)  # the watch takes the shard over again
            return
        except StateError as error:
            self._stop(batch.tp, error)
            return
        self._running.hint(batch.tp, runner.progress.committed)

    async def release(self, partitions: frozenset[TopicPartition]) -> None:
        self.assigned = frozenset()
        mine = [tp for tp in partitions if tp in self.runners]
        await asyncio.gather(*(self._release(tp) for tp in mine))

    async def _release(self, tp: TopicPartition) -> None:
        runner = self.runners.pop(tp)
        self._watches.pop(tp).cancel()
        try:
            await runner.drain()
        except FenceLostError as error:
            _logger.warning("%s: not everything applied was committed: %s", _shard_name(tp), error)
        finally:
            await runner.close()

    async def _begin(self, tp: TopicPartition) -> int | None:
        if tp.topic == topics.ops(self._group):
            return await self._router_start()
        if self._is_ingest(tp):
            return await self._ingest_start(tp)
        table = table_of(tp)
        self._takeovers += 1
        owner = f"{self._name}:{self._takeovers}".encode()
        store = ShardStore(self._connect, ShardKeys.of(table, tp.partition), owner)
        runner = ShardRunner(
            table, tp.partition, store=store, log=self._log, keyring=self._keyring, limits=self._share
        )
        try:
            start = await runner.start()
        except StateError as error:
            await runner.close()
            self._stop(tp, error)
            return None
        except BaseException:
            await runner.close()
            raise
        self.runners[tp] = runner
        self._watches[tp] = asyncio.create_task(self._watch(tp, runner), name=f"watch {_shard_name(tp)}")
        _logger.info("%s taken over, reading from offset %d", _shard_name(tp), start)
        return start

    async def _router_start(self) -> int:
        await self._catalogue.catch_up()
        seen: dict[tuple[str, int], int] = {}
        for name, born in self._catalogue.tables.items():
            for shard in range(born.spec.shards):
                (op,) = await read_fields(self._connect, ShardKeys.of(name, shard), b"op")
                seen[name, shard] = int(op or b"0")
        begin = (await self._log.bounds(topics.ops(self._group), 0)).begin
        start = resume_offset(self._catalogue.tables, seen)
        return begin if start is None else max(start, begin)

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
        self.fence_losses += 1
        _logger.warning("%s: fence lost, dropping what is not committed: %s", _shard_name(tp), error)
        await self._running.hold(tp)
        await runner.close()
        (owner,) = await read_fields(self._connect, ShardKeys.of(table_of(tp), tp.partition), b"owner")
        if owner is not None and not owner.startswith(self._name.encode()):
            self._running.crash(error)  # somebody else's now, unless the group gives it to us again
            return
        start = await self._begin(tp)
        if start is not None:
            self._running.resume(tp, start)

    def _stop(self, tp: TopicPartition, error: StateError) -> None:
        _logger.error("%s stopped: %s", _shard_name(tp), error)
        self.stopped[tp] = error
        self._running.hold(tp)

    def applied(self, tp: TopicPartition) -> int | None:
        """Return the next offset of a partition, None while it has not been taken over."""
        if self._is_ingest(tp):
            return self.ingest.positions.get(tp.partition)
        runner = self.runners.get(tp)
        return runner.progress.applied if runner else None

    def _is_ingest(self, tp: TopicPartition) -> bool:
        return tp.topic == topics.ingest(self._group)

    @property
    def _running(self) -> Flow:
        assert self._flow is not None, "the chassis binds its flow before anything else"
        return self._flow


def table_of(tp: TopicPartition) -> str:
    """Return the table whose gradients topic this is; of the ingest topic, its name."""
    return tp.topic.removesuffix(_GRADIENTS)


def _shard_name(tp: TopicPartition) -> str:
    return f"shard {table_of(tp)}:{tp.partition}"
