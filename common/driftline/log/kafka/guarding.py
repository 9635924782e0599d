"""Puts `unpacking.readable` between aiokafka's connections and its fetcher.

Invariant: whatever a fetch of a guarded consumer brings, aiokafka can unpack. The place
is `AIOKafkaClient.send`, through which every answer passes as it came; a test holds the
names of aiokafka's that this leans on.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.client import ConnectionGroup
from aiokafka.protocol.fetch import FetchRequest

from driftline.log.kafka.receiving import receive_in_parts
from driftline.log.kafka.unpacking import needs_time, readable

MAX_RECORDS = 10_000
"""Records handed out at a time. A fetch of 1 MiB holds fewer, unless it is compressed or forged."""


def guard(consumer: AIOKafkaConsumer) -> None:
    """Have `consumer`, not started yet, read any record as one that can be unpacked."""
    client: Any = consumer._client
    send = client.send

    async def guarded(node_id: object, request: object, *, group: int = ConnectionGroup.DEFAULT) -> Any:
        if isinstance(request, FetchRequest):
            connection = await client._get_conn(node_id, group=group)
            if connection is not None:
                receive_in_parts(connection)
        response = await send(node_id, request, group=group)
        if isinstance(request, FetchRequest) and response is not None:
            response.topics = [
                (topic, [(*rest, await _mended(records)) for *rest, records in partitions])
                for topic, partitions in response.topics
            ]
        return response

    client.send = guarded


async def _mended(records: bytes) -> bytes:
    if not records:
        return records
    return await asyncio.to_thread(readable, records) if needs_time(records) else readable(records)
