"""The state machine against an oracle that shares no code with it, on random logs.

Rows, optimizer state, LSNs, ordinals and the position must be equal to the last
bit, whatever the batches were and whatever happened to be cached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray

from driftline.frames.states import TOMBSTONE, States
from driftline.log.base import Record
from driftline.shard.cache import RowBlock
from driftline.shard.machine import Shard
from driftline.shard.plan import PendingOp
from driftline.shard.position import Position
from tests import oracle
from tests.oracle import Expected, differences
from tests.simulation.random_log import DIM, KEYRING, KEYS, SHARD, STATE_SIZE, TABLE, RandomLog

RECORDS = 120
SEEDS = 160
CHUNK = 40
_TEXTS = (b"fp", b"prep", b"spec")
"""Fields of `w` whose text the oracle leaves open."""

chunks = pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))


@dataclass(slots=True)
class Store:
    """What Redis would hold: rows and fields, from the first take-over on changed by deltas alone."""

    state_size: int
    rows: dict[int, Expected] = field(default_factory=dict)
    fields: dict[bytes, bytes] = field(default_factory=lambda: Position().fields())

    def commit(self, shard: Shard) -> None:
        delta = shard.take_delta()
        shard.committed()
        for n, row_id in enumerate(delta.states.ids.tolist()):
            if delta.states.flags[n] & TOMBSTONE:
                self.rows.pop(row_id, None)
            else:
                self.rows[row_id] = _row(delta.states, n)
        self.fields |= delta.fields
        for name in delta.removed:
            self.fields.pop(name, None)

    def fetch(self, ids: NDArray[np.uint64]) -> RowBlock:
        nothing = Expected(bytes(4 * DIM), bytes(4 * self.state_size), 0, 0)
        found = [self.rows.get(row_id, nothing) for row_id in ids.tolist()]
        return RowBlock(
            ids,
            np.array([row_id in self.rows for row_id in ids.tolist()], bool),
            np.frombuffer(b"".join(item.row for item in found), np.float32).reshape(len(ids), DIM),
            np.frombuffer(b"".join(item.state for item in found), np.float32).reshape(
                len(ids), self.state_size
            ),
            np.array([item.lsn for item in found], np.uint64),
            np.array([item.ordinal for item in found], np.uint32),
        )


def _row(states: States, n: int) -> Expected:
    return Expected(
        states.rows[n].tobytes(), states.state[n].tobytes(), int(states.lsn[n]), int(states.ordinals[n])
    )


class Machine:
    """The real core with a store behind it, fed in batches, its cache trimmed at will."""

    def __init__(self, optimizer: str) -> None:
        self.shard = Shard(TABLE, SHARD, KEYRING)
        self.store = Store(STATE_SIZE[optimizer])

    def apply(self, records: Sequence[Record]) -> int:
        """Apply up to and including the first op; return how many records that were."""
        plan = self.shard.screen(records)
        self.shard.apply(plan, self.store.fetch(plan.missing) if len(plan.missing) else None)
        if plan.op is not None:
            self._pass(plan.op)
        return plan.consumed

    def _pass(self, pending: PendingOp) -> None:
        missing = self.shard.missing(pending.op.ids)
        if len(missing):
            self.shard.cache.enter(self.store.fetch(missing))
        self.shard.apply_op(pending)

    def take_over(self) -> None:
        """Go on as a new owner does: with the stored position and an empty cache."""
        from driftline.shard.position import Position

        self.shard = Shard(TABLE, SHARD, KEYRING, Position.from_fields(self.store.fields))

    def run(self, records: Sequence[Record], rng: Random, largest: int) -> None:
        """Apply all of `records` in random batches with random commits, trims and take-overs."""
        while records:
            done = self.apply(records[: rng.randrange(1, largest + 1)])
            records = records[done:]
            if rng.random() < 0.7:
                self.store.commit(self.shard)
                if rng.random() < 0.2:
                    self.take_over()
            if rng.random() < 0.7:
                self.shard.cache.trim(0)
        self.store.commit(self.shard)


def check(seed: int, judge: oracle.Shard, machine: Machine) -> None:
    """Compare what is stored with what the oracle says."""
    expected = judge.position().fields()
    stored = {name: value for name, value in machine.store.fields.items() if name not in _TEXTS}
    wrong = [(name, expected.get(name), stored.get(name)) for name in sorted({*expected, *stored})]
    assert not [item for item in wrong if item[1] != item[2]], f"seed {seed}: w differs"
    assert not differences(judge.table(), machine.store.rows), f"seed {seed}: rows differ"
    fields = machine.shard.position.fields()
    assert {name: fields[name] for name in expected} == expected, f"seed {seed}: the position differs"


@chunks
def test_every_batch_leaves_the_rows_and_the_position_that_its_prefix_determines(first: int) -> None:
    for seed in range(first, first + CHUNK):
        log = RandomLog(seed)
        records, rng = log.write(RECORDS), Random(seed)
        judge, machine = oracle.Shard(SHARD, keys=KEYS), Machine(log.optimizer)
        largest = rng.choice([1, 8, 60])
        while records:
            done = machine.apply(records[: rng.randrange(1, largest + 1)])
            for record in records[:done]:
                judge.apply(record)
            records = records[done:]
            machine.store.commit(machine.shard)
            check(seed, judge, machine)


@chunks
def test_trimmed_rows_come_back_from_the_store_as_they_were(first: int) -> None:
    for seed in range(first, first + CHUNK):
        log = RandomLog(seed)
        records = log.write(RECORDS)
        machine = Machine(log.optimizer)
        machine.run(records, Random(f"{seed}:trims"), largest=30)
        check(seed, oracle.replay(records, SHARD, keys=KEYS), machine)


@chunks
def test_the_result_depends_neither_on_batches_nor_on_what_is_cached(first: int) -> None:
    for seed in range(first, first + CHUNK):
        log = RandomLog(seed)
        records = log.write(RECORDS)
        stores = []
        for largest in (1, 7, RECORDS):
            machine = Machine(log.optimizer)
            machine.run(records, Random(f"{seed}:{largest}"), largest)
            stores.append((machine.store.rows, machine.store.fields))
        assert stores[0] == stores[1] == stores[2], f"seed {seed}"


def test_rejected_records_are_those_the_oracle_rejects() -> None:
    for seed in range(CHUNK):
        log = RandomLog(seed)
        records = log.write(RECORDS)
        judge, machine = oracle.Shard(SHARD, keys=KEYS), Machine(log.optimizer)
        expected = [item.offset for item in records if judge.apply(item).verdict == "dead letter"]
        refused: list[int] = []
        while records:
            plan = machine.shard.screen(records)
            machine.shard.apply(plan, None)  # nothing is ever trimmed here
            refused += [item.record.offset for item in plan.rejected]
            if plan.op is not None:
                machine.shard.apply_op(plan.op)
            records = records[plan.consumed :]
        assert sorted(refused) == expected, f"seed {seed}"
