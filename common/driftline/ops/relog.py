"""Starts a new log generation: the store's rows go on, over a log that begins anew.

Invariant: the fence of every shard is broken in the same transaction that moves it
to the new log, so no owner of the old one commits afterwards; LSNs go on rising,
because the generation is their upper part.
"""

from __future__ import annotations

from dataclasses import dataclass

from driftline import topics
from driftline.errors import PositionError, StateError, StoreUnavailableError
from driftline.log import Log
from driftline.ops.continuation import examine
from driftline.ops.starting import holds_something
from driftline.rows import resp
from driftline.rows.connection import Connection
from driftline.rows.fields import pairs
from driftline.rows.layout import ShardKeys
from driftline.shard.position import Position

MAX_GENERATION = (1 << 16) - 1
OWNER = b"relog"


@dataclass(frozen=True, slots=True)
class Relogged:
    """A shard that was moved to a new log."""

    shard: int
    generation: int  # the new one
    was_at: int  # its offset in the old log


async def relog_shard(
    connection: Connection, log: Log, group: str, table: str, shard: int
) -> Relogged | None:
    """Move one shard to the log that its gradients topic holds now, from its first offset on.

    None, and nothing done, when that log continues the shard. Raises PositionError when
    nothing is stored or generations are used up, StateError when an owner commits meanwhile.
    """
    keys, name = ShardKeys.of(table, shard), f"shard {table}:{shard}"
    _, flat = await connection.exchange(
        [resp.command(b"WATCH", keys.position), resp.command(b"HGETALL", keys.position)], 2
    )
    if not isinstance(flat, list):
        raise StoreUnavailableError(f"{name}: Redis refused a read: {flat!r}")
    fields = pairs(flat)
    position = Position.from_fields(fields) if fields else Position()
    if not holds_something(position):
        raise PositionError(f"{name}: nothing is stored to go on from: name a version with --from")
    found = await examine(log, table, shard, position)
    if found.continuation.fits:
        return None
    if position.gen >= MAX_GENERATION:
        raise PositionError(f"{name}: generation {position.gen} is the last one")
    begin = found.bounds.begin
    changed = {
        b"gen": b"%d" % (position.gen + 1),
        b"next": b"%d" % begin,
        b"published": b"%d" % begin,
        b"fp": b"",
        b"owner": OWNER,
    }
    if (await log.bounds(topics.ops(group), 0)).end < position.op:
        changed[b"op"] = b"0"  # the ops topic was made anew too: its numbers start over
    arguments = [part for item in changed.items() for part in item]
    replies = await connection.exchange(
        [resp.command(b"MULTI"), resp.command(b"HSET", keys.position, *arguments), resp.command(b"EXEC")], 3
    )
    if not isinstance(replies[2], list):
        raise StateError(f"{name}: its owner committed meanwhile: is it stopped? ({replies[2]!r})")
    return Relogged(shard, position.gen + 1, position.next)
