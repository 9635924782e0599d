"""Record headers as the blob that stands in a partition file.

Invariant: decode(encode(headers)) == headers, order and duplicates included; a
record without headers costs nothing.
"""

from __future__ import annotations

import struct

from driftline.errors import InputError, StateError
from driftline.log.base import Headers

_LENGTHS = struct.Struct("<HI")  # name bytes, value bytes


def encode_headers(headers: Headers) -> bytes | None:
    """Return headers as one blob: per header u16 name length, u32 value length, name, value.

    Raises InputError for a name over 65,535 bytes.
    """
    if not headers:
        return None
    parts: list[bytes] = []
    for name, value in headers:
        raw = name.encode()
        if len(raw) > 0xFFFF:
            raise InputError(f"header name of {len(raw)} bytes, limit 65535")
        parts += (_LENGTHS.pack(len(raw), len(value)), raw, value)
    return b"".join(parts)


def decode_headers(blob: bytes | None) -> Headers:
    """Return the headers of a blob; raises StateError when it is cut short."""
    if blob is None:
        return ()
    headers: list[tuple[str, bytes]] = []
    at = 0
    while at < len(blob):
        if at + _LENGTHS.size > len(blob):
            raise StateError(f"headers blob of {len(blob)} bytes ends inside a length at {at}")
        name, value = _LENGTHS.unpack_from(blob, at)
        start = at + _LENGTHS.size
        at = start + name + value
        if at > len(blob):
            raise StateError(f"headers blob of {len(blob)} bytes ends inside a header, {at} needed")
        headers.append((blob[start : start + name].decode(), blob[start + name : at]))
    return tuple(headers)
