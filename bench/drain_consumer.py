"""An aiokafka consumer that fetches as the chassis does, for the sides that run without it.

Invariant: the settings are the chassis's own, so that neither side has better ones.
"""

from __future__ import annotations

from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition

from driftline.log import Record
from driftline.log.kafka.guarding import guard
from driftline_services.chassis import ChassisSettings


async def consumer_of(broker: str) -> AIOKafkaConsumer:
    """Return a consumer that fetches as the chassis does."""
    settings = ChassisSettings()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=broker,
        group_id=None,
        enable_auto_commit=False,
        max_partition_fetch_bytes=settings.fetch_bytes,
        fetch_max_bytes=settings.answer_bytes,
        fetch_max_wait_ms=int(settings.fetch_wait * 1000),
    )
    guard(consumer)
    await consumer.start()
    return consumer


def assign(consumer: AIOKafkaConsumer, topic: str, partitions: int) -> None:
    assigned = [KafkaPartition(topic, partition) for partition in range(partitions)]
    consumer.assign(assigned)
    for partition in assigned:
        consumer.seek(partition, 0)


def record_of(raw: Any) -> Record:
    """Return aiokafka's record as driftline's."""
    return Record(
        raw.offset,
        raw.timestamp,
        raw.key,
        raw.value or b"",
        tuple((name, held or b"") for name, held in raw.headers),
    )
