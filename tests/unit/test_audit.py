"""The audit finds every planted difference, and none where a scan merely met traffic."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline import topics
from driftline.audit import ShardAudit, TableAudit, audit_table
from driftline.audit.replay import Replay
from driftline.audit.scan import ShardScan, scan_shard
from driftline.errors import LogUnavailableError, PositionError
from driftline.frames.events import Event
from driftline.log.base import Record
from driftline.rows.connection import RedisConnection
from driftline.rows.layout import RowLayout, ShardKeys
from driftline.rows.shard_store import ShardStore
from driftline.shard.cache import RowBlock
from driftline.shard.machine import Shard
from tests.support.memory_log import MemoryLog
from tests.support.samples import (
    KEYRING,
    MINE,
    TABLE,
    delete,
    feed,
    gradient,
    log_of,
    rows_of,
    take,
    u64,
    upsert,
)

A, B, C, D = MINE[:4]
ROWWISE = replace(TABLE, shards=1, optimizer={"kind": "rowwise_adagrad"})
ADAM = replace(TABLE, shards=1, optimizer={"kind": "adam"})
EVENTS: list[Event | bytes] = [
    gradient([A, B], 1),
    gradient([B, C], 2),
    b"garbage",
    delete([A], 3),
    gradient([A], 4),
    upsert([D], 5),
]
LOG = log_of(EVENTS)


def after(records: list[Record]) -> Shard:
    shard = Shard("items", 0, KEYRING)
    feed(shard, records)
    return shard


def block(rows: dict[int, tuple[bytes, bytes, int, int]]) -> RowBlock:
    values = list(rows.values())
    return RowBlock(
        u64(list(rows)),
        np.ones(len(rows), bool),
        np.frombuffer(b"".join(row for row, _, _, _ in values), "<f4").reshape(-1, 2).copy(),
        np.frombuffer(b"".join(state for _, state, _, _ in values), "<f4")
        .reshape(len(rows), -1 if rows else 0)
        .copy(),
        u64([at for _, _, at, _ in values]),
        np.array([ordinal for _, _, _, ordinal in values], np.uint32),
    )


def scan(records: list[Record] = LOG, begin: int | None = None) -> ShardScan:
    """Return the scan of a shard that stands where the log ends, begun when `begin` records were in."""
    shard = after(records)
    before = after(records[: len(records) if begin is None else begin])
    return ShardScan(before.position.fields(), shard.position.fields(), block(rows_of(shard)))


def audited(scanned: ShardScan, records: list[Record] = LOG, cut: int = 100) -> ShardAudit:
    replay = Replay("items", 0, KEYRING, scanned)
    for start in range(0, len(records), cut):
        replay.feed(records[start : start + cut])
    assert replay.next == replay.end
    return replay.verdict()


def found(audit: ShardAudit) -> list[str]:
    return [difference.what for difference in audit.differences]


@pytest.mark.parametrize("cut", [1, 3, 100])
@pytest.mark.parametrize("begin", range(1, 8))
def test_a_shard_that_is_as_the_log_says_is_ok(begin: int, cut: int) -> None:
    audit = audited(scan(begin=begin), cut=cut)
    assert audit.ok
    assert (audit.records, audit.rows) == (7, 4)


def planted(name: str) -> ShardScan:
    """Return a scan with one thing wrong in row C."""
    rows = rows_of(after(LOG))
    row, state, at, ordinal = rows[C]
    match name:
        case "bit of a row":
            rows[C] = (bytes([row[0] ^ 1]) + row[1:], state, at, ordinal)
        case "lsn":
            rows[C] = (row, state, at - 1, ordinal)
        case "lsn of the future":
            rows[C] = (row, state, at + 1000, ordinal)
        case "ordinal":
            rows[C] = (row, state, at, ordinal + 7)
        case "lost":
            del rows[C]
        case "too many":
            del rows[C]
            rows[MINE[9]] = (row, state, at, ordinal)
        case _:
            raise AssertionError(name)
    return replace(scan(), rows=block(rows))


@pytest.mark.parametrize("name", ["bit of a row", "lsn", "lsn of the future", "ordinal", "lost"])
def test_a_planted_difference_is_found_and_named(name: str) -> None:
    audit = audited(planted(name))
    assert not audit.ok
    assert (found(audit), audit.found) == ([f"row {C}"], 1)


def test_a_row_that_the_log_does_not_know_is_found_beside_the_one_that_is_gone() -> None:
    assert found(audited(planted("too many"))) == [f"row {MINE[9]}", f"row {C}"]


def test_minus_zero_is_not_plus_zero() -> None:
    records = log_of([upsert([A], 1, value=0.0)])
    scanned = scan(records)
    scanned.rows.rows[:] = -0.0
    assert found(audited(scanned, records)) == [f"row {A}"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"time", b"1"),
        (b"ord", b"9"),
        (b"p:" + b"p" * 16, b"0,9,9"),
        (b"p:" + b"x" * 16, b"0,1,1"),
        (b"fp", b""),
    ],
)
def test_a_field_of_the_position_that_differs_is_found(field: bytes, value: bytes) -> None:
    scanned = scan()
    wrong = replace(scanned, after=scanned.after | {field: value}, before=scanned.before)
    audit = audited(wrong)
    assert audit.found == 1
    assert found(audit)[0].startswith("w.")


def test_a_field_that_is_missing_is_found() -> None:
    scanned = scan()
    rest = {name: value for name, value in scanned.after.items() if not name.startswith(b"p:")}
    assert found(audited(replace(scanned, after=rest))) == ["w.p:" + (b"p" * 16).hex()]


def test_only_the_first_differences_are_kept_but_all_are_counted() -> None:
    records = log_of([upsert(MINE[:50], 1)])
    scanned = scan(records)
    scanned.rows.rows[:] = 7
    audit = audited(scanned, records)
    assert (len(audit.differences), audit.found) == (20, 50)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_rows_seen_at_any_moment_of_a_scan_are_right(data: st.DataObject) -> None:
    """HSCAN sees each row at a moment of its own: every mixture of moments must pass."""
    begin = data.draw(st.integers(1, len(LOG)))
    end = data.draw(st.integers(begin, len(LOG)))
    moments = [rows_of(after(LOG[:n])) for n in range(begin, end + 1)]
    seen: dict[int, tuple[bytes, bytes, int, int]] = {}
    for row in {row for rows in moments for row in rows}:
        there = data.draw(st.sampled_from(moments))
        if row in there:
            seen[row] = there[row]
    fields = [after(LOG[:n]).position.fields() for n in (begin, end)]
    scanned = ShardScan(fields[0], fields[1], block(seen))
    if not all(row in seen for row in moments[0] if all(row in rows for rows in moments)):
        return  # a row that was there throughout cannot be missed
    assert audited(scanned, LOG[:end]).differences == ()


def test_a_row_there_throughout_the_scan_must_be_seen() -> None:
    scanned = scan(begin=3)
    rows = rows_of(after(LOG))
    del rows[C]
    assert found(audited(replace(scanned, rows=block(rows)))) == [f"row {C}"]


def test_an_old_row_seen_behind_a_commit_that_changed_it_is_found() -> None:
    stale = rows_of(after(LOG[:2]))
    rows = rows_of(after(LOG)) | {B: stale[B]}  # B changed at offset 2, before the scan began
    assert found(audited(replace(scan(begin=5), rows=block(rows)))) == [f"row {B}"]


class Deployment:
    """A table of one shard in a real Redis, and its log in memory."""

    def __init__(self, url: str, table: object = ROWWISE) -> None:
        self.url, self.name = url, "items"
        self.redis = redis.Redis.from_url(url)
        self.keys = ShardKeys.of("items", 0)
        self.redis.delete(self.keys.values, self.keys.state, self.keys.position)
        self.log = MemoryLog()
        self.records = log_of(EVENTS, table=table)  # type: ignore[arg-type]
        self.log.partitions[topics.gradients("items")] = [list(self.records)]

    async def connect(self) -> RedisConnection:
        return await RedisConnection.open(self.url)

    async def commit(self) -> None:
        store = ShardStore(self.connect, self.keys, b"me")
        await store.take()
        shard = after(self.records)
        assert shard.spec is not None
        await store.commit(RowLayout(shard.spec.dim, shard.spec.state_size), take(shard), 3)
        await store.close()

    async def audit(self) -> TableAudit:
        return await audit_table(self.log, self.connect, KEYRING, "items", 1)

    def close(self) -> None:
        self.redis.delete(self.keys.values, self.keys.state, self.keys.position)
        self.redis.close()


@pytest.fixture(params=[ROWWISE, ADAM], ids=["inline state", "separate state"])
def deployment(redis_factory: object, request: pytest.FixtureRequest) -> Deployment:
    server = redis_factory()  # type: ignore[operator]  # the table's name is in the frames: a Redis of its own
    return Deployment(server.url, request.param)


async def test_a_table_in_redis_is_audited_as_a_whole(deployment: Deployment) -> None:
    await deployment.commit()
    audit = await deployment.audit()
    assert audit.ok
    assert (audit.rows, audit.records) == (4, 7)
    row = A.to_bytes(8, "little")
    value = cast(bytes, deployment.redis.hget(deployment.keys.values, row))
    deployment.redis.hset(deployment.keys.values, row, b"\1" + value[1:])
    audit = await deployment.audit()
    assert not audit.ok
    assert found(audit.shards[0]) == [f"row {A}"]
    deployment.close()


async def test_what_cannot_be_audited_says_why(deployment: Deployment) -> None:
    (nothing,) = (await deployment.audit()).shards
    assert (nothing.ok, nothing.reason) == (False, "Redis holds nothing of this shard")
    await deployment.commit()
    deployment.log.begins[topics.gradients("items"), 0] = 2
    (trimmed,) = (await deployment.audit()).shards
    assert not trimmed.ok
    assert "starts at offset 2" in (trimmed.reason or "")
    deployment.close()


async def test_a_log_that_ends_before_the_position_is_not_ok(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("driftline.audit.run._WAIT", 0.0)
    await deployment.commit()
    del deployment.log.partitions[topics.gradients("items")][0][-1]
    with pytest.raises(LogUnavailableError, match="did not come"):
        await deployment.audit()
    deployment.close()


async def test_a_scan_reads_what_was_committed_and_refuses_foreign_fields(deployment: Deployment) -> None:
    connection = await deployment.connect()
    assert await scan_shard(connection, deployment.keys) is None
    await deployment.commit()
    scanned = await scan_shard(connection, deployment.keys)
    assert scanned is not None
    assert scanned.begin == scanned.end
    assert {b"owner", b"published"} & scanned.before.keys() == set()
    assert sorted(scanned.rows.ids.tolist()) == sorted([A, B, C, D])
    deployment.redis.hset(deployment.keys.values, b"short", b"x")
    with pytest.raises(PositionError, match="not ids"):
        await scan_shard(connection, deployment.keys)
    await connection.close()
    deployment.close()


def test_verdicts_add_up() -> None:
    good, bad = ShardAudit(0, 5, 3, (), 0), ShardAudit(1, 0, 0, (), 0, "why")
    table = TableAudit("items", (good, bad))
    assert (good.ok, bad.ok, table.ok) == (True, False, False)
    assert (table.rows, table.records) == (3, 5)
