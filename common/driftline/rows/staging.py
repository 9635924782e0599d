"""Copies of versions beside the live rows, written while the shard trains on.

    dl:{T:p}:v.next.<op>.<owner>   rows, in the layout of the live hash
    dl:{T:p}:s.next.<op>.<owner>   their state, where the layout has a hash of its own
    w: staged   the names "<op>.<owner>" of what was begun    w: ready   op of the complete copy
    w: failed   why there is none                             w: version the last one swapped in
    w: relogged a copy swapped in by a relog, of which the updates are still to be told

Invariants: a copy is of one op and one owner, so no two writers meet in it. It lapses by
itself an hour after its owner last renewed it; the next owner removes it at once, by its
name in `w`. What these fields say is no part of the position: they do not come from the log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

import numpy as np
import orjson
from redis.exceptions import OutOfMemoryError

from driftline.errors import FrameError, RetryError, StateError, StoreUnavailableError
from driftline.frames.reasons import Reason
from driftline.rows import resp
from driftline.rows.connection import Connect, Connection
from driftline.rows.layout import RowLayout, ShardKeys
from driftline.rows.resp import Bytes
from driftline.shard.cache import RowBlock

READY, STAGED, FAILED, VERSION = b"ready", b"staged", b"failed", b"version"
RELOGGED = b"relogged"
BESIDE = (READY, STAGED, FAILED)
"""Fields of `w` about a copy that this server holds: they do not move with the shard."""

LAPSE_SECONDS = b"3600"
RENEW_EVERY = 600.0
_PAGE_BYTES = 1 << 20  # sent to Redis at a time: some 3 ms of it, between the commits of training

Wrote = Callable[[int], None]
"""Called with the number of rows written so far."""


class StagedLostError(StateError):
    """The copy is not whole any more: it lapsed, or Redis lost it. It is to be made again."""

    code = "state.staged"


class NoRoomError(RetryError):
    """Redis has no memory for a second copy of the shard."""

    code = "store.room"


@dataclass(frozen=True, slots=True)
class Copy:
    """The keys of one copy."""

    name: bytes  # "<op>.<owner>"
    values: bytes
    state: bytes

    @classmethod
    def of(cls, keys: ShardKeys, name: bytes) -> Copy:
        """Return the copy of that name."""
        return cls(name, keys.values + b".next." + name, keys.state + b".next." + name)


@dataclass(frozen=True, slots=True)
class Staged:
    """A copy that is complete."""

    copy: Copy
    version: str
    rows: int
    states: int  # fields of the separate hash, 0 where there is none
    ordinals: int


@dataclass(frozen=True, slots=True)
class Swap:
    """What a restore puts in the place of all rows, and the field `version` of `w` behind it."""

    staged: Staged
    said: bytes


def version_text(op: int, body: Mapping[str, object]) -> bytes:
    """Return the field `version` of `w` behind a restore that took effect."""
    shown = {name: body.get(name) for name in ("version", "mode", "branch", "scenario")}
    return orjson.dumps({"op": op, **{name: value for name, value in shown.items() if value is not None}})


@dataclass(frozen=True, slots=True)
class SwappedIn:
    """The last restore of a shard that took effect."""

    op: int
    version: str
    mode: str

    @classmethod
    def of(cls, field: bytes) -> SwappedIn:
        """Read the field `version` of `w`."""
        body = orjson.loads(field)
        return cls(int(body["op"]), str(body["version"]), str(body.get("mode", "")))


async def write_copy(
    connect: Connect, copy: Copy, layout: RowLayout, blocks: AsyncIterator[RowBlock], wrote: Wrote
) -> int:
    """Write all rows of `blocks` into a fresh copy and return how many they were.

    Raises StoreUnavailableError, NoRoomError, and what reading the blocks raises; the copy is then
    of no use. Holds one block and one page of commands in memory.
    """
    connection = await connect()
    try:
        await run(connection, resp.command(b"UNLINK", copy.values, copy.state))
        at_once, done = max(1, _PAGE_BYTES // (layout.value_bytes + 4 * layout.state_size + 40)), 0
        async for block in blocks:
            for begin in range(0, len(block.ids), at_once):
                end = min(len(block.ids), begin + at_once)
                await _write_page(connection, copy, layout, block, slice(begin, end))
                done += end - begin
                wrote(done)
        return done
    finally:
        await connection.close()


async def _write_page(
    connection: Connection, copy: Copy, layout: RowLayout, block: RowBlock, at: slice
) -> None:
    ids, state = block.ids[at], block.state[at]
    values = layout.pack(block.rows[at], block.lsn[at], block.ordinals[at], state)
    packed = resp.hset(copy.values, ids, values)
    commands = 1
    if layout.separate_state:
        packed += resp.hset(copy.state, ids, np.ascontiguousarray(state).view(np.uint8))
        commands += 1
    await run(connection, *packed, *renewal(copy), replies=commands + 2)


def renewal(copy: Copy) -> list[bytes]:
    """Return the two commands that let a copy live for another hour."""
    return [resp.command(b"EXPIRE", key, LAPSE_SECONDS) for key in (copy.values, copy.state)]


async def remove(connect: Connect, *keys: bytes) -> None:
    """Unlink keys. Raises StoreUnavailableError."""
    connection = await connect()
    try:
        await run(connection, resp.command(b"UNLINK", *keys))
    finally:
        await connection.close()


async def run(connection: Connection, *packed: Bytes, replies: int = 1) -> None:
    """Send commands none of which may fail. Raises StoreUnavailableError, NoRoomError."""
    for answer in await connection.exchange(packed, replies):
        if not isinstance(answer, Exception):
            continue
        if isinstance(answer, OutOfMemoryError) or str(answer).startswith("OOM"):
            raise NoRoomError(f"Redis has no memory for a second copy of the shard: {answer}")
        raise StoreUnavailableError(f"Redis refused a step of staging: {answer}")


def check_fits(version: str, table: str, layout: RowLayout, dim: int, state_size: int) -> None:
    """Raise FrameError `wrong_dim` for a version whose rows are no rows of the live table."""
    if (dim, state_size) != (layout.dim, layout.state_size):
        raise FrameError(
            Reason.WRONG_DIM,
            f"version {version} has rows of {dim} and states of {state_size} numbers for table {table}, "
            f"which has {layout.dim} and {layout.state_size}: it belongs to another table of that name",
        )
