"""The log on a Kafka cluster: topics, appends, readers.

Invariant: bound to the event loop that started it; no call waits for a broker longer
than the time-outs of `driftline.log.kafka.client`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka

from driftline.errors import StateError
from driftline.log.address import KafkaAddress
from driftline.log.base import Bounds, Outgoing, Reader
from driftline.log.kafka.appender import Appender
from driftline.log.kafka.client import (
    CALL_TIMEOUT_S,
    LOOKUP_TIMEOUT_S,
    arguments,
    connect,
    ended,
    stop,
    translated,
)
from driftline.log.kafka.reader import KafkaReader
from driftline.log.kafka.topics import Topics
from driftline.log.limits import check_batch, check_name, check_partitions


class KafkaLog:
    """The log of a cluster; see `driftline.log.base.Log`.

    Log time is the leader's clock (LogAppendTime): it goes back only if that clock does.
    """

    def __init__(self, address: KafkaAddress) -> None:
        self._address = address
        self._parts: _Parts | None = None

    @property
    def address(self) -> KafkaAddress:
        return self._address

    async def start(self) -> None:
        """Connect; may be called again when it failed.

        Raises LogUnavailableError with the address when no broker answers, ConfigError naming
        user and mechanism when one does but does not let us in.
        """
        if self._parts is None:
            parts = _Parts(self._address)
            try:
                await parts.topics.all()
            except BaseException:
                await parts.close()
                raise
            self._parts = parts

    async def close(self) -> None:
        """Wait for appends in flight, at most their time-out, and disconnect; readers with it."""
        parts, self._parts = self._parts, None
        if parts is not None:
            await parts.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def topics(self) -> Mapping[str, int]:
        return await self._started().topics.all()

    async def create_topic(self, topic: str, partitions: int) -> None:
        check_name("topic", topic)
        check_partitions(topic, partitions)
        await self._started().topics.create(topic, partitions)

    async def append(self, topic: str, partition: int, records: Sequence[Outgoing]) -> int:
        check_batch(topic, partition, records)
        parts = self._started()
        await parts.topics.check(topic, partition)
        return await parts.appender.append(topic, partition, records)

    async def bounds(self, topic: str, partition: int) -> Bounds:
        parts = self._started()
        await parts.topics.check(topic, partition)
        return await parts.offsets.bounds(topic, partition)

    def reader(self, topic: str, partition: int, offset: int) -> Reader:
        parts = self._started()
        check_name("topic", topic)
        reader = KafkaReader(
            self._address, topic, partition, offset, parts.topics.check, parts.offsets.bounds
        )
        parts.readers = [*(other for other in parts.readers if not other.closed), reader]
        return reader

    def _started(self) -> _Parts:
        if self._parts is None:
            raise StateError(f"log {self._address} is not started, or closed: use `async with`")
        return self._parts


class _Offsets:
    """First and next offsets, asked of the leaders over one consumer, opened on first use."""

    def __init__(self, address: KafkaAddress) -> None:
        self._address = address
        self._consumer: AIOKafkaConsumer | None = None
        self._opening = asyncio.Lock()

    async def bounds(self, topic: str, partition: int) -> Bounds:
        tp = TopicPartition(topic, partition)
        with translated(self._address, f"asking for the offsets of {topic}[{partition}]"):
            async with asyncio.timeout(CALL_TIMEOUT_S):
                while True:
                    consumer = await self._client()
                    try:
                        begin = await consumer.beginning_offsets([tp])
                        end = await consumer.end_offsets([tp])
                    except kafka.KafkaTimeoutError:
                        await self._give_up(consumer)
                    else:
                        return Bounds(begin[tp], end[tp])

    async def _give_up(self, consumer: AIOKafkaConsumer) -> None:
        # aiokafka's own time-out of such a call cancels the request, which leaves the connection in use
        # even if nothing passes through it any more.
        if self._consumer is consumer:
            await self.close()

    async def close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await stop(consumer)

    async def _client(self) -> AIOKafkaConsumer:
        async with self._opening:
            if self._consumer is None:
                options = arguments(self._address)
                options["request_timeout_ms"] = int(LOOKUP_TIMEOUT_S * 1000)
                consumer = AIOKafkaConsumer(**options, group_id=None)
                try:
                    await connect(consumer, self._address)
                except BaseException:
                    await stop(consumer)
                    raise
                self._consumer = consumer
            return self._consumer


class _Parts:
    def __init__(self, address: KafkaAddress) -> None:
        self._address = address
        self.topics = Topics(address)
        self.appender = Appender(address)
        self.offsets = _Offsets(address)
        self.readers: list[KafkaReader] = []

    async def close(self) -> None:
        await self.appender.close()
        for reader in self.readers:
            await reader.close()
        await self.offsets.close()
        await self.topics.close()
        await ended(self._address)
