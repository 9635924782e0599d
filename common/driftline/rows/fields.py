"""Reads fields of a shard's position without owning it.

Invariant: waits for Redis as long as it takes, with a back-off that all of `rows` shares.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import repeat
from typing import cast

from driftline.errors import StoreUnavailableError
from driftline.rows import resp
from driftline.rows.connection import Connect, Reply
from driftline.rows.layout import ShardKeys

_BACK_OFF = (0.01, 0.05, 0.2, 0.5, 1.0)


def pairs(reply: Reply) -> dict[bytes, bytes]:
    """Return the fields in a reply to HGETALL."""
    return dict(zip(*names_and_values(reply), strict=True))


def names_and_values(reply: Reply) -> tuple[list[bytes], list[bytes]]:
    """Return the names and the values in a reply to HGETALL."""
    items = cast("list[bytes]", reply)
    return items[::2], items[1::2]


async def read_fields(connect: Connect, keys: ShardKeys, *names: bytes) -> list[bytes | None]:
    """Return fields of a shard's position, None where not stored; waits for Redis as long as it takes."""
    for delay in delays():
        try:
            connection = await connect()
            try:
                (reply,) = await connection.exchange([resp.command(b"HMGET", keys.position, *names)], 1)
            finally:
                await connection.close()
            if isinstance(reply, list):
                return cast("list[bytes | None]", reply)
        except StoreUnavailableError:
            pass  # waited out below
        await asyncio.sleep(delay)
    raise AssertionError("unreachable: delays never end")


def delays() -> Iterator[float]:
    """Yield back-off times in seconds, without end."""
    yield from _BACK_OFF
    yield from repeat(_BACK_OFF[-1])
