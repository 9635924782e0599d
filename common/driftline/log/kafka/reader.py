"""Sequential reader of one Kafka partition, over a consumer of its own without a group.

Invariant: `position` only moves past records that were returned, or by `seek`, never
by a reset of Kafka's; an empty answer means that the broker was asked and held nothing
at `position`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka import errors as kafka

from driftline.errors import InputError, LogUnavailableError, OffsetError, StateError
from driftline.log.address import KafkaAddress
from driftline.log.base import Bounds, Record
from driftline.log.kafka.client import CALL_TIMEOUT_S, arguments, connect, stop, translated
from driftline.log.kafka.guarding import MAX_RECORDS, guard

FETCH_BYTES = 1 << 20
"""Bytes asked for at a time; a single larger batch comes whole all the same. At most this is
held for a slow reader, and as much again is on its way."""

FETCH_WAIT_MS = 250
"""How long a broker holds an empty fetch. A seek may have to wait for it to end."""


class KafkaReader:
    """See `driftline.log.base.Reader`; `check` raises UnknownTopicError, `bounds` asks the broker."""

    def __init__(
        self,
        address: KafkaAddress,
        topic: str,
        partition: int,
        offset: int,
        check: Callable[[str, int], Awaitable[None]],
        bounds: Callable[[str, int], Awaitable[Bounds]],
    ) -> None:
        self._address = address
        self._tp = TopicPartition(topic, partition)
        self._check = check
        self._bounds = bounds
        self._consumer: AIOKafkaConsumer | None = None
        self._ahead: deque[ConsumerRecord[bytes, bytes]] = deque()  # fetched, from `_position` on
        self._sought = True  # the consumer has yet to be told of `_position`
        self._closed = False
        self._position = 0
        self.seek(offset)

    @property
    def position(self) -> int:
        return self._position

    def seek(self, offset: int) -> None:
        if offset < 0:
            raise InputError(f"{self._where}: offset {offset} is negative")
        self._position = offset
        self._sought = True
        self._ahead.clear()

    async def read(self, *, max_bytes: int = 1 << 20, wait: float = 0.0) -> Sequence[Record]:
        if self._closed:
            raise StateError(f"{self._where}: this reader is closed")
        deadline = time.monotonic() + wait
        if not self._ahead:
            consumer = await self._started()
            await self._fill(consumer, max(0.0, deadline - time.monotonic()))
            if not self._ahead:
                await self._fill_if_behind(consumer)
        return self._take(max_bytes)

    @property
    def closed(self) -> bool:
        return self._closed

    async def close(self) -> None:
        self._closed = True
        self._ahead.clear()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await stop(consumer)

    @property
    def _where(self) -> str:
        return f"{self._tp.topic}[{self._tp.partition}]"

    def _take(self, max_bytes: int) -> Sequence[Record]:
        records: list[Record] = []
        size = 0
        while self._ahead and size < max_bytes:
            raw = self._ahead.popleft()
            # Kafka's nulls, which driftline never writes, read as empty.
            value = raw.value or b""
            headers = tuple((name, content or b"") for name, content in raw.headers)
            records.append(Record(raw.offset, raw.timestamp, raw.key, value, headers))
            size += len(value)
        if records:
            self._position = records[-1].offset + 1
        return records

    async def _fill(self, consumer: AIOKafkaConsumer, wait: float) -> None:
        if self._sought:
            consumer.seek(self._tp, self._position)
            self._sought = False
        asked = self._position
        try:
            with translated(self._address, f"reading {self._where} at {asked}"):
                fetched = await consumer.getmany(
                    self._tp, timeout_ms=int(wait * 1000), max_records=MAX_RECORDS
                )
        except BaseException as error:
            # aiokafka may have moved past what it could not hand out.
            self._sought = True
            if isinstance(error.__cause__, kafka.OffsetOutOfRangeError):
                await self._refuse_offset()
            raise
        if not self._sought:  # else: a seek meanwhile, these are not wanted any more
            self._ahead.extend(fetched.get(self._tp, ()))

    async def _fill_if_behind(self, consumer: AIOKafkaConsumer) -> None:
        # Nothing came in time: because there is nothing, because the fetch is still on its
        # way, or because the broker is away, about which aiokafka keeps silent.
        deadline = time.monotonic() + CALL_TIMEOUT_S
        while not self._ahead:
            bounds = await self._bounds(*self._tp)
            if self._position == bounds.end:
                return
            if not bounds.begin <= self._position < bounds.end:
                await self._refuse_offset()
            if time.monotonic() > deadline:
                raise LogUnavailableError(
                    f"{self._address}: {self._where} holds [{bounds.begin}, {bounds.end}) but handed out "
                    f"nothing at {self._position} within {CALL_TIMEOUT_S:g} s"
                )
            await self._fill(consumer, 1.0)

    async def _refuse_offset(self) -> None:
        bounds = await self._bounds(*self._tp)
        raise OffsetError(
            f"{self._where}: offset {self._position} is not in the log, "
            f"which holds [{bounds.begin}, {bounds.end})"
        )

    async def _started(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            await self._check(*self._tp)
            consumer = AIOKafkaConsumer(
                **arguments(self._address),
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                check_crcs=True,
                fetch_max_bytes=FETCH_BYTES,
                max_partition_fetch_bytes=FETCH_BYTES,
                fetch_max_wait_ms=FETCH_WAIT_MS,
            )
            guard(consumer)
            try:
                await connect(consumer, self._address)
            except BaseException:
                await stop(consumer)
                raise
            # No await between the two: the fetcher must never see a partition without a position.
            consumer.assign([self._tp])
            consumer.seek(self._tp, self._position)
            self._sought = False
            self._consumer = consumer
        return self._consumer
