"""Versions that can be read beside the live rows.

    dl:{T:p}:d       hash  version -> "rows,token" of each copy that is complete
    dl:{T:p}:v@V     hash  id -> row, as in the live hash; never changed

Invariant: a version's rows never change, so whoever writes a copy writes the same bits, and
no fence is needed. A reader sees the entry before and after the rows, and their number with
them: what it took for absent was absent in a whole copy.
"""

from __future__ import annotations

from typing import cast

from driftline.errors import StoreUnavailableError
from driftline.rows import resp
from driftline.rows.connection import Connect, Reply
from driftline.rows.fields import pairs
from driftline.rows.layout import RowLayout, ShardKeys
from driftline.rows.source import VersionPart
from driftline.rows.staging import Copy, check_fits, remove, write_copy


def register_key(keys: ShardKeys) -> bytes:
    """Return the key of the hash that says which versions a shard has copies of."""
    return keys.position.removesuffix(b"w") + b"d"


def values_key(keys: ShardKeys, version: str) -> bytes:
    """Return the key of a deployed version's rows."""
    return keys.values + b"@" + version.encode()


async def deployed(connect: Connect, keys: ShardKeys) -> dict[str, bool]:
    """Return the versions that a shard has copies of, and whether each is whole."""
    connection = await connect()
    try:
        (flat,) = _checked(await connection.exchange([resp.command(b"HGETALL", register_key(keys))], 1))
        entries = {version.decode(): entry for version, entry in pairs(flat).items()}
        asked = [resp.command(b"HLEN", values_key(keys, version)) for version in entries]
        counts = _checked(await connection.exchange(asked, len(asked))) if asked else []
        return {
            version: count == rows_of(entry)
            for (version, entry), count in zip(entries.items(), counts, strict=True)
        }
    finally:
        await connection.close()


async def add(
    connect: Connect,
    keys: ShardKeys,
    version: str,
    table: str,
    layout: RowLayout,
    token: str,
    part: VersionPart,
) -> int:
    """Make a shard's copy of a version and return its rows. Raises what reading it raises."""
    check_fits(version, table, layout, part.dim, part.state_size)
    key = values_key(keys, version)
    copy = Copy.of(keys, f"{version}.{token}".encode())
    try:
        rows = await write_copy(connect, copy, layout, part.blocks(), lambda _: None)
    except BaseException:
        await remove(connect, copy.values, copy.state)
        raise
    commands = [resp.command(b"UNLINK", key, copy.state)]
    if rows:
        commands += [resp.command(b"PERSIST", copy.values), resp.command(b"RENAME", copy.values, key)]
    entry = b"%d,%b" % (rows, token.encode())
    commands.append(resp.command(b"HSET", register_key(keys), version.encode(), entry))
    await _together(connect, commands)
    return rows


async def drop(connect: Connect, keys: ShardKeys, version: str) -> None:
    """Remove a shard's copy of a version."""
    entry = resp.command(b"HDEL", register_key(keys), version.encode())
    await _together(connect, [entry, resp.command(b"UNLINK", values_key(keys, version))])


def rows_of(entry: bytes) -> int:
    """Return the number of rows that an entry speaks of."""
    return int(entry.partition(b",")[0])


async def _together(connect: Connect, commands: list[bytes]) -> None:
    connection = await connect()
    try:
        packed = [resp.command(b"MULTI"), *commands, resp.command(b"EXEC")]
        replies = _checked(await connection.exchange(packed, len(packed)))
        _checked(cast("list[Reply]", replies[-1] or []))
    finally:
        await connection.close()


def _checked(replies: list[Reply]) -> list[Reply]:
    for reply in replies:
        if isinstance(reply, Exception):
            raise StoreUnavailableError(f"Redis refused a step of a deployment: {reply}")
    return replies
