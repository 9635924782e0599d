"""One connection to a real Redis: error replies are values, broken is broken for good."""

from __future__ import annotations

import asyncio

import pytest

from driftline.errors import ConfigError, StoreUnavailableError
from driftline.rows import connection as module
from driftline.rows.address import redact
from driftline.rows.connection import RedisConnection
from driftline.rows.resp import command
from driftline.servers.local import free_ports


async def test_replies_come_in_the_order_of_the_commands(redis_url: str) -> None:
    connection = await RedisConnection.open(redis_url)
    packed = [command(b"SET", b"conn:a", b"1"), command(b"GET", b"conn:a"), command(b"DEL", b"conn:a", b"x")]
    assert await connection.exchange(packed, 3) == [b"OK", b"1", 1]
    assert await connection.exchange([command(b"HMGET", b"conn:b", b"x", b"y")], 1) == [[None, None]]
    await connection.close()


async def test_an_error_reply_is_a_value_and_breaks_nothing(redis_url: str) -> None:
    connection = await RedisConnection.open(redis_url)
    packed = [command(b"NONSENSE"), command(b"PING")]
    error, pong = await connection.exchange(packed, 2)
    assert isinstance(error, Exception)
    assert pong == b"PONG"
    assert await connection.exchange([command(b"PING")], 1) == [b"PONG"]
    await connection.close()


async def test_once_broken_it_stays_broken(redis_url: str) -> None:
    connection, other = await RedisConnection.open(redis_url), await RedisConnection.open(redis_url)
    (number,) = await connection.exchange([command(b"CLIENT", b"ID")], 1)
    assert isinstance(number, int)
    await other.exchange([command(b"CLIENT", b"KILL", b"ID", b"%d" % number)], 1)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError):
            await connection.exchange([command(b"PING")], 1)
    await other.close()


async def test_an_answer_that_does_not_come_breaks_it(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXCHANGE_TIMEOUT", 0.05)
    connection = await RedisConnection.open(redis_url)
    with pytest.raises(StoreUnavailableError, match="TimeoutError"):
        await connection.exchange([command(b"PING")], 2)
    with pytest.raises(StoreUnavailableError, match="is broken"):
        await connection.exchange([command(b"PING")], 1)


async def test_a_cancelled_exchange_breaks_it_for_replies_may_be_under_way(redis_url: str) -> None:
    connection = await RedisConnection.open(redis_url)
    waiting = asyncio.create_task(connection.exchange([command(b"BLPOP", b"conn:never", b"5")], 1))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(StoreUnavailableError, match="is broken"):
        await connection.exchange([command(b"PING")], 1)
    await connection.close()


async def test_nobody_there_means_unavailable() -> None:
    with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1"):
        await RedisConnection.open(f"redis://127.0.0.1:{free_ports(1)[0]}/0")


async def test_a_malformed_url_is_a_configuration_error_without_the_password() -> None:
    with pytest.raises(ConfigError) as caught:
        await RedisConnection.open("mysql://me:secret@host")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:1/0", "redis://host:1/0"),
        ("redis://me:secret@host:1/0", "redis://me:***@host:1/0"),
        ("redis://:secret@host", "redis://:***@host"),
        ("rediss://me:se@cret@host", "rediss://me:***@host"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert redact(url) == shown
