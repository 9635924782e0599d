"""A second decoder of frames, written from the format alone.

Invariant: shares no code with `driftline.frames`; None means that the bytes are no frame.
"""

from __future__ import annotations

import json
import math
import struct

SIZES = {"U8": 1, "U32": 4, "U64": 8, "F16": 2, "BF16": 2, "F32": 4}
Decoded = tuple[dict[str, str], dict[str, tuple[str, tuple[int, ...], bytes]]]


def plain_decode(data: bytes) -> Decoded | None:
    """Return metadata, and per tensor its dtype, shape and raw bytes."""
    try:
        (size,) = struct.unpack_from("<Q", data)
        assert size <= min(64 * 1024, len(data) - 8)
        header = json.loads(data[8 : 8 + size].decode("utf-8"))
        metadata = header.pop("__metadata__")
        assert len(header) <= 16
        assert all(type(value) is str for value in metadata.values())
        body, end, tensors = data[8 + size :], 0, {}
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            begin, stop = entry["data_offsets"]
            shape = entry["shape"]
            assert entry.keys() == {"dtype", "shape", "data_offsets"}
            assert all(type(item) is int and 0 <= item < 1 << 32 for item in [*shape, begin, stop])
            assert type(shape) is list
            assert len(shape) <= 2
            assert begin == end <= stop == begin + math.prod(shape) * SIZES[entry["dtype"]] <= len(body)
            tensors[name] = (entry["dtype"], tuple(shape), body[begin:stop])
            end = stop
        assert end == len(body)
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError, struct.error, RecursionError):
        return None
    return metadata, tensors
