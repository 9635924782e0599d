"""Decompression of a batch's records, with a limit.

Invariant: never holds more than MAX_EXPANDED of what comes out, and never reads behind
what came in, whatever the bytes are.
"""

from __future__ import annotations

import struct
import zlib
from typing import Protocol, cast

import cramjam

from driftline.frames.reasons import Reason
from driftline.log.kafka.refused import RefusedError

MAX_EXPANDED = 32 << 20
"""Bytes that a compressed batch may unpack to: four times the largest batch of the log's own."""

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
"""Codecs, as a batch names them."""

_XERIAL = b"\x82SNAPPY\x00"
_INT32 = struct.Struct(">i")


def expanded(codec: int, content: bytes) -> bytes:
    """Return `content` decompressed. Raises RefusedError: over MAX_EXPANDED, or damaged."""
    if codec == NONE:
        return content
    try:
        if codec == GZIP:
            body = _gunzip(content)
        elif codec == SNAPPY:
            body = _unsnap(content)
        elif codec == LZ4:
            body = _grown(cast(_Codec, cramjam.lz4), content)
        elif codec == ZSTD:
            body = _grown(cast(_Codec, cramjam.zstd), content)
        else:
            raise RefusedError(Reason.UNDECODABLE, f"unknown compression {codec}")
    except (cramjam.DecompressionError, zlib.error, struct.error, ValueError) as error:
        raise RefusedError(Reason.UNDECODABLE, f"{len(content)} bytes do not decompress: {error}") from None
    if body is None:
        raise RefusedError(
            Reason.OVERSIZED,
            f"{len(content)} bytes decompress to more than {MAX_EXPANDED}: send smaller batches",
        )
    return body


class _Codec(Protocol):
    def decompress_into(self, content: bytes, buffer: bytearray) -> int: ...


def _grown(codec: _Codec, content: bytes) -> bytes | None:
    """Decompress into a buffer that grows from 8 times the size on; None over MAX_EXPANDED."""
    room = max(1 << 16, 8 * len(content))
    while True:
        buffer = bytearray(min(room, MAX_EXPANDED))
        try:
            size = codec.decompress_into(content, buffer)
        except cramjam.DecompressionError as error:
            if "whole buffer" not in str(error):
                raise
            if room >= MAX_EXPANDED:
                return None
            room *= 8
        else:
            return bytes(memoryview(buffer)[:size])


def _gunzip(content: bytes) -> bytes | None:
    parts: list[bytes] = []
    spare = MAX_EXPANDED
    while content:
        member = zlib.decompressobj(wbits=31)
        parts.append(member.decompress(content, spare + 1))
        spare -= len(parts[-1])
        if spare < 0:
            return None
        if not member.eof:
            raise ValueError("the stream ends early")
        content = member.unused_data
    return b"".join(parts)


def _unsnap(content: bytes) -> bytes | None:
    blocks = [content]
    if content.startswith(_XERIAL):
        blocks, at = [], 16
        while at < len(content):
            size = _INT32.unpack_from(content, at)[0]
            if size <= 0 or at + 4 + size > len(content):
                raise ValueError(f"a snappy block of {size} bytes at {at}")
            blocks.append(content[at + 4 : at + 4 + size])
            at += 4 + size
    if sum(cramjam.snappy.decompress_raw_len(block) for block in blocks) > MAX_EXPANDED:
        return None
    return b"".join(bytes(cramjam.snappy.decompress_raw(block)) for block in blocks)
