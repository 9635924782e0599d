"""What is private to redis-py and read by us: a release that moves it shows here, not in slow reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest
import redis
from redis.exceptions import ConnectionError as Broken

from driftline.client.borrowing import borrow
from driftline.client.landing import OddReply
from driftline.rows.resp import command


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
