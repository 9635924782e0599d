"""Topics of a cluster: listing, creation, partition counts.

Invariant: asking for a topic never creates it, and `create` returns only when every
partition has a leader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from driftline.errors import ConfigError, PartitionCountError, UnknownTopicError
from driftline.log.address import KafkaAddress
from driftline.log.kafka.client import (
    CALL_TIMEOUT_S,
    LOOKUP_TIMEOUT_S,
    RETRY_S,
    arguments,
    connect,
    retried,
    translated,
)
from driftline.log.limits import MAX_BATCH_BYTES
from driftline.log.security import OPEN

BATCH_FRAMING = 64 << 10
"""Room for Kafka's own framing above `MAX_BATCH_BYTES`: 61 bytes in format v2, and margin."""

TOPIC_SETTINGS = {
    "message.timestamp.type": "LogAppendTime",
    "max.message.bytes": str(MAX_BATCH_BYTES + BATCH_FRAMING),
    "cleanup.policy": "delete",
    # Until versions are stored, the log is the only other copy of the rows: an operator who
    # wants it shorter says so.
    "retention.ms": "-1",
    "retention.bytes": "-1",
}

_BROKERS_DEFAULT = -1
"""Replicas: as `default.replication.factor` says (KIP-464, Kafka 2.4). Asking for that setting
first would need DescribeConfigs on the cluster, and who lacks it would silently get one replica."""


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as the cluster describes it now."""

    partitions: int
    ready: bool  # every partition has a leader


class Topics:
    """Topics of one cluster over one admin client, opened on first use."""

    def __init__(self, address: KafkaAddress) -> None:
        self._address = address
        self._admin: AIOKafkaAdminClient | None = None
        self._opening = asyncio.Lock()
        self._known: dict[str, int] = {}

    async def close(self) -> None:
        admin, self._admin = self._admin, None
        if admin is not None:
            await admin.close()

    async def all(self) -> Mapping[str, int]:
        """Return the partition count of every topic that is not the cluster's own."""
        states = await self._states()
        self._known = {name: state.partitions for name, state in states.items()}
        return dict(self._known)

    async def partitions(self, topic: str) -> int:
        """Return the partition count of `topic`; raises UnknownTopicError."""
        count = self._known.get(topic)
        if count is None:
            count = (await self.all()).get(topic)
        if count is None:
            hidden = "" if self._address.security == OPEN else ", or an ACL hides it from this user"
            raise UnknownTopicError(f"{self._address} has no topic {topic!r}: create it first{hidden}")
        return count

    async def check(self, topic: str, partition: int) -> None:
        """Raise UnknownTopicError unless `topic` has `partition`."""
        count = await self.partitions(topic)
        if not 0 <= partition < count:
            raise UnknownTopicError(f"topic {topic!r} has no partition {partition}: it has 0..{count - 1}")

    async def create(self, topic: str, partitions: int) -> None:
        """Make sure `topic` exists with `partitions`, each with a leader.

        Raises PartitionCountError when it exists with another count.
        """
        state = (await self._states()).get(topic)
        if state is None:
            await self._create(topic, partitions)
        with translated(self._address, f"waiting for the leaders of topic {topic!r}"):
            async with asyncio.timeout(CALL_TIMEOUT_S):
                while state is None or not state.ready:
                    await asyncio.sleep(RETRY_S / 2)
                    state = (await self._states()).get(topic)
        if state.partitions != partitions:
            raise PartitionCountError(
                f"topic {topic!r} has {state.partitions} partitions, {partitions} asked for; "
                "the count is fixed for the life of a topic"
            )
        self._known[topic] = partitions

    async def _create(self, topic: str, partitions: int) -> None:
        admin = await self._client()
        with translated(self._address, f"creating topic {topic!r}"):
            new = NewTopic(topic, partitions, 1, topic_configs=TOPIC_SETTINGS)
            new.replication_factor = _BROKERS_DEFAULT  # its constructor knows only explicit ones
            answer = await retried(lambda: admin.create_topics([new], timeout_ms=int(CALL_TIMEOUT_S * 1000)))
        for _, code, message in answer.topic_errors:
            error = kafka.for_code(code)
            if error in (kafka.NoError, kafka.TopicAlreadyExistsError):
                continue  # another process was quicker: its count is compared next
            if error in (kafka.InvalidReplicationFactorError, kafka.InvalidConfigurationError):
                raise ConfigError(f"{self._address}: topic {topic!r} cannot be created: {message}")
            with translated(self._address, f"creating topic {topic!r}: {message}"):
                raise error(message)

    async def _states(self) -> dict[str, TopicState]:
        admin = await self._client()
        with translated(self._address, "listing topics"):
            # All topics, for naming one in a metadata request can create it.
            described = await retried(admin.describe_topics)
        return {
            topic["topic"]: TopicState(
                partitions=len(topic["partitions"]),
                ready=bool(topic["partitions"]) and all(p["leader"] >= 0 for p in topic["partitions"]),
            )
            for topic in described
            if topic["error_code"] == 0 and not topic["is_internal"]
        }

    async def _client(self) -> AIOKafkaAdminClient:
        async with self._opening:
            if self._admin is None:
                options = arguments(self._address)
                options["request_timeout_ms"] = int(LOOKUP_TIMEOUT_S * 1000)
                admin = AIOKafkaAdminClient(**options)
                try:
                    await connect(admin, self._address)
                except BaseException:
                    await admin.close()
                    raise
                self._admin = admin
            return self._admin
