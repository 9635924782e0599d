"""What driftline asks of a Redis server's memory: that it evicts nothing, and how full it is.

Invariant: a server that may evict rows is refused before anything is written to it:
an evicted row is a row lost. One that is full refuses writes, and that is waited out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from driftline.errors import ConfigError, StoreUnavailableError
from driftline.rows.connection import Reply
from driftline.rows.servers import Servers

SAFE_POLICY = "noeviction"


async def check_eviction(servers: Servers, name: str) -> None:
    """Raise ConfigError when server `name` would evict keys; StoreUnavailableError when it does not answer.

    CONFIG is asked first; a user who may not use it asks INFO, which every role may.
    """
    for reply in await servers.ask(name, b"CONFIG", b"GET", b"maxmemory*"):
        if not isinstance(reply, list):
            break
        flat = [item.decode() for item in cast("list[bytes]", reply)]
        _check(name, dict(zip(flat[::2], flat[1::2], strict=True)))
    else:
        return
    for reply in await servers.ask(name, b"INFO", b"memory"):
        _check(name, {field.replace("_", "-"): value for field, value in info(reply).items()})


def _check(name: str, values: Mapping[str, str]) -> None:
    policy, limit = values.get("maxmemory-policy", SAFE_POLICY), int(values.get("maxmemory", "0"))
    refused = eviction_refused(name, policy, limit)
    if refused is not None:
        raise ConfigError(refused)


def eviction_refused(name: str, policy: str, limit: int) -> str | None:
    """Return why a server with this policy and maxmemory cannot hold rows, None if it can."""
    if policy == SAFE_POLICY or limit == 0:
        return None
    return (
        f"Redis server {name} has maxmemory-policy {policy} with maxmemory {limit}: it would evict rows, "
        f"and an evicted row is lost. Set `maxmemory-policy {SAFE_POLICY}` (CONFIG SET and redis.conf)"
    )


async def used_memory(servers: Servers) -> dict[str, int]:
    """Return the bytes in use on each server that answers."""
    found: dict[str, int] = {}
    for name in servers.names:
        try:
            replies = await servers.ask(name, b"INFO", b"memory")
            found[name] = sum(int(info(reply).get("used_memory", "0")) for reply in replies)
        except StoreUnavailableError:
            continue  # nothing new is put on a server that is away
    return found


def info(reply: Reply) -> dict[str, str]:
    """Return the fields in a reply to INFO. Raises StoreUnavailableError for an error reply."""
    if not isinstance(reply, bytes):
        raise StoreUnavailableError(f"Redis refused INFO: {reply!r}")
    lines = (line.partition(":") for line in reply.decode().splitlines())
    return {name: value for name, colon, value in lines if colon}
