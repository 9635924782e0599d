"""What an audit found."""

from __future__ import annotations

from dataclasses import dataclass

SHOWN = 20  # differences kept per shard


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as the log says."""

    what: str  # "row 17", "w.next"
    stored: str
    expected: str


@dataclass(frozen=True, slots=True)
class ShardAudit:
    """The audit of one shard."""

    shard: int
    records: int  # replayed
    rows: int  # compared, bit for bit
    differences: tuple[Difference, ...]  # the first SHOWN
    found: int  # differences in all
    reason: str | None = None  # why it could not be audited
    start: str | None = None  # what the replay began with, where the log does not go back to the birth

    @property
    def ok(self) -> bool:
        """Whether everything was compared and nothing differs."""
        return self.found == 0 and self.reason is None


@dataclass(frozen=True, slots=True)
class TableAudit:
    """The audit of all shards of a table."""

    table: str
    shards: tuple[ShardAudit, ...]

    @property
    def ok(self) -> bool:
        """Whether every shard is as the log says."""
        return all(shard.ok for shard in self.shards)

    @property
    def rows(self) -> int:
        """Rows compared."""
        return sum(shard.rows for shard in self.shards)

    @property
    def records(self) -> int:
        """Records replayed."""
        return sum(shard.records for shard in self.shards)
