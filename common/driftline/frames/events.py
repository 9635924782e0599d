"""What travels on the gradients topic: gradients, upserts, deletes and ops, as typed values.

Invariant: `read_event` returns a value only if its metadata and the shapes of
its tensors are right by themselves. What depends on the table or the shard
(dimension, which ids, sequence) is judged by the shard, see `driftline.shard`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from driftline.errors import FrameError, InputError
from driftline.frames.reasons import Reason
from driftline.frames.tensors import Array, Bfloat16, Frame, decode, encode

SCHEMA = "1"
GRADIENT, UPSERT, DELETE = "gradient", "upsert", "delete"
SPEC, BARRIER, QUARANTINE = "spec", "barrier", "quarantine"
PREPARE, RESTORE, RESTORE_ROWS = "prepare", "restore", "restore-rows"
MOVE = "move"
OPS = frozenset({SPEC, BARRIER, QUARANTINE, PREPARE, RESTORE, RESTORE_ROWS, MOVE})
MAX_SEQ = (1 << 64) - 1
MAX_EPOCH = (1 << 32) - 1
GRADIENT_KINDS = ("F32", "F16", "BF16")
GROUP = "group"
"""In the metadata of every signed frame: the group whose router, or whose operator, has signed it."""
_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Origin:
    """Who sent a frame, and where it stands in that producer's own order."""

    producer: bytes  # 16 bytes
    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class Gradient:
    """Gradients of one shard: ids strictly increasing (n,), grads float32 (n, d)."""

    table: str
    shard: int
    origin: Origin
    ids: NDArray[np.uint64]
    grads: NDArray[np.float32]
    read_pos: int | None = None  # LSN of the shard's next offset when the rows were read
    lr: np.float32 | None = None  # overrides the table's learning rate


@dataclass(frozen=True, slots=True)
class Upsert:
    """Explicit rows: float32 (n, d), optional optimizer state (n, s)."""

    table: str
    shard: int
    origin: Origin
    ids: NDArray[np.uint64]
    rows: NDArray[np.float32]
    state: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Ids to remove."""

    table: str
    shard: int
    origin: Origin
    ids: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Op:
    """A table-wide operation as one shard sees it; `origin.seq` is its number in the ops log plus one."""

    kind: str
    table: str
    shard: int
    origin: Origin
    body: Mapping[str, object]
    ids: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    rows: NDArray[np.float32] | None = None
    state: NDArray[np.float32] | None = None


Event = Gradient | Upsert | Delete | Op
_Rows = TypeVar("_Rows", Gradient, Upsert, Op)


def write_event(event: Event, *, as_dtype: str = "F32", more: Mapping[str, str] = _NOTHING) -> bytes:
    """Return the frame of `event`; gradients are rounded to `as_dtype` (F32, F16 or BF16).

    `more` is metadata that says nothing of the event itself, as `group` of a frame to be signed.
    """
    metadata = _metadata(event) | dict(more)
    tensors: dict[str, Array | Bfloat16] = {}
    match event:
        case Gradient(ids=ids, grads=grads):
            tensors = {"ids": ids, "grads": _rounded(grads, as_dtype)}
            if event.read_pos is not None:
                metadata["read_pos"] = str(event.read_pos)
            if event.lr is not None:
                metadata["lr"] = struct.pack(">f", event.lr).hex()
        case Upsert(ids=ids, rows=rows, state=state):
            tensors = {"ids": ids, "rows": rows}
            if state is not None:
                tensors["state"] = state
        case Delete(ids=ids):
            tensors = {"ids": ids}
        case Op(kind=kind, body=body):
            metadata |= {"op": str(event.origin.seq), "body": orjson.dumps(body).decode()}
            if kind == RESTORE_ROWS and event.rows is not None and event.state is not None:
                tensors = {"ids": event.ids, "rows": event.rows, "state": event.state}
    return encode(metadata, tensors)


def read_event(data: bytes, *, limit: int) -> Event:
    """Return the event in a frame. Raises FrameError; reasons as in `tensors.decode`, or
    `schema`, `unknown_type`, `undecodable`."""
    return event_of(decode(data, limit=limit))


def event_of(frame: Frame) -> Event:
    """Return the event a decoded frame stands for."""
    meta, tensors = frame.metadata, frame.tensors
    if meta.get("schema") != SCHEMA:
        raise FrameError(
            Reason.SCHEMA, f"schema version {meta.get('schema')!r}; this release reads {SCHEMA!r}"
        )
    kind, table, shard = _text(meta, "type"), _text(meta, "table"), natural(meta, "shard", 1 << 32)
    origin = _origin(meta)
    if kind == GRADIENT:
        ids, grads = _ids(tensors), _matrix(frame, "grads", GRADIENT_KINDS)
        read_pos = natural(meta, "read_pos") if "read_pos" in meta else None
        return _same_rows(Gradient(table, shard, origin, ids, grads, read_pos, _lr(meta)), grads)
    if kind == UPSERT:
        rows, state = _matrix(frame, "rows"), _matrix(frame, "state") if "state" in tensors else None
        return _same_rows(Upsert(table, shard, origin, _ids(tensors), rows, state), rows, state)
    if kind == DELETE:
        return Delete(table, shard, origin, _ids(tensors))
    if kind not in OPS:
        raise FrameError(Reason.UNKNOWN_TYPE, f"frame type {kind!r}")
    return _op(kind, table, shard, origin, frame)


def _op(kind: str, table: str, shard: int, origin: Origin, frame: Frame) -> Op:
    meta, tensors = frame.metadata, frame.tensors
    if natural(meta, "op") != origin.seq:
        raise FrameError(Reason.UNDECODABLE, f"op {meta['op']} does not match seq {origin.seq}")
    try:
        body = orjson.loads(_text(meta, "body"))
        orjson.dumps(body)  # refuses what nests too deep to be written to Redis or to updates
    except (orjson.JSONDecodeError, orjson.JSONEncodeError) as error:
        raise FrameError(Reason.UNDECODABLE, f"body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise FrameError(Reason.UNDECODABLE, "body is not a JSON object")
    if kind != RESTORE_ROWS:
        return Op(kind, table, shard, origin, body)
    rows, state = _matrix(frame, "rows"), _matrix(frame, "state")
    return _same_rows(Op(kind, table, shard, origin, body, _ids(tensors), rows, state), rows, state)


def _metadata(event: Event) -> dict[str, str]:
    kind = event.kind if isinstance(event, Op) else type(event).__name__.lower()
    origin = event.origin
    return {
        "type": kind,
        "table": event.table,
        "schema": SCHEMA,
        "shard": str(event.shard),
        "producer": origin.producer.hex(),
        "producer_epoch": str(origin.epoch),
        "seq": str(origin.seq),
    }


def _rounded(grads: NDArray[np.float32], as_dtype: str) -> Array | Bfloat16:
    if as_dtype == "BF16":
        return Bfloat16.of(grads)
    if as_dtype == "F16":
        return grads.astype(np.float16)
    if as_dtype != "F32":
        raise InputError(f"gradient dtype {as_dtype!r}: one of {', '.join(GRADIENT_KINDS)}")
    return grads


def _same_rows(event: _Rows, *tensors: Array | None) -> _Rows:
    for tensor in tensors:
        if tensor is not None and len(tensor) != len(event.ids):
            raise FrameError(Reason.UNDECODABLE, f"{len(event.ids)} ids but {len(tensor)} rows")
    return event


def _text(meta: Mapping[str, str], name: str) -> str:
    value = meta.get(name)
    if not value:
        raise FrameError(Reason.UNDECODABLE, f"metadata lacks {name!r}")
    return value


def natural(meta: Mapping[str, str], name: str, below: int = MAX_SEQ + 1) -> int:
    """Return a whole number in a frame's metadata. Raises FrameError `undecodable`."""
    text = _text(meta, name)
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) < below):
        raise FrameError(
            Reason.UNDECODABLE, f"metadata {name!r} is {text!r}, not a whole number below {below}"
        )
    return int(text)


