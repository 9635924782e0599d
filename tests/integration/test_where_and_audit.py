"""`driftline where` and `driftline audit`: where a row is, and whether it is what the log says."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import redis

from driftline import Client, TableSpec
from driftline.ids import shard_of
from driftline.rows.layout import ShardKeys
from tests.integration.commands import driftline, environment
from tests.integration.deployment import LOCAL, Deployment, Worker, pushed
from tests.integration.traffic import Traffic
from tests.support.waiting import until

ROW = 0x0A0D00FF22275C01  # bytes that a shell and redis-cli treat specially: \1 \\ ' " \xff \0 \r \n
SGD = {"kind": "sgd", "lr": 1.0}
IDS = np.array([ROW, 1, 2, 3, 4, 5, 6, 7], np.uint64)


@pytest.fixture(scope="module")
def spec(deployment: Deployment, worker: Worker) -> TableSpec:
    """A table with eight rows whose optimizer state lies in a hash of its own; who damages it repairs it."""
    with deployment.client() as client:
        table = client.create_table(deployment.spec(dim=4, optimizer={"kind": "adam", "lr": 0.01}))
        for _ in range(3):
            table.push(IDS, np.ones((8, 4), np.float32))
        table.wait_readable()
        client.snapshot()
    return table.spec


@pytest.fixture
def store(deployment: Deployment) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(deployment.redis_url) as client:
        yield client


def test_where_prints_a_command_that_gets_the_row(
    deployment: Deployment, client: Client, spec: TableSpec, tmp_path: Path
) -> None:
    told = driftline("where", spec.name, str(ROW), cwd=tmp_path, settings=deployment.environment())
    assert told.returncode == 0, told.stderr
    command = told.stdout.strip().splitlines()[-1]
    value = subprocess.run(
        ["sh", "-c", command], env=environment(), capture_output=True, check=True, timeout=20
    ).stdout
    expected = client.table(spec.name).get([ROW], on_missing="raise")
    assert value[:16] == expected.vectors.tobytes()
    assert struct.unpack_from("<Q", value, 16)[0] == expected.lsn[0]


@pytest.mark.parametrize("deployment", [LOCAL], indirect=True, scope="module")
def test_where_tells_shard_keys_and_row_as_json(
    deployment: Deployment, client: Client, spec: TableSpec, tmp_path: Path
) -> None:
    settings = deployment.environment()
    told = json.loads(driftline("where", spec.name, "3", "--json", cwd=tmp_path, settings=settings).stdout)
    shard = int(shard_of(np.array([3], np.uint64), 2)[0])
    assert (told["shard"], told["shards"], told["exists"]) == (shard, 2, True)
    assert told["values_key"] == f"dl:{{{spec.name}:{shard}}}:v"
    assert told["row"] == pushed(client.table(spec.name), np.array([3], np.uint64))[0].tolist()
    unborn = json.loads(
        driftline("where", spec.name, "999", "--json", cwd=tmp_path, settings=settings).stdout
    )
    assert unborn["exists"] is False


@pytest.mark.parametrize("deployment", [LOCAL], indirect=True, scope="module")
@pytest.mark.parametrize("row", ["-1", "18446744073709551616", "seven", "1.5"])
def test_where_refuses_what_is_no_id(deployment: Deployment, tmp_path: Path, row: str) -> None:
    told = driftline("where", "users", "--", row, cwd=tmp_path, settings=deployment.environment())
    assert told.returncode == 2
    assert told.stderr.strip() == f"driftline: id {row!r} is not a whole number from 0 to 2^64 - 1"


def audit(deployment: Deployment, spec: TableSpec, cwd: Path) -> subprocess.CompletedProcess[str]:
    return driftline("audit", spec.name, cwd=cwd, settings=deployment.environment())


def test_audit_says_ok_when_redis_holds_what_the_log_gives(
    deployment: Deployment, spec: TableSpec, tmp_path: Path
) -> None:
    done = audit(deployment, spec, tmp_path)
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith(f"audit of {spec.name}: ok (8 rows, ")


@pytest.mark.parametrize("deployment", [LOCAL], indirect=True, scope="module")
def test_audit_of_an_unknown_table_says_so(deployment: Deployment, worker: object, tmp_path: Path) -> None:
    done = driftline("audit", "nobody", cwd=tmp_path, settings=deployment.environment())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("driftline: no table 'nobody'")


Damage = Callable[[redis.Redis, ShardKeys, bytes], Callable[[], object]]
"""Does damage and returns how to undo it."""


def flip(key: bytes, byte: int) -> Damage:
    """Flip the lowest bit of one byte of a value in a shard's hash `key`."""

    def damage(store: redis.Redis, keys: ShardKeys, row: bytes) -> Callable[[], object]:
        name = {b"v": keys.values, b"s": keys.state}[key]
        before = bytes(store.hget(name, row))  # type: ignore[arg-type]
        store.hset(name, row, before[:byte] + bytes([before[byte] ^ 1]) + before[byte + 1 :])
        return lambda: store.hset(name, row, before)

    return damage


