"""Kafka batches that no well-behaved client would send.

Invariant: what is appended here has a right checksum and a structure that a broker
accepts: only a reader can tell that something is wrong.
"""

from __future__ import annotations

import asyncio
import gzip
import struct
from collections.abc import Sequence

import cramjam
from aiokafka import AIOKafkaProducer
from aiokafka.record.util import calc_crc32c

from driftline.log.kafka import expanding
from driftline.log.kafka.expanding import NONE
from driftline.log.kafka.records import header, varint

BAD_NAME = b"\xff\xfe"

RawHeaders = Sequence[tuple[bytes, bytes]]


def raw_record(number: int, value: bytes, headers: RawHeaders = ()) -> bytes:
    """Return a record as it stands in a batch; header names may be any bytes."""
    body = b"".join(
        (
            b"\0\0",
            varint(number),
            varint(-1),
            varint(len(value)),
            value,
            varint(len(headers)),
            *(header(name, content) for name, content in headers),
        )
    )
    return varint(len(body)) + body


def raw_batch(records: Sequence[bytes], codec: int = NONE) -> bytes:
    """Return a batch of `records`, compressed with `codec`."""
    return framed(compressed(b"".join(records), codec), len(records), codec)


def framed(body: bytes, count: int, codec: int = NONE) -> bytes:
    """Return a batch around what stands for its `count` records."""
    checked = struct.pack(">hiqqqhii", codec, count - 1, 1_000, 1_000, -1, -1, -1, count) + body
    rest = struct.pack(">ibI", -1, 2, calc_crc32c(checked)) + checked
    return struct.pack(">qi", 0, len(rest)) + rest


def compressed(body: bytes, codec: int) -> bytes:
    """Return `body` compressed the way Kafka's clients do."""
    match codec:
        case expanding.GZIP:
            return gzip.compress(body)
        case expanding.SNAPPY:
            head = b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1)
            blocks = [
                bytes(cramjam.snappy.compress_raw(body[at : at + (1 << 20)]))
                for at in range(0, len(body), 1 << 20)
            ]
            return head + b"".join(struct.pack(">i", len(block)) + block for block in blocks)
        case expanding.LZ4:
            packer = cramjam.lz4.Compressor(content_checksum=False, block_linked=False)  # all a broker reads
            packer.compress(body)
            return bytes(packer.finish())
        case expanding.ZSTD:
            return bytes(cramjam.zstd.compress(body))
    return body


def append_raw(url: str, topic: str, partition: int, batch: bytes) -> None:
    """Append a batch as it is. Raises what the broker answers."""

    async def run() -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=url.removeprefix("kafka://"), max_request_size=16 << 20, max_batch_size=16 << 20
        )
        await producer.start()
        try:
            builder = producer.create_batch()
            builder.append(timestamp=None, key=None, value=b"", headers=[])
            builder.close()
            builder._buffer = bytearray(batch)
            await (await producer.send_batch(builder, topic, partition=partition))
        finally:
            await producer.stop()

    asyncio.run(run())