def _origin(meta: Mapping[str, str]) -> Origin:
    text = _text(meta, "producer")
    try:
        producer = bytes.fromhex(text) if len(text) == 32 else b""
    except ValueError:
        producer = b""
    if len(producer) != 16:
        raise FrameError(Reason.UNDECODABLE, f"producer {text!r} is not 32 hex digits")
    return Origin(producer, natural(meta, "producer_epoch", MAX_EPOCH + 1), natural(meta, "seq"))


def _lr(meta: Mapping[str, str]) -> np.float32 | None:
    text = meta.get("lr")
    if text is None:
        return None
    try:
        # fromhex alone would let spaces pass
        (value,) = struct.unpack(">f", bytes.fromhex(text) if len(text) == 8 else b"")
    except (ValueError, struct.error):
        raise FrameError(Reason.UNDECODABLE, f"lr {text!r} is not 8 hex digits") from None
    if not 0 <= value < float("inf"):
        raise FrameError(Reason.UNDECODABLE, f"lr {value} is not a finite number of at least 0")
    return np.float32(value)


def _ids(tensors: Mapping[str, Array]) -> NDArray[np.uint64]:
    ids = tensors.get("ids")
    if ids is None or ids.dtype != np.uint64 or ids.ndim != 1:
        raise FrameError(Reason.UNDECODABLE, "tensor 'ids' must be U64 of one dimension")
    return ids


def _matrix(frame: Frame, name: str, kinds: tuple[str, ...] = ("F32",)) -> NDArray[np.float32]:
    matrix = frame.tensors.get(name)
    if matrix is None or matrix.ndim != 2 or frame.kinds[name] not in kinds:
        raise FrameError(Reason.UNDECODABLE, f"tensor {name!r} must be a matrix of {' or '.join(kinds)}")
    return matrix.astype(np.float32, copy=False)
