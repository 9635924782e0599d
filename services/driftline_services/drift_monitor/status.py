"""What a monitor tells about itself: figures for Prometheus, conditions for health checks.

Invariant: reads only, on the event loop, and nothing on the path of a record waits for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from driftline import topics
from driftline.log import Log
from driftline.metrics import (
    DRIFT_ALARMS,
    DRIFT_BYTES,
    DRIFT_CALIBRATION,
    DRIFT_LAG,
    DRIFT_RECOVERIES,
    DRIFT_ROWS,
    DRIFT_TICK_SECONDS,
    DRIFT_VERDICTS,
    UNREADABLE_UPDATES,
    Sample,
    lag,
)
from driftline_services.chassis.handler import TopicPartition
from driftline_services.chassis.http import ShardHealth
from driftline_services.chassis.service import follow_ends
from driftline_services.drift_monitor.beginning import shard_of_tp
from driftline_services.drift_monitor.core import Monitor
from driftline_services.drift_monitor.recovery import Recovery


class Status:
    """Looks at a monitor and at the ends of the logs it reads."""

    def __init__(self, monitor: Monitor, recovery: Recovery, log: Log) -> None:
        self._monitor, self._recovery, self._log = monitor, recovery, log
        self._ends: dict[TopicPartition, int] = {}

    async def follow(self) -> None:
        """Keep the ends of the logs up to date, for ever."""
        await follow_ends(self._log, lambda: self._monitor.assigned or (), self._ends)

    def shards(self) -> Sequence[ShardHealth] | None:
        """Return the condition of each assigned shard; None before the first assignment."""
        assigned = self._monitor.assigned
        if assigned is None:
            return None
        return [self._health(tp) for tp in sorted(assigned)]

    def samples(self) -> Iterator[Sample]:
        """Yield all metrics."""
        for table, found in sorted(self._monitor.tables.items()):
            for shard, follow in sorted(found.follows.items()):
                end = self._ends.get(TopicPartition(topics.updates(table), shard), follow.position)
                yield DRIFT_LAG.sample(lag(end, follow.position), table, shard)
            yield DRIFT_ROWS.sample(len(found.watch.rows), table)
            yield DRIFT_BYTES.sample(found.watch.nbytes, table)
            yield DRIFT_TICK_SECONDS.sample(found.tick_seconds, table)
            yield DRIFT_CALIBRATION.sample(len(found.watch.state.calibration.ticks), table)
        for standing, count in sorted(self._monitor.verdicts.items()):
            yield DRIFT_VERDICTS.sample(count, standing)
        yield DRIFT_ALARMS.sample(self._recovery.ledger.open is not None)
        for outcome, count in sorted(self._recovery.outcomes.items()):
            yield DRIFT_RECOVERIES.sample(count, outcome)
        yield UNREADABLE_UPDATES.sample(self._monitor.unreadable)

    def _health(self, tp: TopicPartition) -> ShardHealth:
        monitor = self._monitor
        table, shard = shard_of_tp(tp)
        found = monitor.tables.get(table)
        at = found.follows[shard].position if found is not None else 0
        failure = monitor.failed.get(tp)
        if failure is None and found is None and monitor.waiting:
            failure = monitor.waiting
        return ShardHealth(table, shard, found is not None, at, self._ends.get(tp, at), failure)
