"""Asks shards, wherever they are: one pipelined round trip per server.

Invariant: an answer is from where the shard lives. One that says otherwise (a signpost,
MOVED) has the shard looked for, and is asked for once more. Reads change nothing, so a
broken connection is tried anew once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from driftline.client.asking import Pipeline, Request, elsewhere, in_order, pipelines
from driftline.errors import StoreUnavailableError
from driftline.rows.connection import Connection, Reply
from driftline.rows.servers import Servers


class Asker:
    """Idle connections by endpoint, and the servers they lead to; for one event loop."""

    def __init__(self, servers: Servers) -> None:
        self.servers = servers
        self._idle: dict[str, list[Connection]] = {}

    async def ask(self, table: str, requests: Sequence[Request]) -> list[Reply]:
        """Return the replies to all requests, in their order. Raises StoreUnavailableError."""
        answers = await self._answers(table, requests)
        if lost := elsewhere(answers):
            await self.servers.forget(table, lost)
            answers |= await self._answers(table, [each for each in requests if each.shard in lost])
            if lost := elsewhere(answers):
                raise StoreUnavailableError(f"shard {table}:{lost[0]} is changing servers")
        return in_order(requests, answers)

    async def locate(self, table: str, shards: Sequence[int]) -> dict[int, str]:
        """Return the endpoint of each shard. Raises StoreUnavailableError."""
        return await self.servers.locate(table, shards)

    async def close(self) -> None:
        """Close all connections; a later call opens new ones."""
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                await connection.close()

    async def _answers(self, table: str, requests: Sequence[Request]) -> dict[int, list[Reply]]:
        if not requests:
            return {}
        homes = await self.locate(table, [each.shard for each in requests])
        parts = pipelines(requests, homes)
        try:
            if len(parts) == 1:
                ((endpoint, part),) = parts.items()
                return part.answers(await self._exchange(endpoint, part))
            told = await asyncio.gather(*(self._exchange(endpoint, part) for endpoint, part in parts.items()))
        except StoreUnavailableError:
            await self.lost(table, homes)
            raise
        answers: dict[int, list[Reply]] = {}
        for part, replies in zip(parts.values(), told, strict=True):
            answers |= part.answers(replies)
        return answers

    async def lost(self, table: str, shards: Sequence[int] | dict[int, str]) -> None:
        """Look for shards anew next time: their server does not answer, another may have taken over."""
        if self.servers.several:
            try:
                await self.servers.forget(table, shards)
            except StoreUnavailableError:
                return  # nobody answers: the error on its way to the caller says so

    async def _exchange(self, endpoint: str, part: Pipeline) -> list[Reply]:
        packed, replies = part.packed, part.replies
        idle = self._idle.setdefault(endpoint, [])
        while idle:
            connection = idle.pop()
            try:
                answers = await connection.exchange(packed, replies)
            except StoreUnavailableError:
                continue  # it may have been idle through a restart of Redis
            idle.append(connection)
            return answers
        connection = await self.servers.open(endpoint)
        answers = await connection.exchange(packed, replies)
        self._idle.setdefault(endpoint, []).append(connection)
        return answers
