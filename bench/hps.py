"""An emulation of how HugeCTR's Hierarchical Parameter Server takes updates, at its best.

A trainer sends row VALUES, key and vector, over Kafka; each inference node consumes them
and writes them to its Redis. There is no optimizer, no state, no fence and no updates
topic here: the two do not do the same work, and driftline does the more of it.

As HPS does it: batches are delivered at 8,192 keys or after 500 ms, written to one hash
per partition by HSET, and Kafka offsets are committed every 500 ms. What is kinder than
HPS: messages are plain arrays that decode without a copy, and writing overlaps with reading.
"""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import hiredis
import numpy as np
import redis
from numpy.typing import NDArray

from driftline.rows import resp
from driftline_services.chassis.process import settle

DELIVERY_KEYS, DELIVERY_SECONDS, COMMIT_SECONDS = 8_192, 0.5, 0.5

Rows = dict[int, list[tuple[NDArray[np.uint64], NDArray[np.uint8]]]]
"""Per partition: ids and the bytes of their vectors."""


def encode_values(ids: NDArray[np.uint64], vectors: NDArray[np.float32]) -> bytes:
    """Return a message: all keys, then all vectors."""
    return ids.tobytes() + vectors.tobytes()


def decode_values(message: bytes, dim: int) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """Return keys and the bytes of the vectors, as views."""
    n = len(message) // (8 + 4 * dim)
    return np.frombuffer(message, np.uint64, n), np.frombuffer(message, np.uint8, offset=8 * n).reshape(
        n, 4 * dim
    )


class RawWriter:
    """HSET as bytes built by numpy, over one plain socket."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()

    def write(self, rows: Rows) -> None:
        for partition, parts in rows.items():
            ids, vectors = (np.concatenate(column) for column in zip(*parts, strict=True))
            for data in resp.hset(b"{hps:%d}" % partition, ids, vectors):
                self._socket.sendall(data)
        for _ in rows:
            while (reply := self._reader.gets()) is False:
                self._reader.feed(self._socket.recv(1 << 16))
            if isinstance(reply, Exception):
                raise reply


class RedisPyWriter:
    """The same by redis-py with hiredis: one pipeline, one HSET per partition."""

    def __init__(self, host: str, port: int) -> None:
        self._redis = redis.Redis(host, port)

    def write(self, rows: Rows) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for partition, parts in rows.items():
            pairs: list[bytes] = []
            for ids, vectors in parts:
                keys, values, width = ids.tobytes(), vectors.tobytes(), vectors.shape[1]
                for place in range(len(ids)):
                    pairs.append(keys[8 * place : 8 * place + 8])
                    pairs.append(values[width * place : width * place + width])
            pipeline.execute_command("HSET", b"{hps:%d}" % partition, *pairs)  # type: ignore[no-untyped-call]
        pipeline.execute()


WRITERS: dict[str, type[RawWriter] | type[RedisPyWriter]] = {"raw": RawWriter, "redispy": RedisPyWriter}


class Delivery:
    """Collects rows and has them written in a thread, one batch while the next is collected."""

    def __init__(self, write: Callable[[Rows], None]) -> None:
        self._write = write
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self._rows: Rows = {}
        self._keys = 0
        self._last = time.perf_counter()

    def take(self, partition: int, ids: NDArray[np.uint64], vectors: NDArray[np.uint8]) -> None:
        self._rows.setdefault(partition, []).append((ids, vectors))
        self._keys += len(ids)

    def due(self) -> bool:
        return self._keys >= DELIVERY_KEYS or time.perf_counter() - self._last >= DELIVERY_SECONDS

    def deliver(self) -> None:
        self._last = time.perf_counter()
        if self._rows:
            self.settle()
            self._writing = self._thread.submit(self._write, self._rows)
            self._rows, self._keys = {}, 0

    def settle(self) -> None:
        """Return when what was delivered is written."""
        if self._writing is not None:
            self._writing.result()
            self._writing = None


def drain(
    broker: str, redis_host: str, redis_port: int, topic: str, ends: list[int], dim: int, writer: str
) -> float:
    """Consume all of `topic` into Redis and return the seconds from the first fetch to the last commit.

    The consumer is confluent-kafka (librdkafka, which HPS uses too): it fetches in threads of
    its own, outside of the interpreter, and was the faster of the two Python clients here.
    """
    from confluent_kafka import Consumer, KafkaError, TopicPartition

    settle()  # as driftline's worker
    consumer = Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": f"hps-{uuid.uuid4().hex[:8]}",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.message.max.bytes": 1 << 20,
            "fetch.wait.max.ms": 100,
            "queued.max.messages.kbytes": 64 << 10,
        }
    )
    delivery = Delivery(WRITERS[writer](redis_host, redis_port).write)
    left = sum(ends)
    begun = committed = time.perf_counter()
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(len(ends))])
    while left:
        for message in consumer.consume(64, 0.05):
            if (error := message.error()) is not None:
                raise RuntimeError(f"{KafkaError.__name__}: {error}")
            partition, value = message.partition(), message.value()
            assert partition is not None, "it was consumed"
            assert value is not None, "made by this benchmark"
            delivery.take(partition, *decode_values(value, dim))
            left -= 1
            if delivery.due():
                delivery.deliver()
        if delivery.due():
            delivery.deliver()
        if time.perf_counter() - committed >= COMMIT_SECONDS:
            delivery.settle()
            if left < sum(ends):  # else there is nothing to commit yet
                consumer.commit(asynchronous=True)
            committed = time.perf_counter()
    delivery.deliver()
    delivery.settle()
    consumer.commit(
        offsets=[TopicPartition(topic, at, end) for at, end in enumerate(ends)], asynchronous=False
    )
    seconds = time.perf_counter() - begun
    consumer.close()
    return seconds


def drain_aiokafka(
    broker: str, redis_host: str, redis_port: int, topic: str, ends: list[int], dim: int, writer: str
) -> float:
    """The same with aiokafka, the client that driftline uses."""
    import asyncio

    settle()
    return asyncio.run(_drain_aiokafka(broker, redis_host, redis_port, topic, ends, dim, writer))


async def _drain_aiokafka(
    broker: str, redis_host: str, redis_port: int, topic: str, ends: list[int], dim: int, writer: str
) -> float:
    import asyncio

    from aiokafka import AIOKafkaConsumer, TopicPartition

    consumer = AIOKafkaConsumer(
        bootstrap_servers=broker,
        group_id=f"hps-{uuid.uuid4().hex[:8]}",
        enable_auto_commit=False,
        max_partition_fetch_bytes=1 << 20,
    )
    await consumer.start()
    loop = asyncio.get_running_loop()
    delivery = Delivery(WRITERS[writer](redis_host, redis_port).write)
    left = sum(ends)
    begun = committed = time.perf_counter()
    partitions = [TopicPartition(topic, partition) for partition in range(len(ends))]
    consumer.assign(partitions)
    for partition in partitions:
        consumer.seek(partition, 0)
    while left:
        for partition, messages in (await consumer.getmany(timeout_ms=50, max_records=64)).items():
            for message in messages:
                delivery.take(partition.partition, *decode_values(message.value, dim))
            left -= len(messages)
        if delivery.due():
            await loop.run_in_executor(None, delivery.settle)
            delivery.deliver()
        if time.perf_counter() - committed >= COMMIT_SECONDS:
            await loop.run_in_executor(None, delivery.settle)
            await consumer.commit()
            committed = time.perf_counter()
    delivery.deliver()
    delivery.settle()
    await consumer.commit()
    seconds = time.perf_counter() - begun
    await consumer.stop()
    return seconds
