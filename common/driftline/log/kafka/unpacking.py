"""Record batches as aiokafka can unpack them, whatever a producer has put into them.

Invariant: what comes out is a function of the bytes alone, keeps every offset that a
reader goes on from, and unpacks to a bounded size. aiokafka decodes the names of headers
and decompresses batches without a limit while it unpacks, before anybody could refuse the
record, and forgets what it had unpacked when that fails. So a record that cannot be
unpacked is replaced by one that can, marked as unreadable (`driftline.frames.unreadable`).
A batch whose checksum is wrong stays as it is: that is an error of the disk or the wire.

The limits are part of what decides which records are refused: they are fixed for good.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.util import calc_crc32c

from driftline.frames.unreadable import unreadable
from driftline.log.kafka.expanding import MAX_EXPANDED, expanded
from driftline.log.kafka.records import check_parts, header, mended, varint
from driftline.log.kafka.refused import RefusedError

LARGE_BATCH = 2 << 20
"""Bytes, unpacked, from which on records and headers of a batch are counted before aiokafka unpacks it."""

_OVERHEAD = 12  # base offset and length, which the length does not count
_MAGIC, _ATTRIBUTES, _LAST_DELTA, _COUNT = 16, 21, 23, 57
_BODY = 61
_CODEC, _CONTROL = 0x07, 0x20
Bytes = bytes | memoryview
_INT32 = struct.Struct(">i")


def readable(message_set: bytes) -> bytes:
    """Return a fetched message set with every batch as aiokafka can unpack it.

    Ends behind the batch with which compressed ones have unpacked to MAX_EXPANDED; what is
    left out is fetched next.
    """
    spans = list(_batches(message_set))
    with memoryview(message_set) as view:
        if all(_fits(view[start:end]) for start, end in spans):  # almost always: nothing is copied then
            return message_set
    parts: list[bytes] = []
    at, spare = 0, MAX_EXPANDED
    for start, end in spans:
        batch = message_set[start:end]
        compressed = batch[_ATTRIBUTES + 1] & _CODEC
        fit = _readable_batch(batch)
        if compressed and fit is not batch:
            if parts and len(fit) > spare:
                return b"".join(parts)
            spare -= len(fit)
        parts.append(fit)
        at = end
    parts.append(message_set[at:])  # cut off by the size of the fetch
    return b"".join(parts)


def needs_time(message_set: bytes) -> bool:
    """Tell whether `readable` may take longer than an event loop can stand still."""
    return len(message_set) > LARGE_BATCH or any(
        message_set[start + _ATTRIBUTES + 1] & _CODEC for start, _ in _batches(message_set)
    )


def _batches(message_set: bytes) -> Iterator[tuple[int, int]]:
    at = 0
    while at + _BODY <= len(message_set):
        end = at + _OVERHEAD + _INT32.unpack_from(message_set, at + 8)[0]
        if end > len(message_set) or end < at + _BODY:
            return
        yield at, end
        at = end


def _readable_batch(batch: bytes) -> bytes:
    attributes = batch[_ATTRIBUTES + 1]
    if batch[_MAGIC] != 2 or attributes & _CONTROL:  # formats before 2 have no headers
        return batch
    codec = attributes & _CODEC
    if _fits(batch):
        return batch
    if not DefaultRecordBatch(batch).validate_crc():
        return batch
    try:
        body = expanded(codec, batch[_BODY:])
        if len(body) > LARGE_BATCH:
            check_parts(body, _INT32.unpack_from(batch, _COUNT)[0])
        fit = _batch(batch, body) if codec else batch
        return fit if _unpacks(fit) else _batch(batch, mended(body, _INT32.unpack_from(batch, _COUNT)[0]))
    except RefusedError as error:
        return _stand_in(batch, error)


def _fits(batch: Bytes) -> bool:
    """Tell, without much work, that aiokafka can unpack a batch as it is."""
    if batch[_MAGIC] != 2 or batch[_ATTRIBUTES + 1] & (_CONTROL | _CODEC):
        return False
    return len(batch) <= LARGE_BATCH and _unpacks(batch)


def _unpacks(batch: Bytes) -> bool:
    try:
        for _ in DefaultRecordBatch(batch):
            pass
    except (CorruptRecordException, ValueError, IndexError):
        return False
    return True


def _batch(like: bytes, body: bytes, count: int | None = None) -> bytes:
    """Return a batch that is not compressed, with everything but the records as in `like`."""
    head = bytearray(like[:_BODY])
    _INT32.pack_into(head, 8, _BODY + len(body) - _OVERHEAD)
    head[_ATTRIBUTES + 1] &= ~_CODEC
    if count is not None:
        _INT32.pack_into(head, _COUNT, count)
    whole = bytes(head) + body
    crc = struct.pack(">I", calc_crc32c(whole[_ATTRIBUTES:]))
    return whole[: _ATTRIBUTES - 4] + crc + whole[_ATTRIBUTES:]


def _stand_in(batch: bytes, error: RefusedError) -> bytes:
    """Return a batch of one unreadable record, at the last offset, that holds the others as they came."""
    last = _INT32.unpack_from(batch, _LAST_DELTA)[0]
    detail = f"batch of {last + 1} records up to this offset: {error}"
    name, value = unreadable(error.reason, detail.encode())
    content = batch[_BODY:]
    record = b"".join(
        (
            b"\0\0",  # attributes, timestamp delta
            varint(last),
            varint(-1),  # no key
            varint(len(content)),
            content,
            varint(1),
            header(name.encode(), value),
        )
    )
    return _batch(batch, varint(len(record)) + record, 1)
