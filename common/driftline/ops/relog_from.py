"""Puts a shard that its log does not continue back to a version: rows, states, ordinals, LSNs, position.

Invariants: rows and position change in one transaction, and only while the shard is as it was when
the start was chosen, so an owner that came meanwhile is never overwritten. Where records are lost,
the same transaction notes what the updates must be told before anything else: whoever follows them
drops the states that are not the shard's past any more. A restore among what is lost never takes
effect afterwards, for it would take away what the log still holds.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import orjson

from driftline import topics
from driftline.errors import FrameError, PositionError, StateError, StoreUnavailableError
from driftline.frames.events import RESTORE, Op, read_event
from driftline.frames.headers import Keyring
from driftline.log import Log
from driftline.ops.continuation import examine
from driftline.ops.evidence import candidate_of, evidence_of
from driftline.ops.relog import MAX_GENERATION, OWNER
from driftline.ops.requests import read_op
from driftline.ops.starting import Start, start_from
from driftline.rows import resp
from driftline.rows.connection import Connect, Connection
from driftline.rows.fields import pairs
from driftline.rows.layout import RowLayout, ShardKeys
from driftline.rows.resp import Bytes
from driftline.rows.source import VersionPlace
from driftline.rows.staging import BESIDE, RELOGGED, VERSION, Copy, check_fits, write_copy
from driftline.shard.cache import RowBlock
from driftline.shard.position import Position
from driftline.shard.screen import MAX_FRAME

_WAIT = 10.0
_MEMBERS = (b"p:", b"q:", b"r:")
_FIELDS_AT_ONCE = 100_000  # names and values of one HSET


@dataclass(frozen=True, slots=True)
class VersionShard:
    """One shard of a version: what is written."""

    version: str
    position: Position  # the whole of it
    rows: int
    ordinals: int
    dim: int
    state_size: int
    blocks: Callable[[], AsyncIterator[RowBlock]]


@dataclass(frozen=True, slots=True)
class Planned:
    """What putting one shard back would do."""

    shard: int
    fields: dict[bytes, bytes]  # of `w`, as they were found
    start: Start
    op: int
    epoch: int  # behind the restores that are lost


async def plan_shard(
    connection: Connection, log: Log, keyring: Keyring, group: str, table: str, shard: int, part: VersionShard
) -> Planned | None:
    """Return where `part` would begin, None where the log continues what is stored. Changes nothing.

    Raises PositionError when generations are used up or the position is damaged.
    """
    keys, name = ShardKeys.of(table, shard), f"shard {table}:{shard}"
    fields = await _read(connection, keys)
    position = Position.from_fields(fields) if fields else Position()
    found = await examine(log, table, shard, position)
    if fields and found.continuation.fits:
        return None
    evidence = await evidence_of(log, table, shard, position, found)
    candidate = await candidate_of(log, table, shard, VersionPlace(part.version, part.position))
    start = start_from(evidence, candidate)
    if start.generation > MAX_GENERATION:
        raise PositionError(f"{name}: generation {MAX_GENERATION} is the last one")
    op, epoch = part.position.op, part.position.epoch
    if start.lost is not None:
        op, epoch = await _op_and_epoch(log, keyring, group, table, shard, part.position, start.next)
    return Planned(shard, fields, start, op, epoch)


async def put_back(
    connect: Connect, table: str, planned: Planned, part: VersionShard, wrote: Callable[[int], None]
) -> None:
    """Write the copy beside what is there, and swap it in.

    Raises StateError, with nothing changed, when the shard is not as it was when it was planned.
    """
    keys, layout = ShardKeys.of(table, planned.shard), RowLayout.of(part.position.table_spec())
    check_fits(part.version, table, layout, part.dim, part.state_size)
    copy = Copy.of(keys, b"%d.%b" % (part.position.op, OWNER))
    rows = await write_copy(connect, copy, layout, part.blocks(), wrote)
    if rows != part.rows:
        raise StateError(f"version {part.version} gave {rows} of {part.rows} rows of {table}:{planned.shard}")
    connection = await connect()
    try:
        await _swap(connection, keys, planned, part, copy, layout)
    finally:
        await connection.close()


async def _swap(
    connection: Connection,
    keys: ShardKeys,
    planned: Planned,
    part: VersionShard,
    copy: Copy,
    layout: RowLayout,
) -> None:
    name = keys.position.decode()
    states = part.rows if layout.separate_state else 0
    look = [
        resp.command(b"WATCH", keys.position, copy.values, copy.state),
        *(resp.command(b"HLEN", key) for key in (copy.values, copy.state)),
        resp.command(b"HGETALL", keys.position),
    ]
    _, values, separate, flat = await connection.exchange(look, 4)
    if not isinstance(flat, list) or pairs(flat) != planned.fields:
        raise StateError(f"{name} has changed meanwhile: stop the aggregators, and begin again")
    if (values, separate) != (part.rows, states):
        raise StateError(
            f"{name}: the copy of {part.version} has {values!r} of {part.rows} rows; begin again"
        )
    body: list[Bytes] = [resp.command(b"UNLINK", keys.values, keys.state)]
    for count, source, key in ((part.rows, copy.values, keys.values), (states, copy.state, keys.state)):
        if count:
            body += [resp.command(b"PERSIST", source), resp.command(b"RENAME", source, key)]
    gone = [field for field in planned.fields if field[:2] in _MEMBERS]
    body += _in_parts(b"HDEL", keys, [*BESIDE, VERSION, RELOGGED, *gone])
    arguments = [each for item in _after(planned, part, keys).items() for each in item]
    body += _in_parts(b"HSET", keys, arguments)
    replies = await connection.exchange([resp.command(b"MULTI"), *body, resp.command(b"EXEC")], len(body) + 2)
    done = replies[-1]
    if not isinstance(done, list):
        raise StateError(f"{name}: somebody wrote meanwhile: are the aggregators stopped? ({done!r})")
    for reply in done:
        if isinstance(reply, Exception):
            raise PositionError(f"{name}: a transaction took effect in part: {reply}")


def _in_parts(command: bytes, keys: ShardKeys, arguments: list[bytes]) -> list[Bytes]:
    return [
        resp.command(command, keys.position, *arguments[at : at + _FIELDS_AT_ONCE])
        for at in range(0, len(arguments), _FIELDS_AT_ONCE)
    ]


def _after(planned: Planned, part: VersionShard, keys: ShardKeys) -> dict[bytes, bytes]:
    """Return the fields of `w` behind it."""
    start = planned.start
    position = replace(
        part.position,
        gen=start.generation,
        next=start.next,
        fp=start.fp,
        op=planned.op,
        epoch=planned.epoch,
        rows=part.rows,
        ord=max(part.position.ord, part.ordinals),
    )
    fields = position.fields() | {b"published": b"%d" % start.next, b"owner": OWNER}
    if start.lost is not None:
        table, _, shard = keys.position.decode().partition("{")[2].partition("}")[0].rpartition(":")
        told = {
            "table": table,
            "shard": int(shard),
            "version": part.version,
            "generation": start.generation,
            "next": start.next,
        }
        fields[RELOGGED] = orjson.dumps(told)
    return fields


async def _read(connection: Connection, keys: ShardKeys) -> dict[bytes, bytes]:
    (flat,) = await connection.exchange([resp.command(b"HGETALL", keys.position)], 1)
    if not isinstance(flat, list):
        raise StoreUnavailableError(f"{keys.position.decode()}: Redis refused a read: {flat!r}")
    return pairs(flat)


async def _op_and_epoch(
    log: Log, keyring: Keyring, group: str, table: str, shard: int, position: Position, begin: int
) -> tuple[int, int]:
    """Return op and epoch of a shard that goes on from `position` without the records before `begin`.

    The router sends the operations again that were lost; restores among them find a later epoch.
    """
    end = (await log.bounds(topics.ops(group), 0)).end
    if end < position.op:  # the ops topic was made anew too: its numbers start over
        return 0, position.epoch
    first = await _first_op(log, table, shard, begin, behind=position.op)
    last = end if first is None else min(first - 1, end)
    epoch = position.epoch
    reader = log.reader(
        topics.ops(group), 0, max(position.op, (await log.bounds(topics.ops(group), 0)).begin)
    )
    try:
        while reader.position < last:
            for record in await reader.read(wait=_WAIT):
                with contextlib.suppress(FrameError):  # refused by the shards too
                    op = read_op(record, keyring, group).op
                    epochs = op.body.get("from_epoch")
                    if record.offset < last and op.kind == RESTORE and isinstance(epochs, dict):
                        epoch += epochs.get(table) == epoch
    finally:
        await reader.close()
    return position.op, epoch


async def _first_op(log: Log, table: str, shard: int, begin: int, *, behind: int) -> int | None:
    """Return the number of the first operation behind `behind` that the log holds from `begin` on."""
    topic = topics.gradients(table)
    end = (await log.bounds(topic, shard)).end
    reader = log.reader(topic, shard, begin)
    try:
        while reader.position < end:
            for record in await reader.read(wait=_WAIT):
                with contextlib.suppress(FrameError):  # a dead letter
                    event = read_event(record.value, limit=MAX_FRAME)
                    if isinstance(event, Op) and event.origin.seq > behind:
                        return event.origin.seq
    finally:
        await reader.close()
    return None
