"""Counts of one shard since its owner took over."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from driftline.frames.events import RESTORE, Op
from driftline.shard.plan import Plan


@dataclass(slots=True)
class ShardStats:
    """Counters; read by the metrics endpoint, never by the logic."""

    records: int = 0
    rows: int = 0  # gradient, upsert and delete rows applied
    duplicates: int = 0  # frames whose sequence number was used before
    stale: int = 0
    nonfinite: int = 0  # rows skipped because their result was not finite
    ops: int = 0
    restores: int = 0
    skipped_restores: int = 0  # another restore came first, or the version lacks the table
    commits: int = 0
    committed_rows: int = 0
    commit_seconds: float = 0.0
    rejected: Counter[str] = field(default_factory=Counter)

    def add(self, plan: Plan) -> None:
        """Count an applied plan."""
        self.records += plan.consumed
        self.rows += plan.counts["rows"]
        self.duplicates += plan.counts["duplicate"]
        self.stale += plan.counts["stale"]
        self.nonfinite += plan.counts["nonfinite"]
        self.rejected.update(item.reason for item in plan.rejected)

    def passed(self, op: Op, *, restored: bool) -> None:
        """Count an op, and whether it was a restore that replaced the rows."""
        self.ops += 1
        self.restores += restored
        self.skipped_restores += op.kind == RESTORE and not restored

    def committed(self, rows: int, seconds: float) -> None:
        """Count a commit."""
        self.commits += 1
        self.committed_rows += rows
        self.commit_seconds += seconds


@dataclass(slots=True)
class Progress:
    """How far a shard has come; `stats` count since this owner took over."""

    applied: int = 0  # next offset, in memory
    committed: int = 0  # next offset, in Redis
    committed_time: int = 0  # log time there, ms
    stats: ShardStats = field(default_factory=ShardStats)
