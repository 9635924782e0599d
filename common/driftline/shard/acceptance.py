"""Who may change what: the verdict on one event, from the position alone.

Invariant: a verdict depends on nothing but the log before the event, so a replay
accepts what was accepted. A well-formed frame uses up its producer's sequence
number whether it is applied, stale or rejected; a forged one uses up nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.errors import ConfigError, FrameError, StateError
from driftline.frames.events import (
    BARRIER,
    MOVE,
    PREPARE,
    QUARANTINE,
    RESTORE,
    RESTORE_ROWS,
    SPEC,
    Delete,
    Gradient,
    Op,
    Upsert,
)
from driftline.frames.reasons import Reason
from driftline.ids import INGEST_PRODUCERS, shard_of
from driftline.shard.position import Position
from driftline.shard.spec import DROP, MACHINE_VERSION, TableSpec


@dataclass(frozen=True, slots=True)
class Aged:
    """What the passing of log time has changed in a position."""

    forgotten: list[bytes]  # producers
    kept: list[bytes]  # producers that were as old, and count as heard of now
    rows: list[int]  # ids whose restore is forgotten


def advance_time(position: Position, timestamp: int, ttl: int) -> Aged:
    """Move log time on and forget who has been silent for longer than `ttl` milliseconds.

    Ingest partitions are never forgotten: their router starts from the begin of the topic when
    Redis has lost its position, however long ago that was forwarded. They are given the log time
    at hand instead, so that one costs a step per `ttl`, not one per record.
    """
    position.time = max(position.time, timestamp)
    oldest = position.time - ttl
    silent = position.producers.forget_silent(oldest)
    kept = [name for name in silent if name in INGEST_PRODUCERS]
    for name in kept:
        position.producers.set(name, silent[name].epoch, silent[name].seq, position.time)
    forgotten = [name for name in silent if name not in INGEST_PRODUCERS]
    return Aged(forgotten, kept, position.restored.end(oldest))


def take_seq(position: Position, event: Gradient | Upsert | Delete) -> bool:
    """Use up the event's sequence number; False if it, or a later one, was used before."""
    origin = event.origin
    seen = position.producers.get(origin.producer)
    fresh = seen is None or (origin.epoch, origin.seq) > (seen.epoch, seen.seq)
    last = origin if seen is None or fresh else seen
    # a re-send is a sign of life too
    position.producers.set(origin.producer, last.epoch, last.seq, position.time)
    return fresh


def check_addressed(event: Gradient | Upsert | Delete | Op, table: str, shard: int) -> None:
    """Raise FrameError `unknown_table` or `wrong_shard` for a frame meant for another log."""
    if event.table != table:
        raise FrameError(Reason.UNKNOWN_TABLE, f"frame for table {event.table!r} in the log of {table!r}")
    if event.shard != shard:
        raise FrameError(Reason.WRONG_SHARD, f"frame for shard {event.shard} in the log of shard {shard}")


def check_allowed(event: Gradient | Upsert | Delete, size: int, position: Position, spec: TableSpec) -> None:
    """Raise FrameError if the event's producer is shut out or the frame does not fit the table."""
    if size > spec.policy.max_frame:
        raise FrameError(Reason.OVERSIZED, f"{size} bytes, the table takes frames of {spec.policy.max_frame}")
    if isinstance(event, Delete) and size + 4 * spec.dim * len(event.ids) > spec.policy.max_frame:
        # it is applied whole, and each of its rows is fetched and published: it weighs as an upsert would
        raise FrameError(
            Reason.OVERSIZED,
            f"a delete of {len(event.ids)} rows of {4 * spec.dim} bytes, as many as the table's frames of "
            f"{spec.policy.max_frame} bytes cannot carry: delete fewer at once",
        )
    if event.origin.producer in position.quarantined:
        raise FrameError(Reason.QUARANTINED, f"producer {event.origin.producer.hex()} is shut out")
    if isinstance(event, Gradient):
        _check_width("grads", event.grads, spec.dim)
    elif isinstance(event, Upsert):
        check_values(event.ids, event.rows, event.state, event.shard, spec)
    else:
        check_ids(event.ids, event.shard, spec.shards)


def check_values(
    ids: NDArray[np.uint64],
    rows: NDArray[np.float32],
    state: NDArray[np.float32] | None,
    shard: int,
    spec: TableSpec,
) -> None:
    """Raise FrameError unless explicit rows fit the table: width, finite, ids in order and at home."""
    _check_width("rows", rows, spec.dim)
    if state is not None:
        _check_width("state", state, spec.state_size)
    if not np.isfinite(rows).all() or (state is not None and not np.isfinite(state).all()):
        raise FrameError(Reason.NON_FINITE, "explicit rows must be finite")
    check_ids(ids, shard, spec.shards)


def check_ids(ids: NDArray[np.uint64], shard: int, shards: int) -> None:
    """Raise FrameError unless ids are strictly increasing and belong to `shard`."""
    if not (ids[1:] > ids[:-1]).all():
        if len(np.unique(ids)) < len(ids):
            raise FrameError(
                Reason.DUPLICATE_IDS, "an id occurs twice; the sender sums what it has for an id"
            )
        raise FrameError(Reason.UNSORTED_IDS, "ids must be strictly increasing")
    foreign = shard_of(ids, shards) != shard
    if foreign.any():
        raise FrameError(
            Reason.FOREIGN_IDS, f"id {ids[foreign][0]} does not belong to shard {shard} of {shards}"
        )