def remove(store: redis.Redis, keys: ShardKeys, row: bytes) -> Callable[[], object]:
    before = bytes(store.hget(keys.values, row))  # type: ignore[arg-type]
    store.hdel(keys.values, row)
    return lambda: store.hset(keys.values, row, before)


def add(store: redis.Redis, keys: ShardKeys, row: bytes) -> Callable[[], object]:
    other = struct.pack("<Q", 4711)
    for key in (keys.values, keys.state):
        store.hset(key, other, bytes(store.hget(key, row)))  # type: ignore[arg-type]
    return lambda: [store.hdel(key, other) for key in (keys.values, keys.state)]


def remove_state(store: redis.Redis, keys: ShardKeys, row: bytes) -> Callable[[], object]:
    before = bytes(store.hget(keys.state, row))  # type: ignore[arg-type]
    store.hdel(keys.state, row)
    return lambda: store.hset(keys.state, row, before)


def cut(store: redis.Redis, keys: ShardKeys, row: bytes) -> Callable[[], object]:
    before = bytes(store.hget(keys.values, row))  # type: ignore[arg-type]
    store.hset(keys.values, row, before[:-1])
    return lambda: store.hset(keys.values, row, before)


def change(field: bytes, value: bytes) -> Damage:
    def damage(store: redis.Redis, keys: ShardKeys, row: bytes) -> Callable[[], object]:
        before = bytes(store.hget(keys.position, field))  # type: ignore[arg-type]
        store.hset(keys.position, field, value)
        return lambda: store.hset(keys.position, field, before)

    return damage


FOUND: dict[str, tuple[Damage, str]] = {
    "a bit flipped in a row": (flip(b"v", 7), f"row {ROW}: stored"),
    "a bit flipped in a row's LSN": (flip(b"v", 16), f"row {ROW}: stored"),
    "a bit flipped in a row's ordinal": (flip(b"v", 24), f"row {ROW}: stored"),
    "a bit flipped in a row's optimizer state": (flip(b"s", 5), f"row {ROW}: stored"),
    "a row removed": (remove, f"row {ROW}: stored absent, the log gives alive"),
    "a row too many": (add, "row 4711: stored"),
    "a row without its optimizer state": (remove_state, f"not audited: row {ROW} is stored without"),
    "a value cut short": (cut, "not audited: "),
    "the next ordinal changed": (change(b"ord", b"77"), "w.ord: stored 77"),
    "the number of rows changed": (change(b"rows", b"1"), "w.rows: stored 1"),
}


@pytest.mark.parametrize("deployment", [LOCAL], indirect=True, scope="module")
@pytest.mark.parametrize(("damage", "said"), FOUND.values(), ids=FOUND.keys())
def test_audit_finds_and_names(
    deployment: Deployment, spec: TableSpec, store: redis.Redis, tmp_path: Path, damage: Damage, said: str
) -> None:
    shard = int(shard_of(IDS[:1], 2)[0])
    undo = damage(store, ShardKeys.of(spec.name, shard), IDS[:1].tobytes())
    try:
        done = audit(deployment, spec, tmp_path)
    finally:
        undo()
    assert done.returncode == 1, done.stderr
    assert f"shard {shard}: {said}" in done.stdout
    assert f"audit of {spec.name}: FAILED" in done.stdout


def test_audit_is_ok_while_events_flow(deployment: Deployment, client: Client, tmp_path: Path) -> None:
    table = client.create_table(deployment.spec(shards=3))
    with Traffic(deployment, table) as traffic:
        traffic.wait_until_applied()
        first = traffic.steps
        done = audit(deployment, table.spec, tmp_path)
        assert done.returncode == 0, done.stdout
        assert traffic.steps > first


def test_a_shard_that_redis_lost_rows_of_stops_alone_and_says_why(
    deployment: Deployment, client: Client, store: redis.Redis, worker: Worker
) -> None:
    damaged, sound = deployment.spec(optimizer=SGD), deployment.spec(optimizer=SGD)
    tables = [client.create_table(spec) for spec in (damaged, sound)]
    for table in tables:
        table.push(IDS, np.ones((8, 4), np.float32))
        table.wait_readable()
    shard = int(shard_of(IDS[:1], 2)[0])
    keys = ShardKeys.of(damaged.name, shard)
    store.hdel(keys.values, IDS[:1].tobytes())
    client.create_table(deployment.spec())  # a rebalance: every shard is taken over again
    until(lambda: f"shard {damaged.name}:{shard} stopped" in worker.log, "the shard stops", seconds=20)
    for table in (tables[1], client.create_table(deployment.spec())):  # others go on, and new ones come
        table.push(IDS, np.ones((8, 4), np.float32))
        table.wait_readable()
    store.delete(keys.values, keys.position)  # as the message says: it is rebuilt from the log
    client.create_table(deployment.spec())
    until(lambda: deployment.audit(damaged).ok, "the shard is as the log says", seconds=20)
