"""Columns of whole numbers in few bytes: ordinals, ids and LSNs as an object stores them.

Invariant: `unpack(pack(values), dtype)` is `values`, to the bit, whatever they are. What is packed is
small enough to be kept unpacked in memory; longer columns stay raw, to be searched where they are
mapped.

A column is its first or least number, then for each its distance from the one before (increasing
columns) or from the least one (others), as planes of bytes of rising significance, as many as are
not all zero, in zstd. Measured at 2% changed rows, 20,000 of them in frames of 512: 0.9 bytes per
ordinal and 0.7 per LSN, where raw ones take 12 together; 0.2 ms to read.
"""

from __future__ import annotations

from typing import Any

import cramjam
import numpy as np
from numpy.typing import NDArray

MOST = 1 << 16  # numbers: longer columns are not packed
_LEVEL = 3
_STEPS, _OFFSETS = 0, 1  # distances from the one before, from the least
_HEADER = 10  # kind, planes, first


def pack(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the bytes of a column of u32 or u64, at least one."""
    wide = values.astype(np.uint64)
    rising = bool((wide[1:] > wide[:-1]).all())
    first = wide[0] if rising else wide.min()
    distances = np.diff(wide, prepend=first) if rising else wide - first
    count = (int(distances.max()).bit_length() + 7) // 8
    planes = np.ascontiguousarray(distances.astype("<u8")[:, None].view(np.uint8).T[:count])
    header = bytes([_STEPS if rising else _OFFSETS, count]) + int(first).to_bytes(8, "little")
    packed = bytes(cramjam.zstd.compress(planes.tobytes(), level=_LEVEL)) if count else b""
    return np.frombuffer(header + packed, np.uint8)


def unpack(data: NDArray[np.uint8], count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the column of `count` numbers. Raises ValueError where the bytes are not one."""
    raw = data.tobytes()
    if len(raw) < _HEADER or raw[0] not in (_STEPS, _OFFSETS) or raw[1] > 8:
        raise ValueError(f"{len(raw)} bytes that begin no packed column")
    first = np.uint64(int.from_bytes(raw[2:_HEADER], "little"))
    distances = np.zeros(count, np.uint64)
    if raw[1]:
        planes = np.frombuffer(bytes(cramjam.zstd.decompress(raw[_HEADER:])), np.uint8)
        if len(planes) != raw[1] * count:
            raise ValueError(f"{len(planes)} bytes in planes of {count}")
        for place, plane in enumerate(planes.reshape(raw[1], count)):
            distances |= plane.astype(np.uint64) << np.uint64(8 * place)
    values = np.cumsum(distances, dtype=np.uint64) + first if raw[0] == _STEPS else distances + first
    return values.astype(dtype)
