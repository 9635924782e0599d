"""Frames to bytes, for tests that feed the oracle (or anything else) a log of their own.

Invariant: what `encode` writes, `wire.decode` reads back to the same bits, unless
the caller overrode a field in order to break it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from collections.abc import Mapping, Sequence

from tests.oracle.f32 import F32, f32
from tests.oracle.wire import OPS, OPS_PRODUCER

Rows = Sequence[Sequence[F32]]


def encode(meta: Mapping[str, str], tensors: Mapping[str, tuple[str, Sequence[int], bytes]]) -> bytes:
    """Lay out metadata and tensors (dtype, shape, bytes) as safetensors, header padded to 8 bytes."""
    header: dict[str, object] = {"__metadata__": dict(meta)}
    position = 0
    for name, (dtype, shape, data) in tensors.items():
        offsets = [position, position + len(data)]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        position += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values())


def metadata(kind: str, table: str, shard: int, producer: bytes, seq: int, epoch: int = 0) -> dict[str, str]:
    """Return the metadata that every frame carries; an op also gets `op` and an empty body."""
    meta = {
        "type": kind,
        "table": table,
        "schema": "1",
        "shard": str(shard),
        "producer": producer.hex(),
        "producer_epoch": str(epoch),
        "seq": str(seq),
    }
    if kind in OPS:
        meta |= {"op": str(seq), "body": "{}", "group": "g"}
    return meta


def op(
    kind: str, table: str, shard: int, seq: int, body: Mapping[str, object] | None = None, group: str = "g"
) -> bytes:
    """Return an op frame without tensors, of the ops producer, not yet signed."""
    meta = metadata(kind, table, shard, OPS_PRODUCER, seq) | {"group": group}
    return encode(meta | {"body": json.dumps(body or {})}, {})


def ids_tensor(ids: Sequence[int]) -> tuple[str, Sequence[int], bytes]:
    return "U64", (len(ids),), struct.pack(f"<{len(ids)}Q", *ids)


def floats_tensor(rows: Rows, width: int, dtype: str = "F32") -> tuple[str, Sequence[int], bytes]:
    """Return rows as a tensor [n, width]; BF16 keeps the upper half of the float32 bits."""
    flat = [f32(x) for row in rows for x in row]
    data = struct.pack(f"<{len(flat)}{'e' if dtype == 'F16' else 'f'}", *flat)
    if dtype == "BF16":
        data = b"".join(data[i + 2 : i + 4] for i in range(0, len(data), 4))
    return dtype, (len(rows), width), data


def sign(value: bytes, kid: str, key: bytes) -> tuple[tuple[str, bytes], ...]:
    """Return the headers by which the router vouches for a frame."""
    mac = hmac.new(key, value, hashlib.sha256).hexdigest().encode()
    return (("dl-kid", kid.encode()), ("dl-mac", mac))
