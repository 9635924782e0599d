"""Small objects of the version store: JSON under a checksum of its own.

Invariant: no byte of a document can change unnoticed, for nothing else carries
its checksum. A `packed` document (a manifest) is

    "driftline/1 " | blake2b-128 of what follows, hex | newline | zstd of JSON

and a `plain` one, for people to read, is JSON in one canonical spelling, which
holds the checksum of its body.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import cramjam
import orjson

from driftline.errors import DamagedObjectError, StoreFormatError

_MAGIC = b"driftline/1 "
_HEAD = len(_MAGIC) + 32 + 1
_LEVEL = 3
_CANONICAL = orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE

Json = Mapping[str, object]


def checksum(data: bytes) -> str:
    """Return the blake2b-128 of `data`, in hex."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def pack(text: bytes) -> bytes:
    """Return a packed document of some JSON text."""
    packed = bytes(cramjam.zstd.compress(text, level=_LEVEL))
    return _MAGIC + checksum(packed).encode() + b"\n" + packed


def unpack(key: str, data: bytes) -> bytes:
    """Return the JSON text of the packed document `key`.

    Raises DamagedObjectError; StoreFormatError for one that a newer release has written.
    """
    if data[: len(_MAGIC)] != _MAGIC:
        if data.startswith(b"driftline/") and data[:_HEAD].isascii() and data[_HEAD - 1 : _HEAD] == b"\n":
            raise StoreFormatError(
                f"object {key} is of format {data[: len(_MAGIC)].decode().strip()}; this release reads "
                "driftline/1: upgrade it"
            )
        raise DamagedObjectError(key, "its beginning", repr(_MAGIC), repr(data[: len(_MAGIC)]))
    expected, packed = data[len(_MAGIC) : _HEAD - 1], data[_HEAD:]
    found = checksum(packed)
    if data[_HEAD - 1 : _HEAD] != b"\n" or expected != found.encode():
        raise DamagedObjectError(key, "its checksum", repr(expected)[2:-1], found)
    return bytes(cramjam.zstd.decompress(packed))


def write_plain(body: Json) -> bytes:
    """Return a plain document."""
    text = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    return orjson.dumps({"blake2b": checksum(text), "body": body}, option=_CANONICAL)


def read_plain(key: str, data: bytes) -> dict[str, object]:
    """Return the body of the plain document `key`. Raises DamagedObjectError."""
    try:
        parsed = orjson.loads(data)
    except orjson.JSONDecodeError:
        parsed = None
    if not isinstance(parsed, dict) or not isinstance(parsed.get("body"), dict):
        raise DamagedObjectError(key, "its JSON", "a document", f"{len(data)} bytes that are none")
    body: dict[str, object] = parsed["body"]
    if write_plain(body) != data:
        found = checksum(orjson.dumps(body, option=orjson.OPT_SORT_KEYS))
        raise DamagedObjectError(key, "its checksum", str(parsed.get("blake2b")), found)
    return body
