"""The records inside a batch of format 2: counted, mended, written.

Invariant: what `mended` returns differs from what it was given only in headers whose
names are not UTF-8.
"""

from __future__ import annotations

from driftline.frames.reasons import Reason
from driftline.frames.unreadable import unreadable
from driftline.log.kafka.refused import RefusedError

MAX_PARTS = 500_000
"""Records and headers together in a large batch, or in one that has to be mended: aiokafka makes
objects of 60 to 130 bytes of a header that takes 2 on the wire."""


def check_parts(body: bytes, count: int) -> None:
    """Refuse a batch of too many records and headers."""
    at, parts = 0, count
    try:
        for _ in range(count):
            if parts > MAX_PARTS:
                break
            size, start = _number(body, at)
            parts += max(0, _number(body, _headers_at(body, start))[0])
            at = start + max(0, size)
    except (IndexError, ValueError):
        return  # for `mended` to judge
    if parts > MAX_PARTS:
        raise RefusedError(
            Reason.OVERSIZED, f"over {MAX_PARTS} records and headers in one batch: send smaller batches"
        )


def mended(body: bytes, count: int) -> bytes:
    """Return records with headers that can be decoded. Raises RefusedError where more than names is wrong."""
    records: list[bytes] = []
    at, parts = 0, 0
    try:
        for _ in range(count):
            size, start = _number(body, at)
            headers_at = _headers_at(body, start)
            number, place = _number(body, headers_at)
            parts += 1 + max(0, number)
            if parts > MAX_PARTS:
                raise RefusedError(Reason.OVERSIZED, f"over {MAX_PARTS} records and headers in one batch")
            headers: list[bytes] = []
            for _ in range(number):
                header, place = _mended_header(body, place)
                headers.append(header)
            at = start + size
            if size < 0 or number < 0 or place != at or at > len(body):
                raise ValueError(f"a record of {size} bytes at {start} does not end where it should")
            record = body[start:headers_at] + varint(number) + b"".join(headers)
            records.append(varint(len(record)) + record)
        if at != len(body):
            raise ValueError(f"{len(body) - at} bytes behind the last record")
    except (IndexError, ValueError) as error:
        raise RefusedError(Reason.UNDECODABLE, f"its records break the format: {error}") from None
    return b"".join(records)


def _headers_at(body: bytes, start: int) -> int:
    _, at = _number(body, start + 1)  # behind the attributes: the timestamp's delta
    _, at = _number(body, at)  # the offset's
    for _ in ("key", "value"):
        size, at = _number(body, at)
        at += max(0, size)
    return at


def _mended_header(body: bytes, at: int) -> tuple[bytes, int]:
    """Return a header that can be decoded, and where the next one begins."""
    size, start = _number(body, at)
    if size < 0 or start + size > len(body):
        raise ValueError(f"a header name of {size} bytes at {start}")
    name = body[start : start + size]
    length, value_at = _number(body, start + size)
    end = value_at + max(0, length)
    if length < -1 or end > len(body):
        raise ValueError(f"a header value of {length} bytes at {value_at}")
    try:
        name.decode()
    except UnicodeDecodeError:
        marked, detail = unreadable(Reason.BAD_HEADER, name + b"=" + body[value_at:end])
        return header(marked.encode(), detail), end
    return body[at:end], end


def header(name: bytes, value: bytes) -> bytes:
    """Return a header as it stands in a record."""
    return varint(len(name)) + name + varint(len(value)) + value


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Return the zigzag varint at `at` and the place behind it."""
    result = shift = 0
    while True:
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (result >> 1) ^ -(result & 1), at
        shift += 7
        if shift > 63:
            raise ValueError(f"a number of more than 64 bits at {at}")


def varint(number: int) -> bytes:
    """Return `number` as a zigzag varint."""
    value = number << 1 if number >= 0 else (-number << 1) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(0x80 | (value & 0x7F))
        value >>= 7
    out.append(value)
    return bytes(out)
