"""Waiting for what was sent to the ingest topic."""

from __future__ import annotations

import asyncio

import redis

from driftline import Client, topics
from driftline.log import open_log
from driftline.rows.layout import ShardKeys
from tests.integration.deployment import Deployment
from tests.support.waiting import until


def wait_applied(deployment: Deployment, client: Client) -> None:
    """Return once everything that is in the ingest topic now has been forwarded and applied."""
    ends = asyncio.run(_ends(deployment))
    until(
        lambda: all(forwarded(deployment, partition) >= end for partition, end in ends.items()),
        f"forwarded up to {ends}",
        seconds=60,
    )
    client.snapshot(timeout=60)  # behind what is in the tables' logs


def forwarded(deployment: Deployment, partition: int) -> int:
    """Return the router's position, as Redis has it."""
    key = ShardKeys.of(topics.ingest(deployment.group), partition).position
    with redis.Redis.from_url(deployment.redis_url) as store:
        found = store.hget(key, "next")
    assert found is None or isinstance(found, bytes)
    return int(found or b"0")


async def _ends(deployment: Deployment) -> dict[int, int]:
    topic = topics.ingest(deployment.group)
    async with open_log(deployment.log_url) as log:
        partitions = (await log.topics())[topic]
        return {partition: (await log.bounds(topic, partition)).end for partition in range(partitions)}
