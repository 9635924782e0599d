"""Event frames from and to bytes, by `json` and `struct` alone.

Invariant: `decode` accepts exactly what architecture.md, "Event frames", lays
down: safetensors (u64 header length, JSON header in UTF-8 that names nothing twice,
raw little-endian tensors without holes), all metadata values strings, and for each
type its own tensors; within the limits below, which are part of the format.
Whatever fails here is undecodable; what a table's rules refuse is not judged here.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import struct
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tests.oracle.f32 import F32, from_hex_bits

OPS_PRODUCER = bytes.fromhex("e72853feec7d524ca180a88923a4b668")
"""UUIDv5 of "ops" under 6d3a4f9e-52a0-5d0c-9a4c-6c0f3f1f7a11."""

NAMESPACE = uuid.UUID("6d3a4f9e-52a0-5d0c-9a4c-6c0f3f1f7a11")
INGEST_PRODUCERS = {uuid.uuid5(NAMESPACE, f"ingest:{partition}").bytes for partition in range(1024)}
"""UUIDv5 of "ingest:0" to "ingest:1023"."""

EVENTS = ("gradient", "upsert", "delete")
OPS = ("spec", "barrier", "quarantine", "prepare", "restore", "restore-rows", "move")

MAX_FRAME = 8 << 20
MAX_HEADER = 64 * 1024
MAX_TENSORS, MAX_DIMENSIONS, MAX_SIDE = 16, 2, (1 << 32) - 1

_SIZES = {"U8": 1, "U32": 4, "U64": 8, "F32": 4, "F16": 2, "BF16": 2}
_FLOATS = ("F32", "F16", "BF16")
_REQUIRED = {"gradient": ("ids", "grads"), "upsert": ("ids", "rows"), "delete": ("ids",)}
_REQUIRED["restore-rows"] = ("ids", "rows", "state")
_OWN = _REQUIRED | {"upsert": ("ids", "rows", "state")}

T = TypeVar("T")
Matrix = tuple[tuple[F32, ...], ...]


class UndecodableError(Exception):
    """These bytes are no frame; formats.md: "a forged or undecodable frame uses up no seq"."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded frame; `values` are the grads of a gradient, otherwise the rows."""

    kind: str
    table: str
    shard: int
    producer: bytes
    epoch: int
    seq: int
    read_pos: int | None = None
    lr: F32 | None = None
    body: Mapping[str, object] | None = None
    group: str | None = None  # of a signed frame
    ids: tuple[int, ...] = ()
    values: Matrix = ()
    width: int = 0
    state: Matrix | None = None
    state_width: int = 0


@dataclass(frozen=True, slots=True)
class Tensor:
    dtype: str
    shape: tuple[int, ...]
    data: bytes


def check_readable(headers: Sequence[tuple[str, bytes]]) -> None:
    """frames.md: "A record with the header `dl-unreadable` is refused"."""
    if any(name == "dl-unreadable" for name, _ in headers):
        raise UndecodableError("unreadable")


def signed(value: bytes, headers: Sequence[tuple[str, bytes]], keys: Mapping[str, bytes]) -> bool | None:
    """Tell whether the frame's mac is right; None when it carries none.

    formats.md: "headers `dl-kid`, `dl-mac` = HMAC-SHA256 over the frame bytes"; `keys` holds the
    deployment's current and retired keys: "Retired keys stay valid for verification".
    """
    found = dict(headers)
    if "dl-kid" not in found and "dl-mac" not in found:
        return None
    key = keys.get(found.get("dl-kid", b"").decode("latin-1"))
    if key is None:
        return False
    mac = hmac.new(key, value, hashlib.sha256).hexdigest().encode()
    return hmac.compare_digest(mac, found.get("dl-mac", b""))


def decode(value: bytes) -> Frame:
    """Decode a frame or raise UndecodableError saying which rule it breaks."""
    meta, tensors = container(value)
    kind = _text(meta, "type")
    if kind not in EVENTS + OPS:
        raise UndecodableError(f"type {kind!r} is unknown")
    if _text(meta, "schema") != "1":
        raise UndecodableError(f"schema {meta['schema']!r} is not 1")
    # Choice: tensors that mean nothing for the type are passed over.
    if not set(_REQUIRED.get(kind, ())) <= set(tensors):
        raise UndecodableError(f"a {kind} must have more tensors than {sorted(tensors)}")
    producer = _text(meta, "producer")
    seq = _number(meta, "seq", 64)
    body: Mapping[str, object] | None = None
    if kind in OPS:
        body = _json_object(_text(meta, "body"))
        if _number(meta, "op", 64) != seq:
            raise UndecodableError(f"op {meta['op']} is not the seq {seq} of its frame")
    own_meta = meta if kind == "gradient" else {}
    own = {name: tensor for name, tensor in tensors.items() if name in _OWN.get(kind, ())}
    ids = _ids(own["ids"]) if "ids" in own else ()
    grads = "grads" if kind == "gradient" else "rows"
    values, width = _matrix(own, grads, len(ids), _FLOATS if kind == "gradient" else ("F32",))
    state, state_width = _matrix(own, "state", len(ids), ("F32",))
    return Frame(
        kind=kind,
        table=_text(meta, "table"),
        shard=_number(meta, "shard", 32),
        producer=_producer(producer),
        epoch=_number(meta, "producer_epoch", 32),
        seq=seq,
        read_pos=_number(meta, "read_pos", 64) if "read_pos" in own_meta else None,
        lr=_rate(_text(meta, "lr")) if "lr" in own_meta else None,
        body=body,
        group=meta.get("group"),
        ids=ids,
        values=values,
        width=width,
        state=state if "state" in own else None,
        state_width=state_width,
    )


