"""Appends to Kafka: one idempotent producer, one batch per partition in flight.

Invariant: a batch is sent only when the outcome of the partition's previous one is
known, and never by a producer that has failed a batch. A producer that failed one has
used up its sequence numbers and may still send the successor (seen in aiokafka 0.14),
so after any failure the next append gets a fresh producer with an id of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka

from driftline.errors import InputError, LogUnavailableError
from driftline.log.address import KafkaAddress
from driftline.log.base import Outgoing
from driftline.log.kafka.budget import Budget
from driftline.log.kafka.client import APPEND_TIMEOUT_S, RETRY_S, arguments, connect, stop, translated
from driftline.log.kafka.topics import BATCH_FRAMING
from driftline.log.limits import MAX_BATCH_BYTES, check_batch

IN_FLIGHT_BYTES = 64 << 20
"""Bytes in flight over all partitions. aiokafka puts all batches for one broker into one
request, and a broker refuses requests over `socket.request.max.bytes`, 100 MiB by default."""

STOP_TIMEOUT_S = 5.0


@dataclass(eq=False, slots=True)
class _Generation:
    """One producer instance and who still waits for it."""

    producer: AIOKafkaProducer
    in_flight: int = 0
    retired: bool = False
    dead: asyncio.Event = field(default_factory=asyncio.Event)  # nothing more will come of it


class Appender:
    """Appends batches; usable from one event loop."""

    def __init__(self, address: KafkaAddress) -> None:
        self._address = address
        self._budget = Budget(IN_FLIGHT_BYTES)
        self._locks: dict[tuple[str, int], asyncio.Lock] = {}
        self._current: _Generation | None = None
        self._opening = asyncio.Lock()
        self._tasks: set[asyncio.Task[int] | asyncio.Task[None]] = set()

    async def append(self, topic: str, partition: int, records: Sequence[Outgoing]) -> int:
        """Append a batch to a partition that exists; see `driftline.log.base.Log.append`."""
        size = check_batch(topic, partition, records)
        # In a task of its own: a caller that is cancelled must not let a later batch overtake.
        task = asyncio.create_task(self._append(topic, partition, tuple(records), size))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Wait for what is in flight, at most the append time-out, then stop."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        current, self._current = self._current, None
        if current is not None:
            await self._stop(current)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _append(self, topic: str, partition: int, records: tuple[Outgoing, ...], size: int) -> int:
        lock = self._locks.setdefault((topic, partition), asyncio.Lock())
        async with lock, self._budget.take(size):
            generation = await self._generation()
            generation.in_flight += 1
            try:
                return await self._send(generation, topic, partition, records)
            except BaseException:
                self._retire(generation)
                raise
            finally:
                generation.in_flight -= 1
                if generation.retired and not generation.in_flight and not generation.dead.is_set():
                    self._stop_soon(generation)

    async def _send(
        self, generation: _Generation, topic: str, partition: int, records: tuple[Outgoing, ...]
    ) -> int:
        where = f"{topic}[{partition}]"
        builder = generation.producer.create_batch()
        for record in records:
            headers = list(record.headers)
            if builder.append(timestamp=None, key=record.key, value=record.value, headers=headers) is None:
                raise InputError(f"{where}: batch of {len(records)} records exceeds {MAX_BATCH_BYTES} bytes")
        builder.close()
        with translated(self._address, f"appending {len(records)} records to {where}"):
            try:
                async with asyncio.timeout(APPEND_TIMEOUT_S):
                    sent = await generation.producer.send_batch(builder, topic, partition=partition)
                    # Whoever looks last; an outcome nobody waits for any more is not worth a warning.
                    sent.add_done_callback(lambda done: done.cancelled() or done.exception())
                    dead = asyncio.create_task(generation.dead.wait())
                    try:
                        await asyncio.wait({sent, dead}, return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        dead.cancel()
                if not sent.done():
                    raise LogUnavailableError(
                        f"{self._address}: appending {len(records)} records to {where}: the producer was "
                        "given up after another append timed out; they may be in the log, append them again"
                    )
                metadata = sent.result()
            except TimeoutError:
                # It would go on trying for ever, and might succeed after its successor.
                self._stop_soon(generation)
                raise
            except kafka.MessageSizeTooLargeError as error:
                raise InputError(
                    f"{where}: the broker refused a batch of {len(records)} records as too large: "
                    "raise the topic's max.message.bytes or append less at a time"
                ) from error
        if metadata.offset < 0:
            # A duplicate whose offset the broker has forgotten.
            raise LogUnavailableError(f"{self._address}: {where}: appended, but the broker knows no offset")
        return int(metadata.offset)

    async def _generation(self) -> _Generation:
        async with self._opening:
            if self._current is None:
                limit = MAX_BATCH_BYTES + BATCH_FRAMING
                producer = AIOKafkaProducer(
                    **arguments(self._address),
                    acks="all",
                    enable_idempotence=True,
                    max_batch_size=limit,
                    max_request_size=limit,
                )
                generation = _Generation(producer)
                try:
                    await connect(producer, self._address)
                except BaseException:
                    await self._stop(generation)
                    raise
                self._current = generation
            return self._current

    def _retire(self, generation: _Generation) -> None:
        generation.retired = True
        if self._current is generation:
            self._current = None

    def _stop_soon(self, generation: _Generation) -> None:
        self._retire(generation)
        if not generation.dead.is_set():
            generation.dead.set()
            task = asyncio.create_task(self._stop(generation))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _stop(self, generation: _Generation) -> None:
        generation.dead.set()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                if generation.retired:
                    await _abort(generation.producer)
                await stop(generation.producer)
        except (kafka.KafkaError, TimeoutError):
            await generation.producer.client.close()


async def _abort(producer: AIOKafkaProducer) -> None:
    """End a producer's sending for good, so that `stop` returns at once.

    Private names, for there is no other way: `stop` flushes first, which never ends while a
    batch is retried against a broker that is away. test_log_kafka.py guards them.
    """
    sender = producer._sender.sender_task
    if sender is None:
        return
    sender.cancel()
    await producer.client.close()  # fails the requests that the cancelled sender waits for
    while not sender.done():
        await asyncio.wait({sender}, timeout=RETRY_S)
        sender.cancel()  # it may now wait for metadata, which nobody fetches any more
    # Those who wait for these batches have been told by `dead`.
    producer._message_accumulator._batches.clear()
    producer._message_accumulator._pending_batches.clear()
