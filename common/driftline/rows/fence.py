"""One connection to a shard's server on which its position is watched for this owner.

Invariant: nothing goes out behind a lost fence. A connection that broke is armed anew and
the position compared before anything is sent again, because a WATCH does not survive it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

from redis.exceptions import NoPermissionError, OutOfMemoryError

from driftline.errors import ConfigError, FenceLostError, PositionError, StoreUnavailableError
from driftline.rows import resp
from driftline.rows.connection import Connect, Connection, Reply
from driftline.rows.fields import delays
from driftline.rows.layout import ShardKeys
from driftline.rows.resp import Bytes

FENCE = (b"next", b"owner")


class Fence:
    """What owner `owner` last wrote of a shard, and the connection that watches it."""

    def __init__(self, connect: Connect, keys: ShardKeys, owner: bytes) -> None:
        self._connect, self._keys, self._owner = connect, keys, owner
        self._connection: Connection | None = None
        self._fence: tuple[bytes, bytes] = (b"", b"")
        self._lock = asyncio.Lock()
        self._lost: FenceLostError | None = None
        self.full: str | None = None  # why Redis takes no writes for want of memory, until it does again

    @property
    def owner(self) -> bytes:
        """The token that this owner writes."""
        return self._owner

    @property
    def keys(self) -> ShardKeys:
        """The keys of the shard."""
        return self._keys

    async def close(self) -> None:
        """Close the connection; the shard stays owned until somebody else takes it."""
        await self._drop()

    @property
    def connect(self) -> Connect:
        """What opens further connections to the shard's server; they are not fenced."""
        return self._connect

    @property
    def _name(self) -> str:
        return self._keys.position.decode()

    def _arm(self) -> list[Bytes]:
        key = self._keys.position
        return [resp.command(b"WATCH", key), resp.command(b"HMGET", key, *FENCE)]

    async def _exchange(self, packed: Sequence[Bytes], replies: int) -> list[Reply]:
        if self._lost is not None:
            raise self._lost
        if self._connection is None:
            self._connection = await self._connect()
        answers = await self._connection.exchange(packed, replies)
        for answer in answers:
            if isinstance(answer, NoPermissionError):
                await self._drop()
                raise ConfigError(f"Redis does not let this user work on {self._name}: {answer}")
            if isinstance(answer, Exception):  # out of memory, loading, read-only: nothing was written
                if isinstance(answer, OutOfMemoryError) or str(answer).startswith("OOM"):
                    self.full = f"maxmemory is reached: {answer}"
                raise StoreUnavailableError(f"Redis refused a command on {self._name}: {answer}")
        return answers

    async def _rearm(self, *expected: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        """Reconnect, watch, and return which of the expected fences holds."""
        for delay in delays():
            try:
                _, fence = await self._exchange(self._arm(), 2)
            except StoreUnavailableError:
                await self._drop()
                await asyncio.sleep(delay)
                continue
            for candidate in reversed(expected):
                if fence == list(candidate):
                    return candidate
            raise self._lose(f"after a reconnect the position is {fence!r}, not {expected[0]!r}")
        raise AssertionError("unreachable: delays never end")

    def _check_executed(self, replies: Reply) -> None:
        failed = [reply for reply in cast("list[Reply]", replies) if isinstance(reply, Exception)]
        if failed:  # Redis does not roll back: a key of another type, made by somebody else
            raise PositionError(f"{self._name}: a transaction took effect in part: {failed[0]}")

    def _check_fence(self, reply: Reply, expected: tuple[bytes, bytes]) -> None:
        if reply != list(expected):
            raise self._lose(f"the position is {reply!r}, this owner left it at {expected!r}")

    def _lose(self, message: str) -> FenceLostError:
        """Return the error, and let nothing more go out.

        The connection may watch the other's position by now, and a transaction on it would succeed.
        """
        self._lost = FenceLostError(f"{self._name}: {message}")
        return self._lost

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
