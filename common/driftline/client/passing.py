"""Waiting until the shards have passed an op: what their positions in Redis say.

Invariant: a shard that does not answer has not passed; a wait that ends without an error has
seen every shard behind the op.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from driftline.client.asking import Request
from driftline.client.operations import Requested
from driftline.errors import StoreUnavailableError, TimedOutError

if TYPE_CHECKING:
    from driftline.client.aio import AsyncClient

_POLL = 0.005


async def wait_for_op(
    client: AsyncClient, shards: Mapping[str, int], asked: Requested, timeout: float
) -> None:
    """Return once every shard has passed an op. Raises TimedOutError, and why it was refused."""
    if not shards:  # nobody will pass it
        return
    try:
        await client.operations.wait(asked, _passed(client, shards, asked.number), timeout)
    except TimeoutError:
        behind = await _behind(client, shards, asked.number)
        if not behind:
            return
        raise TimedOutError(
            f"op {asked.number}: {len(behind)} of {sum(shards.values())} shards did not pass it within "
            f"{timeout} s, the first is {behind[0][0]}:{behind[0][1]}; does an aggregator run for "
            f"{client.group!r}?"
        ) from None


async def wait_for_rows(
    client: AsyncClient, table: str, shards: int, ops: Iterable[int], timeout: float
) -> None:
    """Return once every shard of a table has passed ops that put rows back. Raises TimedOutError."""
    numbers = tuple(ops)
    try:
        async with asyncio.timeout(timeout):
            for number in numbers:
                await _passed(client, {table: shards}, number)
    except TimeoutError:
        raise TimedOutError(
            f"the rows are on their way: not all shards of {table} passed ops {numbers} in {timeout} s"
        ) from None


async def _passed(client: AsyncClient, shards: Mapping[str, int], number: int) -> None:
    while True:
        if not await _behind(client, shards, number):
            return
        await asyncio.sleep(_POLL)


async def _behind(client: AsyncClient, shards: Mapping[str, int], number: int) -> list[tuple[str, int]]:
    """Return the shards that have not passed an op; one that does not answer has not."""
    behind: list[tuple[str, int]] = []
    for name, n in shards.items():
        asked = [Request.of(name, shard, (b"op",)) for shard in range(n)]
        try:
            replies = await client.asker.ask(name, asked)
        except StoreUnavailableError:
            replies = [None] * n
        for shard, reply in enumerate(replies):
            op = reply[0] if isinstance(reply, list) else None
            if not isinstance(op, bytes) or int(op) < number:
                behind.append((name, shard))
    return behind
