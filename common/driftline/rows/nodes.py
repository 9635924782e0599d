"""What a server is to whoever places shards: a process, or a cluster that spreads keys itself.

Invariant: nothing connects before it is asked to.
"""

from __future__ import annotations

from typing import Protocol

from driftline.rows.cluster import Open
from driftline.rows.connection import Connect, Connection


class Node(Protocol):
    """A server, or a cluster, which spreads keys itself."""

    async def endpoint(self, key: bytes) -> str:
        """Return what identifies the process that serves `key`: its URL. Raises StoreUnavailableError."""
        ...

    def known(self, key: bytes) -> str | None:
        """Return the same as far as known without asking."""
        ...

    async def endpoints(self) -> tuple[str, ...]:
        """Return those of all processes that hold rows. Raises StoreUnavailableError."""
        ...

    def connector(self, key: bytes) -> Connect: ...


class Single:
    """One server."""

    def __init__(self, url: str, connect: Connect) -> None:
        self.url, self._connect = url, connect

    async def endpoint(self, key: bytes) -> str:
        return self.url

    def known(self, key: bytes) -> str | None:
        return self.url

    async def endpoints(self) -> tuple[str, ...]:
        return (self.url,)

    def connector(self, key: bytes) -> Connect:
        return self._connect


def bound(open_url: Open, url: str) -> Connect:
    """Return what opens `url`."""

    async def connect() -> Connection:
        return await open_url(url)

    return connect
