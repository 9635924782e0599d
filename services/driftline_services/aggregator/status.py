"""What an aggregator tells about itself: figures for Prometheus, conditions for health checks.

Invariant: reads only, on the event loop, and nothing on the path of a record waits for it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence

from driftline.log import Log
from driftline.metrics import (
    FENCE_LOSSES,
    INGEST_FORWARDED,
    INGEST_LAG,
    INGEST_REFUSED,
    OPS_REFUSED,
    OWNED_SHARDS,
    Sample,
    ShardFigures,
    lag,
    shard_samples,
)
from driftline_services.aggregator.core import Aggregator
from driftline_services.aggregator.naming import table_of
from driftline_services.aggregator.runner import ShardRunner
from driftline_services.chassis.handler import TopicPartition
from driftline_services.chassis.http import ShardHealth
from driftline_services.chassis.service import follow_ends


class Status:
    """Looks at an aggregator and at the ends of the logs it reads."""

    def __init__(self, aggregator: Aggregator, log: Log) -> None:
        self._aggregator, self._log = aggregator, log
        self._ends: dict[TopicPartition, int] = {}

    async def follow(self) -> None:
        """Keep the ends of the logs up to date, for ever."""
        await follow_ends(self._log, lambda: self._aggregator.assigned or (), self._ends)

    def shards(self) -> Sequence[ShardHealth] | None:
        """Return the condition of each assigned shard; None before the first assignment."""
        assigned = self._aggregator.assigned
        if assigned is None:
            return None
        return [*(self._health(tp) for tp in sorted(assigned)), *self._absent()]

    def samples(self) -> Iterator[Sample]:
        """Yield all metrics."""
        aggregator = self._aggregator
        for table, shards in Counter(map(table_of, aggregator.runners)).items():
            yield OWNED_SHARDS.sample(shards, table)
        yield FENCE_LOSSES.sample(aggregator.fence_losses)
        for tp, runner in list(aggregator.runners.items()):
            yield from shard_samples(table_of(tp), tp.partition, self._figures(tp, runner), time.time())
        yield from self._ingest_samples()

    def _ingest_samples(self) -> Iterator[Sample]:
        ingest = self._aggregator.ingest
        for partition, position in sorted(ingest.positions.items()):
            end = self._ends.get(TopicPartition(ingest.topic, partition), position)
            yield INGEST_LAG.sample(lag(end, position), partition)
        for partition, count in sorted(ingest.forwarded.items()):
            yield INGEST_FORWARDED.sample(count, partition)
        for reason, count in sorted(self._aggregator.router.refused.items()):
            yield OPS_REFUSED.sample(count, reason)
        for reason, count in sorted(ingest.refused.items()):
            yield INGEST_REFUSED.sample(count, reason)

    def _absent(self) -> Iterator[ShardHealth]:
        """Yield what the router found missing: nobody is assigned the shards of a table without a topic."""
        for table, message in sorted(self._aggregator.gone.items()):
            yield ShardHealth(table, 0, taken_over=False, failure=message)

    def _health(self, tp: TopicPartition) -> ShardHealth:
        stopped, applied = self._aggregator.stopped.get(tp), self._aggregator.applied(tp)
        runner = self._aggregator.runners.get(tp)
        failure, at = str(stopped) if stopped else None, applied or 0
        return ShardHealth(
            table_of(tp),
            tp.partition,
            applied is not None,
            at,
            self._ends.get(tp, at),
            failure,
            self._aggregator.store_full(tp),
            runner.unprepared if runner is not None else None,
        )

    def _figures(self, tp: TopicPartition, runner: ShardRunner) -> ShardFigures:
        progress, cache = runner.progress, runner.shard.cache
        stats = progress.stats
        return ShardFigures(
            end_offset=max(self._ends.get(tp, 0), progress.committed),
            committed_offset=progress.committed,
            published_offset=runner.published,
            committed_time=progress.committed_time / 1e3,
            frames=stats.records,
            applied_rows=stats.rows,
            committed_rows=stats.committed_rows,
            commits=stats.commits,
            commit_seconds=stats.commit_seconds,
            ops=stats.ops,
            restores=stats.restores,
            skipped_restores=stats.skipped_restores,
            duplicate_frames=stats.duplicates,
            stale_rows=stats.stale,
            nonfinite_rows=stats.nonfinite,
            dead_letters=stats.rejected,
            dirty_rows=cache.dirty_count,
            cached_bytes=cache.nbytes,
        )
