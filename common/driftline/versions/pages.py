"""Binary objects: safetensors whose last tensor holds a checksum for every 4 KiB page before it.

Invariant: `digest` in an object's reference fixes the page checksums, and they fix
every byte before them; so a reader can check exactly the pages it touches, and any
changed byte is named with its page.

CRC-32 finds every change within four bytes for certain and others but for one in
2^32; at 2.4 GB/s it costs a third of BLAKE2b (measured, pages of 4 KiB), which
stays for the digest over the checksums.

Short columns of whole numbers (`PACKED`) are packed, see `driftline.versions.packing`; the metadata
says which, and how long they are.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftline.frames.tensors import Array, encode
from driftline.versions import packing

PAGE = 4096
RUN = 2048  # pages: the longest stretch that is checked in one go
SHORT = 12  # pages: shorter stretches are checked page by page, which is faster then
PACKED = frozenset({"ord", "dead", "lsn", "dead_lsn", "ids"})
_SUMS = "sums"
_KINDS: dict[str, np.dtype[Any]] = {"U32": np.dtype(np.uint32), "U64": np.dtype(np.uint64)}
_HEADER_ROOM = 8192  # of the safetensors header, when counting pages beforehand


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """Names an object and fixes its bytes."""

    key: str
    size: int  # bytes
    body: int  # bytes in front of the page checksums
    digest: str  # blake2b-128 of the page checksums, hex


@dataclass(frozen=True, slots=True)
class Sealed:
    """An object that is not yet in the store."""

    ref: ObjectRef
    data: bytes


def seal(key: str, metadata: Mapping[str, str], tensors: Mapping[str, Array]) -> Sealed:
    """Return the object of `tensors`, in the order given, with checksums behind them."""
    metadata, tensors = _packed(metadata, tensors)
    content = sum(tensor.nbytes for tensor in tensors.values())
    pages = -(-(content + _HEADER_ROOM) // PAGE)
    data = bytearray(encode(metadata, {**tensors, _SUMS: np.zeros(pages, np.uint32)}))
    body = len(data) - 4 * pages
    sums = np.zeros(pages, np.uint32)
    found = page_sums(memoryview(data)[:body])
    sums[: len(found)] = found
    data[body:] = sums.tobytes()
    return Sealed(ObjectRef(key, len(data), body, digest_of(sums)), bytes(data))


def _packed(
    metadata: Mapping[str, str], tensors: Mapping[str, Array]
) -> tuple[Mapping[str, str], Mapping[str, Array]]:
    stored: dict[str, Array] = {}
    said: list[str] = []
    for name, tensor in tensors.items():
        if name in PACKED and 0 < len(tensor) <= packing.MOST:
            stored[name] = packing.pack(tensor)
            said.append(f"{name}:U{8 * tensor.itemsize}:{len(tensor)}")
        else:
            stored[name] = tensor
    if not said:
        return metadata, tensors
    # bytes last, or those behind them would lie askew in memory and be copied when mapped
    ordered = dict(sorted(stored.items(), key=lambda each: each[1].dtype.itemsize == 1))
    return {**metadata, "packed": " ".join(said)}, ordered


def packed_columns(metadata: Mapping[str, str]) -> dict[str, tuple[np.dtype[Any], int]]:
    """Return the dtype and length of each packed column. Raises ValueError for what names none."""
    found: dict[str, tuple[np.dtype[Any], int]] = {}
    for text in metadata.get("packed", "").split():
        name, kind, count = text.split(":")
        if kind not in _KINDS or not 0 < int(count) <= packing.MOST:
            raise ValueError(f"packed column {text!r}")
        found[name] = _KINDS[kind], int(count)
    return found


def page_sums(body: memoryview) -> NDArray[np.uint32]:
    """Return the CRC-32 of each page of `body`, the last of which may be short."""
    return np.array([zlib.crc32(body[at : at + PAGE]) for at in range(0, len(body), PAGE)], np.uint32)


def check_run(body: memoryview, sums: NDArray[np.uint32], first: int) -> NDArray[np.int64]:
    """Return which pages of a run, numbered from `first`, do not have the checksums in `sums`.

    One CRC-32 over the run is held against what the pages' checksums make together, since CRC-32 is
    linear: that of A and B is that of A, moved past len(B) bytes, XOR that of B. A long call runs
    outside Python's lock and without a loop over pages.
    """
    whole = len(body) // PAGE
    if whole > 1 and zlib.crc32(body[: whole * PAGE]) == _joined(sums[:whole]):
        body, sums, first = body[whole * PAGE :], sums[whole:], first + whole
    return first + np.flatnonzero(page_sums(body) != sums).astype(np.int64)


def _joined(sums: NDArray[np.uint32]) -> int:
    """Return the CRC-32 of whole pages in a row, by their checksums: of pairs, pairs of pairs, and so on."""
    levels = (len(sums) - 1).bit_length()
    joined = np.zeros(1 << levels, np.uint32)
    joined[len(joined) - len(sums) :] = sums  # nothing in front of them: its CRC is 0
    for moved in _MOVES[:levels]:
        left, right = joined[0::2], joined[1::2]
        joined = right ^ moved[0][left & 255]
        for byte in (1, 2, 3):
            joined ^= moved[byte][(left >> np.uint32(8 * byte)) & 255]
    return int(joined[0])


def _moves(levels: int) -> list[NDArray[np.uint32]]:
    """Return, for 1, 2, 4, … pages of 4 KiB, what moving a CRC-32 past them makes of each of its bytes."""
    # past one zero byte, bit by bit: a column for each bit of the CRC
    columns = np.array([zlib.crc32(b"\0", bit) ^ zlib.crc32(b"\0", 0) for bit in _BITS], np.uint32)
    tables: list[NDArray[np.uint32]] = []
    for level in range(levels + 12):  # 4 KiB are 2^12 bytes
        table = _by_byte(columns)
        if level >= 12:
            tables.append(table)
        columns = np.bitwise_xor.reduce([table[byte][(columns >> (8 * byte)) & 255] for byte in range(4)])
    return tables


def _by_byte(columns: NDArray[np.uint32]) -> NDArray[np.uint32]:
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1 == 1  # (value, bit)
    each = np.where(bits[None], columns.reshape(4, 1, 8), np.uint32(0))
    return np.asarray(np.bitwise_xor.reduce(each, axis=2))


_BITS = [1 << bit for bit in range(32)]
_MOVES = _moves(11)  # up to RUN pages


def digest_of(sums: NDArray[np.uint32]) -> str:
    """Return the digest of page checksums, in hex."""
    return hashlib.blake2b(sums.tobytes(), digest_size=16).hexdigest()