def _check_width(name: str, matrix: NDArray[np.float32], width: int) -> None:
    if matrix.shape[1] != width:
        raise FrameError(Reason.WRONG_DIM, f"{name} have {matrix.shape[1]} columns, the table has {width}")


def effective_read_pos(event: Gradient, spec: TableSpec) -> int | None:
    """Return the position the gradient is judged by; None: it is never stale."""
    if event.read_pos is None and spec.policy.without_read_pos == DROP:
        return 0
    return event.read_pos


def is_stale(read_pos: int | None, position: Position) -> bool:
    """Tell whether rows read at `read_pos` were read before the last restore."""
    return read_pos is not None and position.floor > 0 and read_pos <= position.floor


def superseded(ids: NDArray[np.uint64], read_pos: int, position: Position) -> NDArray[np.bool_]:
    """Return a mask of ids whose rows were put back by a restore-rows after they were read."""
    return position.restored.superseded(ids, read_pos)


def check_op(op: Op, position: Position) -> None:
    """Raise FrameError if an op's body makes no sense here; StateError if this release is too old for it."""
    if op.kind == SPEC:
        _check_spec(op, position)
        return
    spec = position.table_spec()
    if spec is None:
        raise FrameError(Reason.NO_SPEC, f"{op.kind} before the table's spec")
    if op.kind == QUARANTINE:
        _producer(op)
    elif op.kind == PREPARE:
        check_prepare(op)
    elif op.kind == RESTORE:
        _check_restore(op)
    elif op.kind == RESTORE_ROWS:
        if op.rows is None or op.state is None:
            raise FrameError(Reason.BAD_OP, "restore-rows needs rows and state")
        check_values(op.ids, op.rows, op.state, op.shard, spec)
    elif op.kind == MOVE:
        check_move(op, spec.shards)
    elif op.kind != BARRIER:
        raise FrameError(Reason.BAD_OP, f"op {op.kind!r}")


def takes_effect(op: Op, position: Position) -> bool:
    """Tell whether a `restore` replaces the rows here; otherwise it is passed over, and counted.

    It does not when another restore came first, or when its version lacks the table.
    """
    return not op.body.get("absent") and op.body.get("from_epoch") == position.epoch


def check_prepare(op: Op) -> None:
    """Raise FrameError unless the op names a version; the empty name gives a preparation up."""
    if not isinstance(op.body.get("version"), str):
        raise FrameError(Reason.BAD_OP, f"prepare of version {op.body.get('version')!r}")


def _check_restore(op: Op) -> None:
    if not op.body.get("version") or not isinstance(op.body["version"], str):
        raise FrameError(Reason.BAD_OP, f"restore of version {op.body.get('version')!r}")
    epoch = op.body.get("from_epoch")
    if not op.body.get("absent") and (isinstance(epoch, bool) or not isinstance(epoch, int)):
        raise FrameError(Reason.BAD_OP, f"restore needs from_epoch, not {epoch!r}")


def check_move(op: Op, shards: int) -> None:
    """Raise FrameError unless the op names one of `shards` shards and a server. Rows do not change by it."""
    shard, server = op.body.get("shard"), op.body.get("server")
    if isinstance(shard, bool) or not isinstance(shard, int) or not 0 <= shard < shards:
        raise FrameError(Reason.BAD_OP, f"move of shard {shard!r}, the table has {shards}")
    if not isinstance(server, str) or not server:
        raise FrameError(Reason.BAD_OP, f"move to server {server!r}")


def spec_body(op: Op) -> dict[str, object]:
    """Return the table spec in a spec op, without the server that its router chose for the shard."""
    return {name: value for name, value in op.body.items() if name != "server"}


def quarantined_producer(op: Op) -> bytes:
    """Return the producer that a quarantine op shuts out."""
    return _producer(op)


def _producer(op: Op) -> bytes:
    text = op.body.get("producer")
    try:
        producer = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        producer = b""
    if len(producer) != 16:
        raise FrameError(Reason.BAD_OP, f"quarantine names no producer: {text!r}")
    return producer


def _check_spec(op: Op, position: Position) -> None:
    version = op.body.get("machine_version")
    if isinstance(version, int) and version > MACHINE_VERSION:
        raise StateError(
            f"table {op.table} asks for machine version {version}; this release implements "
            f"{MACHINE_VERSION}: upgrade the aggregator"
        )
    try:
        spec = TableSpec.from_json(spec_body(op))
    except ConfigError as error:
        raise FrameError(Reason.BAD_SPEC, str(error)) from None
    if spec.name != op.table or op.shard >= spec.shards:
        raise FrameError(
            Reason.BAD_SPEC, f"spec of {spec.name!r} with {spec.shards} shards, read by shard {op.shard}"
        )
    current = position.table_spec()
    refused = current.change_refused(spec) if current else None
    if refused:
        raise FrameError(Reason.BAD_SPEC, refused)
