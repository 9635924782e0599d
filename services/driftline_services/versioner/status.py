"""What a versioner tells about itself: figures for Prometheus, conditions for health checks.

Invariant: reads only, on the event loop, and nothing on the path of a record waits for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from driftline import clock
from driftline.log import Log
from driftline.metrics import (
    BACKUP_BYTES,
    BACKUPS,
    BACKUPS_TAKEN,
    BARRIERS_ASKED,
    CHANGED_BYTES,
    CHANGED_ROWS,
    NODE_ROLLBACKS,
    UNREADABLE_UPDATES,
    VERSION_AGE,
    VERSION_LAG,
    VERSION_WAITING,
    VERSIONS,
    VERSIONS_REJECTED,
    Sample,
    lag,
)
from driftline_services.chassis.handler import TopicPartition
from driftline_services.chassis.http import ShardHealth
from driftline_services.chassis.service import follow_ends
from driftline_services.versioner.core import Versioner
from driftline_services.versioner.node_rollback import NodeRollbacks
from driftline_services.versioner.places import shard_of_tp
from driftline_services.versioner.triggers import Requester


class Status:
    """Looks at a versioner and at the ends of the logs it reads."""

    def __init__(
        self,
        versioner: Versioner,
        requester: Requester,
        rollbacks: NodeRollbacks,
        log: Log,
        now: clock.Clock = clock.system,
    ) -> None:
        self._versioner, self._requester, self._rollbacks = versioner, requester, rollbacks
        self._log, self._now = log, now
        self._ends: dict[TopicPartition, int] = {}

    async def follow(self) -> None:
        """Keep the ends of the logs up to date, for ever."""
        await follow_ends(self._log, lambda: self._versioner.assigned or (), self._ends)

    def shards(self) -> Sequence[ShardHealth] | None:
        """Return the condition of each assigned shard; None before the first assignment."""
        assigned = self._versioner.assigned
        if assigned is None:
            return None
        return [self._health(tp) for tp in sorted(assigned)]

    def samples(self) -> Iterator[Sample]:
        """Yield all metrics."""
        versioner = self._versioner
        yield VERSIONS.sample(versioner.committed)
        yield VERSIONS_REJECTED.sample(versioner.rejected)
        newest = versioner.newest
        yield VERSION_AGE.sample(max(0.0, self._now() - newest.created) if newest is not None else 0.0)
        yield VERSION_WAITING.sample(len(versioner.cuts))
        for tp, state in sorted(versioner.states.items()):
            table, shard = shard_of_tp(tp)
            end = self._ends.get(tp, state.position)
            yield VERSION_LAG.sample(lag(end, state.position), table, shard)
            yield CHANGED_ROWS.sample(len(state.delta), table, shard)
            yield CHANGED_BYTES.sample(state.delta.nbytes, table, shard)
        yield BACKUPS.sample(len(list(versioner.backups)))
        yield BACKUP_BYTES.sample(versioner.backups.nbytes)
        yield BACKUPS_TAKEN.sample(versioner.backups.taken)
        for cause, count in sorted(self._requester.requested.items()):
            yield BARRIERS_ASKED.sample(count, cause)
        yield NODE_ROLLBACKS.sample(self._rollbacks.done, "done")
        yield NODE_ROLLBACKS.sample(self._rollbacks.refused, "refused")
        yield UNREADABLE_UPDATES.sample(versioner.unreadable)

    def _health(self, tp: TopicPartition) -> ShardHealth:
        versioner = self._versioner
        table, shard = shard_of_tp(tp)
        state = versioner.states.get(tp)
        at = state.position if state is not None else 0
        failure = versioner.failed.get(tp) or self._held_up(table, shard)
        if failure is None and state is None and versioner.waiting:
            failure = versioner.waiting
        return ShardHealth(table, shard, state is not None, at, self._ends.get(tp, at), failure)

    def _held_up(self, table: str, shard: int) -> str | None:
        """Return why a shard that stands at a cut does so, where something is amiss."""
        for op, group in self._versioner.cuts.items():
            if (table, shard) in group.arrivals and group.failure:
                return f"op {op}: {group.failure}"
        return None