def container(value: bytes) -> tuple[Mapping[str, str], dict[str, Tensor]]:
    """Return metadata and tensors of any safetensors frame, or raise UndecodableError."""
    if not 8 <= len(value) <= MAX_FRAME:
        raise UndecodableError(f"{len(value)} bytes are no frame")
    (size,) = struct.unpack_from("<Q", value)
    if size > min(len(value) - 8, MAX_HEADER):
        raise UndecodableError(
            f"a header of {size} bytes does not fit into {len(value)}, or exceeds the limit"
        )
    header = dict(_json_object(value[8 : 8 + size]))
    meta = header.pop("__metadata__", None)
    if not isinstance(meta, dict) or not all(isinstance(v, str) for v in meta.values()):
        raise UndecodableError("__metadata__ is missing or holds something else than strings")
    if len(header) > MAX_TENSORS:
        raise UndecodableError(f"{len(header)} tensors")
    data = value[8 + size :]
    tensors: dict[str, Tensor] = {}
    spans: list[tuple[int, int]] = []
    for name, entry in header.items():
        dtype, shape, (begin, end) = _entry(name, entry)
        count = 1
        for side in shape:
            count *= side
        if end - begin != count * _SIZES[dtype]:
            raise UndecodableError(f"tensor {name}: {end - begin} bytes do not hold shape {shape}")
        tensors[name] = Tensor(dtype, shape, data[begin:end])
        spans.append((begin, end))
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise UndecodableError(f"hole or overlap at data byte {position}")
        position = end
    if position != len(data):
        raise UndecodableError(f"tensors end at data byte {position} of {len(data)}")
    return meta, tensors


def _entry(name: str, entry: object) -> tuple[str, tuple[int, ...], tuple[int, int]]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise UndecodableError(f"tensor {name} is not described by dtype, shape and data_offsets alone")
    dtype, shape, span = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _SIZES:
        raise UndecodableError(f"tensor {name}: dtype {dtype!r} is unknown")
    if not isinstance(shape, list) or not isinstance(span, list) or len(span) != 2:
        raise UndecodableError(f"tensor {name}: shape or data_offsets is malformed")
    if any(type(x) is not int or x < 0 for x in [*shape, *span]) or span[0] > span[1]:
        raise UndecodableError(f"tensor {name}: shape or data_offsets is malformed")
    if len(shape) > MAX_DIMENSIONS or any(side > MAX_SIDE for side in shape):
        raise UndecodableError(f"tensor {name} has the shape {shape}")
    return dtype, tuple(shape), (span[0], span[1])


def _ids(tensor: Tensor) -> tuple[int, ...]:
    if tensor.dtype != "U64" or len(tensor.shape) != 1:
        raise UndecodableError(f"ids are {tensor.dtype}{list(tensor.shape)}, not U64[n]")
    return struct.unpack(f"<{tensor.shape[0]}Q", tensor.data)


def _matrix(tensors: Mapping[str, Tensor], name: str, rows: int, dtypes: Sequence[str]) -> tuple[Matrix, int]:
    tensor = tensors.get(name)
    if tensor is None:
        return (), 0
    if tensor.dtype not in dtypes or len(tensor.shape) != 2 or tensor.shape[0] != rows:
        raise UndecodableError(f"{name} are {tensor.dtype}{list(tensor.shape)}, not {dtypes}[{rows}, d]")
    width = tensor.shape[1]
    flat = _floats(tensor)
    return tuple(tuple(flat[i * width : (i + 1) * width]) for i in range(rows)), width


def _floats(tensor: Tensor) -> tuple[F32, ...]:
    count = len(tensor.data) // _SIZES[tensor.dtype]
    if tensor.dtype == "BF16":
        halves = struct.unpack(f"<{count}H", tensor.data)
        return struct.unpack(f"<{count}f", struct.pack(f"<{count}I", *(h << 16 for h in halves)))
    return struct.unpack(f"<{count}{'f' if tensor.dtype == 'F32' else 'e'}", tensor.data)


def _json_object(text: str | bytes) -> Mapping[str, object]:
    """Read JSON by the letter of RFC 8259: UTF-8, no NaN, no half surrogate pairs, no name twice."""
    unique = _unique if isinstance(text, bytes) else None  # an op's body is the router's own writing
    try:
        whole = text.decode() if isinstance(text, bytes) else text
        found = json.loads(whole, object_pairs_hook=unique, parse_constant=_refuse)
        json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise UndecodableError(f"not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UndecodableError(f"not a JSON object: {found!r}")
    return found


def _unique(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


def _producer(text: str) -> bytes:
    if len(text) != 32 or any(digit not in "0123456789abcdefABCDEF" for digit in text):
        raise UndecodableError(f"producer {text!r} is not 32 hex digits")
    return bytes.fromhex(text)


def _text(meta: Mapping[str, str], key: str) -> str:
    if not meta.get(key):
        raise UndecodableError(f"__metadata__ lacks {key}")
    return meta[key]


def _number(meta: Mapping[str, str], key: str, bits: int) -> int:
    text = _text(meta, key)
    if not (text.isascii() and text.isdigit()) or len(text) > 20 or int(text) >> bits:
        raise UndecodableError(f"{key} {text!r} is not a decimal number of {bits} bits")
    return int(text)


def _rate(text: str) -> F32:
    """Choice: a learning rate that is negative or not finite is no learning rate."""
    rate = _try(lambda: from_hex_bits(text), "lr")
    if not 0.0 <= rate < math.inf:
        raise UndecodableError(f"lr {rate} is not a finite number of at least 0")
    return rate


def _try(read: Callable[[], T], key: str) -> T:
    try:
        return read()
    except ValueError as error:
        raise UndecodableError(f"{key}: {error}") from error
