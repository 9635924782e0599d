"""Moves a shard from one server to another: copy, leave a signpost, come alive.

    copy       rows page by page into drafts on the target; the shard is still live on the source
    leave      one transaction on the source: `w` gets moved_to and an owner that nobody is
    activate   one transaction on the target: drafts renamed in, all of `w` with place + 1
    clear      rows on the source are unlinked, later; `w` stays as a signpost

Invariants: the shard stands still from the copy on (its owner is at an op), so a draft
that is complete is exact. At most one `w` comes alive per place: the activation is
WATCHed and refused once the target has been as far. Every crash leaves the source live
(the copy starts over), or a signpost with all rows behind it (`activate` again, by
whoever takes over), or the target live.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import cast

import orjson

from driftline.errors import FenceLostError, PositionError, StoreUnavailableError
from driftline.rows import resp
from driftline.rows.connection import Connect, Connection, Reply
from driftline.rows.fields import delays, pairs
from driftline.rows.layout import RowLayout, ShardKeys
from driftline.rows.shard_store import MOVED
from driftline.rows.staging import BESIDE
from driftline.shard.spec import TableSpec

PAGE = b"2000"
DRAFT_SECONDS = b"3600"
"""A draft whose writer died goes away by itself; renewed with each page, and never on a live key."""


@dataclass(frozen=True, slots=True)
class Drafts:
    """The keys that a copy is written to: of one op and one writer, so that no two writers meet."""

    values: bytes
    state: bytes

    @classmethod
    def of(cls, keys: ShardKeys, owner: bytes) -> Drafts:
        """Return the drafts of writer `owner`."""
        return cls(keys.values + b".move." + owner, keys.state + b".move." + owner)


@dataclass(frozen=True, slots=True)
class Switch:
    """One shard's way from `source` to `target`, in the hands of `owner`."""

    keys: ShardKeys
    source: Connect
    target: Connect
    owner: bytes

    @property
    def drafts(self) -> Drafts:
        """Where the copy is written."""
        return Drafts.of(self.keys, self.owner)

    async def copy(self) -> None:
        """Write the whole shard into fresh drafts on the target. Raises StoreUnavailableError."""
        source = await self.source()
        try:
            target = await self.target()
            try:
                drafts = self.drafts
                await _run(target, resp.command(b"DEL", drafts.values, drafts.state))
                await _copy_hash(source, self.keys.values, target, drafts.values)
                await _copy_hash(source, self.keys.state, target, drafts.state)
            finally:
                await target.close()
        finally:
            await source.close()

    async def place_on_target(self) -> int:
        """Return how often the shard had moved when the target last held it, -1 if it never did."""
        connection = await self.target()
        try:
            (found,) = await _run(connection, resp.command(b"HMGET", self.keys.position, b"next", b"place"))
        finally:
            await connection.close()
        following, place = cast("list[bytes | None]", found)
        return -1 if following is None else int(place or b"0")

    async def discard(self) -> None:
        """Remove the drafts. Raises StoreUnavailableError."""
        connection = await self.target()
        try:
            await _run(connection, resp.command(b"UNLINK", self.drafts.values, self.drafts.state))
        finally:
            await connection.close()

    async def activate(self, left: dict[bytes, bytes]) -> None:
        """Make the shard live on the target as `left` says, however long it takes.

        The drafts are checked, and copied again when they are not whole. Raises FenceLostError
        when somebody else has moved the shard on, PositionError when there is nothing whole to copy.
        """
        for delay in delays():
            try:
                if await self._activate(left):
                    return
                await self._check_source(left)
                await self.copy()
            except StoreUnavailableError:
                await asyncio.sleep(delay)

    async def _check_source(self, left: dict[bytes, bytes]) -> None:
        """Raise PositionError when rows are there without their separate state: no copy is ever whole.

        A source that somebody else has cleared has neither.
        """
        keys = self.keys
        connection = await self.source()
        try:
            *_, counted = await _run(
                connection,
                resp.command(b"MULTI"),
                resp.command(b"HLEN", keys.values),
                resp.command(b"HLEN", keys.state),
                resp.command(b"EXEC"),
            )
        finally:
            await connection.close()
        values, state = cast("list[int]", counted)
        rows, separate = _rows_of(left)
        if values == rows and state != separate:
            raise PositionError(
                f"{keys.state.decode()} holds {state} rows, the position says {separate}: Redis lost keys "
                f"while the shard was between two servers. Delete {keys.position.decode()}, "
                f"{keys.values.decode()} and {keys.state.decode()} on all servers to rebuild it from the log"
            )

    async def _activate(self, left: dict[bytes, bytes]) -> bool:
        keys, drafts = self.keys, self.drafts
        place = int(left.get(b"place", b"0")) + 1
        connection = await self.target()
        try:
            _, flat, values, state = await _run(
                connection,
                resp.command(b"WATCH", keys.position, drafts.values, drafts.state),
                resp.command(b"HMGET", keys.position, b"next", b"place", b"owner"),
                resp.command(b"HLEN", drafts.values),
                resp.command(b"HLEN", drafts.state),
            )
            following, at, owner = cast("list[bytes | None]", flat)
            if following is not None and int(at or b"0") >= place:
                if int(at or b"0") == place and owner == self.owner:
                    return True  # an earlier attempt, whose reply was lost
                raise FenceLostError(f"{keys.position.decode()}: moved on by {(owner or b'').decode()!r}")
            if (values, state) != _rows_of(left):
                return False
            fields = {name: value for name, value in left.items() if name not in (b"moved_to", *BESIDE)}
            fields |= {b"owner": self.owner, b"place": b"%d" % place}
            commands = [resp.command(b"DEL", keys.position, keys.values, keys.state)]
            for count, draft, key in (
                (values, drafts.values, keys.values),
                (state, drafts.state, keys.state),
            ):
                if count:
                    commands += [resp.command(b"PERSIST", draft), resp.command(b"RENAME", draft, key)]
            flat_fields = [part for item in fields.items() for part in item]
            commands.append(resp.command(b"HSET", keys.position, *flat_fields))
            *_, done = await _run(connection, resp.command(b"MULTI"), *commands, resp.command(b"EXEC"))
            if done is None:
                raise StoreUnavailableError(f"{keys.position.decode()}: changed meanwhile, looking again")
            return True
        finally:
            await connection.close()


