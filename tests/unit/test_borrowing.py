"""What is private to redis-py and read by us: a release that moves it shows here, not in slow reads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import cast
from unittest.mock import MagicMock

import pytest
import redis
from redis.exceptions import ConnectionError as Broken

from driftline.client import sync_asker
from driftline.client.asker import Asker
from driftline.client.borrowing import borrow
from driftline.client.consistent import ConsistentQuery
from driftline.client.landing import OddReply
from driftline.client.pinned import PinnedQuery
from driftline.client.reading import Query, Rows
from driftline.client.sync_asker import Decode, SyncAsker
from driftline.rows.deployed import register_key, values_key
from driftline.rows.layout import RowLayout, ShardKeys
from driftline.rows.resp import command
from driftline.rows.servers import Servers
from tests.support.samples import MINE, TABLE, u64


@pytest.fixture
def connection(redis_url: str) -> Iterator[redis.Connection]:
    pool = redis.ConnectionPool.from_url(redis_url, protocol=2)
    made = cast("redis.Connection", pool.make_connection())
    made.connect()  # type: ignore[no-untyped-call]
    yield made
    made.disconnect()  # type: ignore[no-untyped-call]


def send(connection: redis.Connection, *packed: bytes) -> None:
    connection.send_packed_command([b"".join(packed)], check_health=False)  # type: ignore[no-untyped-call]


def test_the_socket_is_read_directly_and_the_parser_goes_on_with_what_it_is_given(
    connection: redis.Connection,
) -> None:
    send(connection, command(b"PING"), command(b"ECHO", b"x" * 20))
    receive, feed = borrow(connection)
    room = memoryview(bytearray(9))
    size = receive(room)
    assert bytes(room[:size]).startswith(b"+PONG")
    feed(bytes(room[:size]))
    assert [connection.read_response() for _ in range(2)] == [b"PONG", b"x" * 20]


def test_a_connection_that_its_server_closed_is_broken(connection: redis.Connection) -> None:
    send(connection, command(b"QUIT"))
    receive, _ = borrow(connection)
    room = memoryview(bytearray(64))
    assert receive(room) == len(b"+OK\r\n")
    with pytest.raises((Broken, OSError)):
        receive(room)


def test_another_parser_reads_by_itself(
    connection: redis.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_parser", None)
    receive, feed = borrow(connection)
    with pytest.raises(OddReply):
        receive(memoryview(bytearray(1)))
    feed(b"")


@pytest.mark.parametrize("kind", ["ordinary", "consistent", "pinned"])
def test_no_kind_of_read_needs_the_parser(
    connection: redis.Connection, redis_url: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    table = replace(TABLE, name=f"borrowed-{kind}")
    keys, query = ShardKeys.of(table.name, 0), Query.of(u64(MINE[:2]), table.shards)
    value = b"\1" * RowLayout.of(table).value_bytes
    rows = {row.to_bytes(8, "little"): value for row in MINE[:2]}
    with redis.Redis.from_url(redis_url) as stored:
        stored.hset(keys.position.decode(), mapping={"next": 107, "gen": 1, "epoch": 3})
        stored.hset(keys.values.decode(), mapping=rows)
        stored.hset(values_key(keys, "v1").decode(), mapping=rows)
        stored.hset(register_key(keys).decode(), "v1", "2,token")
    consistent, pinned = ConsistentQuery(query, table), PinnedQuery(query, table, "v1")
    requests = {
        "ordinary": query.requests(table.name),
        "consistent": consistent.requests(),
        "pinned": pinned.requests(),
    }[kind]
    receive_only = MagicMock(side_effect=lambda each: (borrow(each)[0], pytest.fail))
    monkeypatch.setattr(sync_asker, "borrow", receive_only)
    asker = SyncAsker(Asker(Servers.at(redis_url)), asyncio.run)
    decode: dict[str, Decode[Rows | None]] = {
        "ordinary": lambda answers, landed: query.decode(answers, table, "raise", landed),
        "consistent": lambda answers, landed: consistent.decode(answers, "raise", landed),
        "pinned": lambda answers, landed: pinned.decode(answers, "raise", landed),
    }
    rows_read = asker.read(table.name, requests, len(value), decode[kind])
    asker.close()
    assert receive_only.called
    assert rows_read is not None
    assert rows_read.vectors.tobytes() == (value[: 4 * table.dim]) * 2
