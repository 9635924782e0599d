"""Which master of a Redis Cluster serves a key, kept up to date by whoever meets a change.

Invariant: a connection goes to the master of its key's slot as the cluster last
said; whoever connects again after a failure has the map read anew first, so that
MOVED, a failover or a dead node cost a reconnect and nothing else. All keys of a
shard are in one slot: WATCH, MULTI and EXEC of one shard stay on one node.

The map is read by CLUSTER SLOTS on a connection of ours: redis-py's cluster client
would pool its own connections, and a WATCH must stay on the one that armed it.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

from redis.crc import key_slot

from driftline.errors import StoreUnavailableError
from driftline.rows import resp
from driftline.rows.address import at_node, redact
from driftline.rows.connection import Connect, Connection, Reply

Open = Callable[[str], Awaitable[Connection]]


@dataclass(frozen=True, slots=True)
class Slots:
    """A map from slots to the URLs of masters."""

    starts: tuple[int, ...]  # first slots of the ranges, in order
    ranges: tuple[tuple[int, str], ...]  # last slot, URL of the master

    def master(self, slot: int) -> str | None:
        """Return the master of `slot`, None where no range covers it."""
        at = bisect_right(self.starts, slot) - 1
        if at < 0 or self.ranges[at][0] < slot:
            return None
        return self.ranges[at][1]


def read_slots(reply: Reply, asked: str) -> Slots:
    """Return the map in a reply to CLUSTER SLOTS of the node at URL `asked`.

    A node that does not know its own name is the one asked. Raises StoreUnavailableError.
    """
    if not isinstance(reply, list):
        raise StoreUnavailableError(f"Redis at {redact(asked)} is no cluster node: {reply!r}")
    found: dict[int, tuple[int, str]] = {}
    for entry in cast("list[list[object]]", reply):
        first, last, master = cast("int", entry[0]), cast("int", entry[1]), cast("list[object]", entry[2])
        host, port = cast("bytes | None", master[0]), cast("int", master[1])
        found[first] = (last, at_node(asked, host.decode(), port) if host else asked)
    starts = sorted(found)
    return Slots(tuple(starts), tuple(found[start] for start in starts))


class SlotMap:
    """The masters of one cluster, seen from one process."""

    def __init__(self, nodes: tuple[str, ...], open_connection: Open) -> None:
        self._seeds, self._open = nodes, open_connection
        self._slots: Slots | None = None
        self._version = 0
        self._turn = 0
        self._lock = asyncio.Lock()

    async def endpoint(self, key: bytes) -> str:
        """Return the URL of the master of `key`. Raises StoreUnavailableError."""
        if self._slots is None:
            await self._refresh(self._version)
        assert self._slots is not None, "refreshed"
        slot = key_slot(key)
        url = self._slots.master(slot)
        if url is None:
            seen = self._version
            await self._refresh(seen)
            url = self._slots.master(slot)
        if url is None:
            raise StoreUnavailableError(f"slot {slot} of the Redis Cluster has no master now")
        return url

    def known(self, key: bytes) -> str | None:
        """Return the master of `key` as far as known without asking."""
        return None if self._slots is None else self._slots.master(key_slot(key))

    async def endpoints(self) -> tuple[str, ...]:
        """Return the URLs of all masters. Raises StoreUnavailableError."""
        if self._slots is None:
            await self._refresh(self._version)
        assert self._slots is not None, "refreshed"
        return tuple(dict.fromkeys(url for _, url in self._slots.ranges))

    async def changed(self) -> None:
        """Have the map read anew: a node said that a slot is elsewhere, or does not answer."""
        await self._refresh(self._version)

    def connector(self, key: bytes) -> Connect:
        """Return what connects to the master of `key`; from the second call on by a fresh map."""
        seen: int | None = None

        async def connect() -> Connection:
            nonlocal seen
            if seen is not None:
                await self._refresh(seen)
            url = await self.endpoint(key)
            seen = self._version
            return await self._open(url)

        return connect

    async def _refresh(self, seen: int) -> None:
        """Read the map unless somebody has since version `seen`."""
        async with self._lock:
            if self._version != seen:
                return
            errors: list[str] = []
            for url in self._candidates():
                try:
                    connection = await self._open(url)
                    try:
                        (reply,) = await connection.exchange([resp.command(b"CLUSTER", b"SLOTS")], 1)
                    finally:
                        await connection.close()
                    self._slots = read_slots(reply, url)
                    self._version += 1
                    return
                except StoreUnavailableError as error:
                    errors.append(str(error))
            raise StoreUnavailableError(f"no node of the Redis Cluster answers: {'; '.join(errors)}")

    def _candidates(self) -> list[str]:
        """Return the nodes to ask; another one first each time, as one cut off would repeat an old map."""
        known = [] if self._slots is None else [url for _, url in self._slots.ranges]
        urls = list(dict.fromkeys([*self._seeds, *known]))
        self._turn += 1
        at = self._turn % len(urls)
        return urls[at:] + urls[:at]