async def left_position(source: Connect, keys: ShardKeys) -> dict[bytes, bytes]:
    """Return `w` as the shard left it. Raises StoreUnavailableError."""
    connection = await source()
    try:
        (flat,) = await _run(connection, resp.command(b"HGETALL", keys.position))
    finally:
        await connection.close()
    return pairs(flat)


async def clear(source: Connect, keys: ShardKeys, place: int, live_on: str) -> bool:
    """Take one step to a signpost without rows on a server; True once nothing is left to do.

    `place` is what was seen there: if it has changed, nothing is touched. A life that was
    left behind (the server came back from an older file) only becomes a signpost: its rows
    stay for readers who saw it alive, until the next call. Raises StoreUnavailableError.
    """
    connection = await source()
    try:
        _, flat = await _run(
            connection,
            resp.command(b"WATCH", keys.position),
            resp.command(b"HMGET", keys.position, b"next", b"place", b"moved_to"),
        )
        following, at, moved_to = cast("list[bytes | None]", flat)
        if following is None or int(at or b"0") != place:
            return True
        if moved_to is None:
            token = MOVED + live_on.encode()
            step = resp.command(b"HSET", keys.position, b"moved_to", live_on.encode(), b"owner", token)
        else:
            step = resp.command(b"UNLINK", keys.values, keys.state)
        *_, done = await _run(connection, resp.command(b"MULTI"), step, resp.command(b"EXEC"))
        return done is not None and moved_to is not None
    finally:
        await connection.close()


def _rows_of(left: dict[bytes, bytes]) -> tuple[int, int]:
    """Return how many values and how many separate states a position speaks of."""
    rows, text = int(left[b"rows"]), left[b"spec"]
    if not text:
        return rows, 0
    spec = TableSpec.from_json(orjson.loads(text))
    return rows, rows if RowLayout.of(spec).separate_state else 0


async def _copy_hash(source: Connection, key: bytes, target: Connection, draft: bytes) -> None:
    cursor = b"0"
    while True:
        (page,) = await _run(source, resp.command(b"HSCAN", key, cursor, b"COUNT", PAGE))
        cursor, flat = cast("tuple[bytes, list[bytes]]", tuple(cast("list[object]", page)))
        if flat:
            await _run(
                target,
                resp.command(b"HSET", draft, *flat),
                resp.command(b"EXPIRE", draft, DRAFT_SECONDS),
            )
        if cursor == b"0":
            return


async def _run(connection: Connection, *commands: bytes) -> list[Reply]:
    """Return the replies, of which none is an error, nor one within a transaction."""
    replies = await connection.exchange(list(commands), len(commands))
    inside = replies[-1] if isinstance(replies[-1], list) else []
    for reply in (*replies, *inside):
        if isinstance(reply, Exception):
            raise StoreUnavailableError(f"Redis refused a step of a move: {reply}")
    return replies
