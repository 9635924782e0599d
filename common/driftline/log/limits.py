"""What a log accepts: topic names, record and batch sizes.

Invariant: pure, and the same for every backend, so that what was tried on the
embedded log is never refused by the broker.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from driftline.errors import InputError
from driftline.log.base import Outgoing

MAX_RECORD_BYTES = 8 << 20
"""Largest record: key + value + headers, framing included, see `record_size`."""

MAX_BATCH_BYTES = MAX_RECORD_BYTES
"""Largest batch of one append. A batch is appended whole or not at all, and a broker takes
no more than one `max.message.bytes` whole."""

RECORD_FRAMING = 32
"""Upper bound on a record's own framing in Kafka's format v2: lengths, deltas, attributes."""

HEADER_FRAMING = 10
"""Two varint lengths per header."""

MAX_PARTITIONS = 1 << 16

_NAME = re.compile(r"[a-zA-Z0-9._-]{1,200}")


def check_name(kind: str, name: str) -> str:
    """Return `name` if it may name a topic or a consumer group, else raise InputError.

    1 to 200 characters of a-z A-Z 0-9 . _ -, except "." and "..", as in Kafka.
    """
    if _NAME.fullmatch(name) is None or name in (".", ".."):
        raise InputError(f"{kind} name {name!r} is not allowed: use 1 to 200 characters of a-z A-Z 0-9 . _ -")
    return name


def check_partitions(topic: str, partitions: int) -> int:
    """Return `partitions` if a topic may have so many, else raise InputError."""
    if not 0 < partitions <= MAX_PARTITIONS:
        raise InputError(f"topic {topic!r}: {partitions} partitions asked for, allowed 1..{MAX_PARTITIONS}")
    return partitions


def record_size(record: Outgoing) -> int:
    """Return the bytes a record counts against the limits: payload plus an upper bound of framing."""
    headers = sum(len(name.encode()) + len(value) + HEADER_FRAMING for name, value in record.headers)
    return len(record.value) + len(record.key or b"") + headers + RECORD_FRAMING


def batch_size(records: Sequence[Outgoing]) -> int:
    """Return the bytes a batch counts against `MAX_BATCH_BYTES`."""
    return sum(map(record_size, records))


def check_batch(topic: str, partition: int, records: Sequence[Outgoing]) -> int:
    """Return the size of a batch that may be appended whole, else raise InputError."""
    if not records:
        raise InputError(f"{topic}[{partition}]: an empty batch has no offset; append at least one record")
    total = 0
    for index, record in enumerate(records):
        size = record_size(record)
        if size > MAX_RECORD_BYTES:
            raise InputError(
                f"{topic}[{partition}]: record {index} counts {size} bytes, "
                f"limit {MAX_RECORD_BYTES}; split it"
            )
        total += size
    if total > MAX_BATCH_BYTES:
        raise InputError(
            f"{topic}[{partition}]: batch of {len(records)} records counts {total} bytes, "
            f"limit {MAX_BATCH_BYTES}; append it in parts, see driftline.log.split"
        )
    return total


def split(records: Sequence[Outgoing], max_bytes: int = MAX_BATCH_BYTES) -> Iterator[Sequence[Outgoing]]:
    """Yield `records` in order as batches of at most `max_bytes`, as few as a greedy cut gives.

    A single record over `max_bytes` is yielded alone; `append` then judges it.

    Examples
    --------
    >>> [len(batch) for batch in split([Outgoing(b"x" * 968)] * 5, max_bytes=2000)]
    [2, 2, 1]
    """
    start, total = 0, 0
    for index, record in enumerate(records):
        size = record_size(record)
        if index > start and total + size > max_bytes:
            yield records[start:index]
            start, total = index, 0
        total += size
    if start < len(records):
        yield records[start:]
