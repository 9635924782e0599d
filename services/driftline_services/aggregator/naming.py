"""What partitions are called by people and by tables."""

from __future__ import annotations

from driftline_services.chassis.handler import TopicPartition

_GRADIENTS = ".gradients"


def table_of(tp: TopicPartition) -> str:
    """Return the table whose gradients topic this is; of the ingest topic, its name."""
    return tp.topic.removesuffix(_GRADIENTS)


def shard_name(tp: TopicPartition) -> str:
    """Return how messages name a shard."""
    return f"shard {table_of(tp)}:{tp.partition}"
