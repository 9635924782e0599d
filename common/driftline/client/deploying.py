"""Versions beside the live rows: asked for in the object store, and waited for in Redis.

Invariant: the register in the store decides; who loses interest in waiting has not undone it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from driftline.client.asking import Request
from driftline.client.restoring import manifest_of
from driftline.errors import StoreUnavailableError, TimedOutError
from driftline.rows import resp
from driftline.rows.deployed import register_key
from driftline.rows.layout import ShardKeys
from driftline.versions import labels
from driftline.versions.tiers import check_exact

if TYPE_CHECKING:
    from driftline.client.aio import AsyncClient

_POLL = 0.05


async def deploy(client: AsyncClient, reference: str, timeout: float) -> str:
    """Deploy a version; see `AsyncClient.deploy`."""
    manifest = await manifest_of(client, reference)
    check_exact(manifest, "a deployment")
    await asyncio.to_thread(labels.deploy, client.repository, manifest.version)
    shards = {name: len(table.parts) for name, table in manifest.tables.items()}
    await _wait(client, manifest.version, shards, timeout, there=True)
    return manifest.version


async def undeploy(client: AsyncClient, reference: str, timeout: float) -> str:
    """End a deployment; see `AsyncClient.undeploy`."""
    manifest = await manifest_of(client, reference)
    await asyncio.to_thread(labels.undeploy, client.repository, manifest.version)
    shards = {name: len(table.parts) for name, table in manifest.tables.items()}
    await _wait(client, manifest.version, shards, timeout, there=False)
    return manifest.version


async def _wait(
    client: AsyncClient, version: str, shards: Mapping[str, int], timeout: float, *, there: bool
) -> None:
    left: str | None = None
    try:
        async with asyncio.timeout(timeout):
            while True:
                left = await _differing(client, version, shards, there)
                if left is None:
                    return
                await asyncio.sleep(_POLL)
    except TimeoutError:
        what = "loaded" if there else "removed"
        raise TimedOutError(
            f"version {version} is not {what} in every shard after {timeout} s, e.g. {left}; it will be, "
            f"once an aggregator of {client.group!r} can"
        ) from None


async def _differing(client: AsyncClient, version: str, shards: Mapping[str, int], there: bool) -> str | None:
    for name, count in shards.items():
        asked = [
            Request.of(
                name,
                shard,
                (b"next",),
                resp.command(b"HEXISTS", register_key(ShardKeys.of(name, shard)), version.encode()),
                replies=2,
            )
            for shard in range(count)
        ]
        try:
            replies = await client.asker.ask(name, asked)
        except StoreUnavailableError:
            return name
        for shard in range(count):
            if replies[2 * shard + 1] != int(there):
                return f"{name}:{shard}"
    return None
