"""What an operator does to a Kafka cluster behind driftline's back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.admin.records_to_delete import RecordsToDelete

from driftline.log import open_log
from driftline.log.kafka.client import retried
from tests.support.waiting import until


@asynccontextmanager
async def _admin(url: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=url.removeprefix("kafka://"))
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


def expire(url: str, topic: str, partition: int, before: int) -> None:
    """Delete the records below offset `before`, as retention does."""

    async def run() -> None:
        async with _admin(url) as admin:
            await admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(before)})

    asyncio.run(run())


def recreate(url: str, topic: str, partitions: int) -> None:
    """Delete a topic and make an empty one of the same name."""
    delete(url, topic)
    create(url, topic, partitions)


def delete(url: str, topic: str) -> None:
    """Delete a topic and wait until nobody sees it."""

    async def run() -> None:
        async with _admin(url) as admin:
            await admin.delete_topics([topic])

    asyncio.run(run())
    until(lambda: topic not in asyncio.run(_topics(url)), f"topic {topic} is gone")


def create(url: str, topic: str, partitions: int) -> None:
    async def run() -> None:
        async with open_log(url) as log:
            await log.create_topic(topic, partitions)

    asyncio.run(run())


def alter(url: str, topic: str, settings: Mapping[str, str]) -> None:
    """Change settings of a topic."""

    async def run() -> None:
        async with _admin(url) as admin:
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, dict(settings))])

    asyncio.run(run())


def leader(url: str, topic: str, partition: int) -> int:
    """Return the node that leads a partition; -1 while there is none."""
    (found,) = [each for each in asyncio.run(_partitions(url, topic)) if each["partition"] == partition]
    return int(found["leader"])


def in_sync(url: str, topic: str) -> int:
    """Return the smallest number of replicas in sync over the partitions of a topic."""
    return min(len(each["isr"]) for each in asyncio.run(_partitions(url, topic)))


async def _partitions(url: str, topic: str) -> list[dict[str, Any]]:
    async with _admin(url) as admin:
        described = await retried(admin.describe_topics)  # a broker just killed may be asked first
        return [partition for each in described if each["topic"] == topic for partition in each["partitions"]]


async def _topics(url: str) -> frozenset[str]:
    async with open_log(url) as log:
        return frozenset(await log.topics())
