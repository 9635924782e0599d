"""Small tables and logs for tests of the core: specs, records, signed ops.

Invariant: what is built here is what a well-behaved client and router would
write; a test breaks one thing of it and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from driftline.frames.events import (
    SPEC,
    Delete,
    Event,
    Gradient,
    Op,
    Origin,
    Upsert,
    write_event,
)
from driftline.frames.headers import Keyring
from driftline.ids import OPS_PRODUCER, shard_of
from driftline.log.base import Headers, Record
from driftline.shard.machine import Delta, Shard
from driftline.shard.spec import Init, Policy, TableSpec

KEYRING = Keyring(b"k" * 32)
STRANGER = Keyring(b"s" * 32)
P, Q = b"p" * 16, b"q" * 16
TTL = 1000  # ms of log time

TABLE = TableSpec(
    "items",
    2,
    shards=2,
    optimizer={"kind": "sgd", "lr": 0.5},
    init=Init(seed=1, scale=0.1),
    policy=Policy(max_frame=4096, producer_ttl_ms=TTL),
)
MINE = [row for row in range(200) if shard_of(np.array([row], np.uint64), 2)[0] == 0]
"""Ids of shard 0 of 2, increasing."""
FOREIGN = next(row for row in range(200) if row not in MINE)


def u64(values: Sequence[int]) -> NDArray[np.uint64]:
    return np.array(values, np.uint64)


def f32(values: ArrayLike, width: int = 2) -> NDArray[np.float32]:
    return np.array(values, np.float32).reshape(-1, width)


def gradient(
    ids: Sequence[int],
    seq: int,
    *,
    value: float = 1.0,
    producer: bytes = P,
    epoch: int = 0,
    read_pos: int | None = None,
    lr: float | None = None,
    table: TableSpec = TABLE,
) -> Gradient:
    """Return a gradient of `value` everywhere."""
    grads = np.full((len(ids), table.dim), value, np.float32)
    rate = None if lr is None else np.float32(lr)
    return Gradient(table.name, 0, Origin(producer, epoch, seq), u64(ids), grads, read_pos, rate)


def upsert(
    ids: Sequence[int], seq: int, *, value: float = 1.0, producer: bytes = P, table: TableSpec = TABLE
) -> Upsert:
    rows = np.full((len(ids), table.dim), value, np.float32)
    return Upsert(table.name, 0, Origin(producer, 0, seq), u64(ids), rows)


def delete(ids: Sequence[int], seq: int, *, producer: bytes = P) -> Delete:
    return Delete("items", 0, Origin(producer, 0, seq), u64(ids))


def op(kind: str, number: int, body: dict[str, object] | None = None, *, shard: int = 0) -> Op:
    return Op(kind, "items", shard, Origin(OPS_PRODUCER, 0, number), body or {})


def restore_rows(ids: Sequence[int], number: int, *, value: float = 1.0, table: TableSpec = TABLE) -> Op:
    rows = np.full((len(ids), table.dim), value, np.float32)
    state = np.zeros((len(ids), table.state_size), np.float32)
    return replace(op("restore-rows", number), ids=u64(ids), rows=rows, state=state)


def spec_op(table: TableSpec = TABLE, number: int = 1) -> Op:
    return op(SPEC, number, table.to_json())


def record(
    event: Event | bytes,
    offset: int,
    *,
    at: int | None = None,
    keyring: Keyring | None = KEYRING,
    headers: Headers = (),
    group: str = "default",
) -> Record:
    """Return `event` as a record of the log; ops are signed, `at` is the log time in ms."""
    more = {"group": group} if isinstance(event, Op) else {}
    value = event if isinstance(event, bytes) else write_event(event, more=more)
    signature = keyring.sign(value) if keyring is not None and isinstance(event, Op) else ()
    return Record(offset, 1_000_000 + offset if at is None else at, None, value, (*headers, *signature))


def log_of(events: Sequence[Event | bytes], *, table: TableSpec = TABLE) -> list[Record]:
    """Return a whole log: the table's spec at offset 0, then `events`."""
    return [record(event, offset) for offset, event in enumerate([spec_op(table), *events])]


def feed(shard: Shard, records: Sequence[Record]) -> list[str]:
    """Apply `records` without a store, all rows in memory; return the reasons of what was rejected."""
    reasons: list[str] = []
    rest = list(records)
    while rest:
        plan = shard.screen(rest)
        shard.apply(plan, None)
        reasons += [rejected.reason for rejected in plan.rejected]
        if plan.op is not None:
            shard.apply_op(plan.op)
        rest = rest[plan.consumed :]
    return reasons


def born(table: TableSpec = TABLE) -> Shard:
    """Return shard 0 of a table behind its spec."""
    shard = Shard(table.name, 0, KEYRING)
    feed(shard, log_of([], table=table))
    return shard


def take(shard: Shard) -> Delta:
    """Take the delta and settle it at once."""
    delta = shard.take_delta()
    shard.committed()
    return delta


def rows_of(shard: Shard) -> dict[int, tuple[bytes, bytes, int, int]]:
    """Return every live row in memory: id -> row, state, LSN, ordinal."""
    cache = shard.cache
    return {
        int(cache.ids[slot]): (
            cache.rows[slot].tobytes(),
            cache.state[slot].tobytes(),
            int(cache.lsn[slot]),
            int(cache.ordinals[slot]),
        )
        for slot in np.flatnonzero(cache.alive[: cache.used])
    }
