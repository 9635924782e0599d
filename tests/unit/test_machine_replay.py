"""The shard under random logs: same log, same bits, however it was cut, cached or interrupted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.frames.events import Event
from driftline.frames.states import TOMBSTONE
from driftline.ids import lsn
from driftline.log.base import Record
from driftline.shard.cache import RowBlock
from driftline.shard.machine import Delta, Shard
from driftline.shard.position import Position
from tests.support.samples import (
    KEYRING,
    MINE,
    TABLE,
    P,
    Q,
    delete,
    feed,
    gradient,
    op,
    record,
    restore_rows,
    rows_of,
    spec_op,
    take,
    u64,
    upsert,
)

A, B, C = MINE[:3]


ADAGRAD = replace(TABLE, optimizer={"kind": "rowwise_adagrad", "lr": 0.5})


class FakeStore:
    """What Redis holds after the deltas committed to it."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[bytes, bytes, int, int]] = {}
        self.fields: dict[bytes, bytes] = Position().fields()

    def commit(self, delta: Delta) -> None:
        states = delta.states
        for at, row in enumerate(states.ids.tolist()):
            if states.flags[at] & TOMBSTONE:
                self.rows.pop(row, None)
            else:
                self.rows[row] = (
                    states.rows[at].tobytes(),
                    states.state[at].tobytes(),
                    int(states.lsn[at]),
                    int(states.ordinals[at]),
                )
        self.fields |= delta.fields
        for name in delta.removed:
            self.fields.pop(name, None)

    def fetch(self, ids: list[int], dim: int, size: int) -> RowBlock:
        found = [self.rows.get(row) for row in ids]
        blank = (bytes(4 * dim), bytes(4 * size), 0, 0)
        filled = [row or blank for row in found]
        return RowBlock(
            u64(ids),
            np.array([row is not None for row in found], bool),
            np.frombuffer(b"".join(row[0] for row in filled), "<f4").reshape(-1, dim),
            np.frombuffer(b"".join(row[1] for row in filled), "<f4").reshape(len(ids), size),
            u64([row[2] for row in filled]),
            np.array([row[3] for row in filled], np.uint32),
        )


def drive(shard: Shard, store: FakeStore, records: list[Record]) -> None:
    """Apply `records` as the runner does: fetch what is missing, apply ops behind everything else."""
    while records:
        plan = shard.screen(records)
        fetched = None
        if len(plan.missing):
            assert shard.spec is not None
            fetched = store.fetch(plan.missing.tolist(), shard.spec.dim, shard.spec.state_size)
        shard.apply(plan, fetched)
        if plan.op is not None:
            missing = shard.missing(plan.op.op.ids).tolist() if len(plan.op.op.ids) else []
            if missing:
                assert shard.spec is not None
                shard.cache.enter(store.fetch(missing, shard.spec.dim, shard.spec.state_size))
            shard.apply_op(plan.op)
        records = records[plan.consumed :]


SUBSETS = st.lists(st.sampled_from(MINE[:6]), unique=True, max_size=4).map(sorted)


@st.composite
def logs(draw: st.DrawFn) -> list[Record]:
    """Return a log with gradients, upserts, deletes, repeats, rejects, ops and jumps of time."""
    events: list[Event | bytes] = [spec_op(ADAGRAD)]
    seqs, number = {P: 0, Q: 0}, 1
    for _ in range(draw(st.integers(0, 25))):
        producer = draw(st.sampled_from([P, Q]))
        seqs[producer] += draw(st.sampled_from([0, 1, 1, 1]))
        seq, ids = seqs[producer], draw(SUBSETS)
        value = draw(st.sampled_from([1.0, -0.5, 3e38]))
        match draw(st.sampled_from("gggguud!brs")):
            case "g":
                read_pos = draw(st.none() | st.integers(lsn(1, 0), lsn(1, 30)))
                events.append(gradient(ids, seq, value=value, producer=producer, read_pos=read_pos))
            case "u":
                events.append(upsert(ids, seq, value=value, producer=producer))
            case "d":
                events.append(delete(ids, seq, producer=producer))
            case "!":
                events.append(b"garbage" if draw(st.booleans()) else gradient([*ids[::-1], A], seq))
            case "b":
                number += 1
                events.append(op("barrier", number))
            case "r":
                number += 1
                events.append(restore_rows(ids, number, value=value, table=ADAGRAD))
            case _:
                number += 1
                rate = draw(st.sampled_from([0.5, 0.25]))
                table = replace(ADAGRAD, optimizer={"kind": "rowwise_adagrad", "lr": rate})
                events.append(spec_op(table, number))
    stamps = np.cumsum([draw(st.sampled_from([0, 1, 400, 1500])) for _ in events]).tolist()
    return [record(event, at, at=1000 + stamps[at]) for at, event in enumerate(events)]


@settings(max_examples=120, deadline=None)
@given(logs(), st.data())
def test_batching_caching_and_crashes_leave_no_trace(records: list[Record], data: st.DataObject) -> None:
    whole = Shard("items", 0, KEYRING)
    feed(whole, records)
    store, shard = FakeStore(), Shard("items", 0, KEYRING)
    at = 0
    while at < len(records):
        step = data.draw(st.integers(1, 6), label="batch")
        drive(shard, store, records[at : at + step])
        at += step
        match data.draw(st.sampled_from(["go on", "commit", "trim", "crash"])):
            case "commit":
                store.commit(take(shard))
            case "trim":
                store.commit(take(shard))
                shard.cache.trim(0)
            case "crash":
                shard = Shard("items", 0, KEYRING, Position.from_fields(store.fields))
                at = shard.position.next
            case _:
                pass
    store.commit(take(shard))
    assert store.rows == rows_of(whole)
    assert store.fields == whole.position.fields()
    assert shard.position.snapshot()[0] == whole.position.snapshot()[0]
