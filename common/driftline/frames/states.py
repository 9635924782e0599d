"""What travels on the updates topic: row states, and markers for ops that passed.

Invariant: (id, lsn) fixes every bit of a row's state, so a reader that keeps
the newest LSN per id ends with the right rows whatever was sent twice, late or
out of order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from driftline.errors import FrameError
from driftline.frames.events import OPS, SCHEMA, natural
from driftline.frames.reasons import Reason
from driftline.frames.tensors import Array, Frame, decode, encode

STATE = "state"
RELOG = "relog"
"""Kind of the marker that says: the shard was put back to version `version`, and what it published
below LSN (`generation`, `next`) is not its past any more. No op: its number is the position's."""

TOMBSTONE = np.uint8(1)  # the row was deleted at `lsn`; rows and state carry nothing
GRADIENT_CAUSE = np.uint8(2)  # which kind of event changed the row at `lsn`
UPSERT_CAUSE = np.uint8(4)
RESTORE_CAUSE = np.uint8(8)

_COLUMNS = {  # of a states frame: dtype, dimensions
    "ids": ("U64", 1),
    "ordinals": ("U32", 1),
    "lsn": ("U64", 1),
    "rows": ("F32", 2),
    "state": ("F32", 2),
    "flags": ("U8", 1),
}


@dataclass(frozen=True, slots=True)
class States:
    """Row states of one shard after a commit, in no particular order of ids."""

    table: str
    shard: int
    ids: NDArray[np.uint64]  # (n,)
    ordinals: NDArray[np.uint32]  # (n,)
    lsn: NDArray[np.uint64]  # (n,)
    rows: NDArray[np.float32]  # (n, d)
    state: NDArray[np.float32]  # (n, s)
    flags: NDArray[np.uint8]  # (n,)

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, stop: int) -> States:
        """Return the states in [start, stop) as views."""
        cut = slice(start, stop)
        return States(
            self.table,
            self.shard,
            self.ids[cut],
            self.ordinals[cut],
            self.lsn[cut],
            self.rows[cut],
            self.state[cut],
            self.flags[cut],
        )


@dataclass(frozen=True, slots=True)
class Marker:
    """An op that the shard has passed: `kind` as on the gradients topic, or RELOG; the position behind it.

    Or part `part` of `parts` of it, see `markers`: with some of the members only.
    """

    kind: str
    table: str
    shard: int
    op: int
    body: Mapping[str, object]
    position: Mapping[str, object]  # the fixed fields of `w` at the op's offset + 1
    tensors: Mapping[str, Array]  # producers, quarantined ones and restored ids of `w`
    part: int = 0
    parts: int = 1


def write_states(states: States) -> bytes:
    """Return the frame of `states`."""
    metadata = {"type": STATE, "table": states.table, "schema": SCHEMA, "shard": str(states.shard)}
    return encode(
        metadata,
        {
            "ids": states.ids,
            "ordinals": states.ordinals,
            "lsn": states.lsn,
            "rows": states.rows,
            "state": states.state,
            "flags": states.flags,
        },
    )


def write_marker(marker: Marker) -> bytes:
    """Return the frame of `marker`."""
    metadata = {
        "type": marker.kind,
        "table": marker.table,
        "schema": SCHEMA,
        "shard": str(marker.shard),
        "op": str(marker.op),
        "part": str(marker.part),
        "parts": str(marker.parts),
        "body": orjson.dumps(marker.body).decode(),
        "position": orjson.dumps(marker.position).decode(),
    }
    return encode(metadata, marker.tensors)


def read_update(data: bytes, *, limit: int) -> States | Marker:
    """Return what an updates frame says; the columns of states are of one length.

    Raises FrameError: reasons as in `tensors.decode`, or `schema`, `unknown_type`, `undecodable`.
    """
    frame = decode(data, limit=limit)
    meta, tensors = frame.metadata, frame.tensors
    if meta.get("schema") != SCHEMA:
        raise FrameError(
            Reason.SCHEMA, f"schema version {meta.get('schema')!r}; this release reads {SCHEMA!r}"
        )
    shard = natural(meta, "shard", 1 << 32)
    try:
        kind, table = meta["type"], meta["table"]
        if kind == STATE:
            return States(table, shard, *_columns(frame))
        body, position = orjson.loads(meta["body"]), orjson.loads(meta["position"])
    except (KeyError, orjson.JSONDecodeError) as error:
        raise FrameError(Reason.UNDECODABLE, f"updates frame: {error!r}") from None
    if kind not in OPS and kind != RELOG:
        raise FrameError(Reason.UNKNOWN_TYPE, f"frame type {kind!r}")
    if not isinstance(body, dict) or not isinstance(position, dict):
        raise FrameError(Reason.UNDECODABLE, "body and position must be JSON objects")
    cut = {"part": "0", "parts": "1", **meta}
    part, parts = natural(cut, "part", 1 << 32), natural(cut, "parts", 1 << 32)
    if part >= parts:
        raise FrameError(Reason.UNDECODABLE, f"marker: part {part} of {parts}")
    return Marker(kind, table, shard, natural(meta, "op"), body, position, tensors, part, parts)


def _columns(frame: Frame) -> Iterator[Array]:
    rows = frame.tensors["ids"].shape[:1]
    for name, (kind, dimensions) in _COLUMNS.items():
        column = frame.tensors[name]
        if frame.kinds[name] != kind or column.ndim != dimensions or column.shape[:1] != rows:
            raise FrameError(Reason.UNDECODABLE, f"states: {name} is {frame.kinds[name]}{list(column.shape)}")
        yield column
