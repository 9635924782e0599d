"""The shards that an instance follows: which they are, how far they are, which cuts go through them.

Invariant: no I/O; a shard of the assignment has a state from when it is begun until it is stopped,
and the tables of an op are those born before it, whoever asks and whenever.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from driftline.ops.catalogue import Catalogue
from driftline.versions import Manifest
from driftline_services.chassis import TopicPartition
from driftline_services.versioner.places import schema_of, shard_of_tp
from driftline_services.versioner.shards import Line, ShardState
from driftline_services.versioner.works import Shard, TableAt, line_of

_LEAST_MEMORY = 1 << 20


class Following:
    """Shards and their states.

    `memory`: bytes of changed rows over all shards; what is more goes to files in `directory`.
    """

    def __init__(self, catalogue: Catalogue, memory: int, directory: Path | None) -> None:
        self._catalogue, self._memory, self._directory = catalogue, memory, directory
        self.homes: dict[Shard, TopicPartition] = {}  # the partition of each shard that is ours
        self.states: dict[TopicPartition, ShardState] = {}

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Take these shards and no other; none of them is begun."""
        self.homes = {shard_of_tp(tp): tp for tp in partitions}
        self.states = {}

    def begin(self, tp: TopicPartition, newest: Manifest | None) -> None:
        """Begin a shard as version `newest` has it; None: as it was born."""
        table, shard = shard_of_tp(tp)
        known = newest.tables.get(table) if newest is not None else None
        base = known.parts[shard] if known is not None else None
        line = Line(*line_of(newest)) if newest is not None else Line()
        memory = max(_LEAST_MEMORY, self._memory // max(1, len(self.homes)))
        self.states[tp] = ShardState.begin(
            table, shard, self.shape_of(table), base, line, memory, self._directory
        )

    def tables(self, op: int) -> dict[str, TableAt]:
        """Return the tables that op number `op` went through: those born before it."""
        return {
            name: TableAt(born.spec.shards, born.spec.dim, born.spec.state_size, schema_of(born.spec))
            for name, born in sorted(self._catalogue.tables.items())
            if born.offset + 1 < op
        }

    def mine(self, op: int) -> frozenset[Shard]:
        """Return those of our shards that op number `op` went through."""
        tables = self.tables(op)
        return frozenset(shard for shard in self.homes if shard[0] in tables)

    def leads_in(self, tables: Iterable[str]) -> bool:
        """Whether the first shard of `tables` is ours: of all instances, that of one."""
        first = min(tables, default=None)
        return first is not None and (first, 0) in self.homes

    @property
    def leads(self) -> bool:
        """Whether this instance asks for barriers and tells the news."""
        return self.leads_in(self._catalogue.tables)

    @property
    def last_op(self) -> int:
        """Number of the last cut that all shards of this instance have behind them."""
        return min((state.last_op for state in self.states.values()), default=0)

    @property
    def changed_bytes(self) -> int:
        """Changed rows of the group; what other instances follow is taken to change alike."""
        mine = max(1, len(self.states))
        total = sum(born.spec.shards for born in self._catalogue.tables.values())
        return sum(state.delta.nbytes for state in self.states.values()) * total // mine

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
