"""One connection to Redis that sends packed commands and returns their replies.

Invariant: an `exchange` that raises StoreUnavailableError leaves a connection
that is broken for good, so that no reply can be taken for another's and no WATCH
can be believed in after a reconnect.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import redis.asyncio
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from driftline.errors import ConfigError, StoreUnavailableError
from driftline.rows.address import redact
from driftline.rows.resp import Bytes

Reply = bytes | int | None | list["Reply"] | Exception
"""A parsed reply; an error reply is an exception instance, not raised."""

EXCHANGE_TIMEOUT = 5.0
"""Seconds without the replies after which a connection is given up; large commands get more, see `patience`.

What a path that has gone costs after it is back. A Redis that is busy for longer (a script, a
slow disk under `appendfsync always`) is asked again on a new connection until it answers.
"""
_SLOWEST = 1 << 20  # bytes a second that a healthy path carries at least


def patience(size: int) -> float:
    """Return how long the replies to commands of `size` bytes are waited for, in seconds."""
    return EXCHANGE_TIMEOUT + size / _SLOWEST


class Connection(Protocol):
    """What the store needs of a connection; the simulation has one of its own."""

    async def exchange(self, packed: Sequence[Bytes], replies: int) -> list[Reply]:
        """Send `packed` and return that many replies. Raises StoreUnavailableError."""
        ...

    async def close(self) -> None: ...


Connect = Callable[[], Awaitable[Connection]]


class RedisConnection:
    """A connection of redis-py's own, so that TLS, users and passwords stay the library's business."""

    def __init__(self, connection: redis.asyncio.Connection) -> None:
        self._connection = connection
        self._broken = False

    @classmethod
    async def open(cls, url: str) -> RedisConnection:
        """Connect to `url`. Raises ConfigError for a malformed URL, StoreUnavailableError otherwise."""
        try:
            # Without a socket time-out of its own (`exchange` has one): with it redis-py sends under
            # asyncio.wait_for, which on Python 3.11 may swallow a cancellation.
            pool = redis.asyncio.ConnectionPool.from_url(
                url, protocol=2, socket_connect_timeout=5, socket_timeout=None
            )
        except ValueError:  # its text may hold a part of the password
            raise ConfigError(f"Redis URL {redact(url)!r} is malformed") from None
        connection: redis.asyncio.Connection = pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            # redis-py's own limit covers TCP alone, not the greeting: a path that swallows it would hang us
            async with asyncio.timeout(EXCHANGE_TIMEOUT):
                await connection.connect()  # type: ignore[no-untyped-call]
        except (AuthenticationError, NoPermissionError) as error:
            raise ConfigError(f"Redis at {redact(url)} refuses the login: {error}") from None
        except (TimeoutError, RedisError, OSError) as error:
            with contextlib.suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)
            reason = (
                f"no greeting within {EXCHANGE_TIMEOUT:g} s" if isinstance(error, TimeoutError) else error
            )
            raise StoreUnavailableError(f"Redis at {redact(url)}: {reason}") from error
        return cls(connection)

    async def exchange(self, packed: Sequence[Bytes], replies: int) -> list[Reply]:
        if self._broken:
            raise StoreUnavailableError("the connection to Redis is broken")
        data = b"".join(packed)
        try:
            async with asyncio.timeout(patience(len(data))):
                await self._connection.send_packed_command(data, check_health=False)
                return [await self._read() for _ in range(replies)]
        except (RedisError, OSError, TimeoutError) as error:
            self._broken = True
            await self.close()
            raise StoreUnavailableError(f"Redis: {type(error).__name__}: {error}") from error
        except asyncio.CancelledError:
            self._broken = True  # replies may be under way
            raise

    async def _read(self) -> Reply:
        try:
            reply: Reply = await self._connection.read_response(disconnect_on_error=False)
        except ResponseError as error:
            return error
        return reply

    async def close(self) -> None:
        self._broken = True
        with contextlib.suppress(RedisError, OSError):  # closing a broken socket may fail again
            await self._connection.disconnect(nowait=True)
