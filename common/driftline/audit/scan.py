"""Reads a whole shard from Redis while it may be changing.

Invariant: a row that exists, unchanged, from the first read of the position to
the second is among the rows; each row's state is of the same commit as its row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from driftline.errors import PositionError, StoreUnavailableError
from driftline.rows import resp
from driftline.rows.connection import Connection, Reply
from driftline.rows.layout import RowLayout, ShardKeys
from driftline.rows.staging import BESIDE, RELOGGED, VERSION
from driftline.shard.cache import RowBlock
from driftline.shard.position import Position

_PAGE = b"2000"
_NOT_FROM_LOG = frozenset({b"owner", b"published", b"place", b"moved_to", *BESIDE, RELOGGED, VERSION})

Fields = dict[bytes, bytes]


class MovedAwayError(StoreUnavailableError):
    """The shard is on another server: look for it and scan again."""

    code = "store.moved"


@dataclass(frozen=True, slots=True)
class ShardScan:
    """A shard as it was read: the position before, rows, the position after."""

    before: Fields  # fields of `w` that come from the log
    after: Fields
    rows: RowBlock  # an id may occur more than once

    @property
    def begin(self) -> Position:
        """The position before the rows were read."""
        return Position.from_fields(self.before)

    @property
    def end(self) -> Position:
        """The position after the rows were read."""
        return Position.from_fields(self.after)


async def scan_shard(connection: Connection, keys: ShardKeys) -> ShardScan | None:
    """Return the whole shard, None if nothing is stored.

    Raises PositionError, StoreUnavailableError, and MovedAwayError when it is not here any more.
    """
    while True:
        before = await _position(connection, keys)
        if not before:
            return None
        layout = RowLayout.of(Position.from_fields(before).table_spec())
        rows = await _rows(connection, keys, layout)
        after = await _position(connection, keys)
        if after.get(b"epoch") == before[b"epoch"]:  # else a restore swapped the rows meanwhile
            return ShardScan(before, after, rows)


async def _position(connection: Connection, keys: ShardKeys) -> Fields:
    (flat,) = _checked(await connection.exchange([resp.command(b"HGETALL", keys.position)], 1))
    items = cast("list[bytes]", flat)
    fields = dict(zip(items[::2], items[1::2], strict=True))
    if b"moved_to" in fields:
        raise MovedAwayError(f"{keys.position.decode()} is on {fields[b'moved_to'].decode()}")
    return {name: value for name, value in fields.items() if name not in _NOT_FROM_LOG}


async def _rows(connection: Connection, keys: ShardKeys, layout: RowLayout) -> RowBlock:
    pages: list[RowBlock] = []
    cursor = b"0"
    while True:
        command = resp.command(b"HSCAN", keys.values, cursor, b"COUNT", _PAGE)
        (page,) = _checked(await connection.exchange([command], 1))
        cursor, flat = cast("tuple[bytes, list[bytes]]", tuple(cast("list[object]", page)))
        names, values = flat[::2], flat[1::2]
        if any(len(name) != resp.ID_BYTES for name in names):
            raise PositionError(
                f"{keys.values.decode()} has fields that are not ids of {resp.ID_BYTES} bytes"
            )
        ids = np.frombuffer(b"".join(names), "<u8").astype(np.uint64)
        if layout.separate_state:
            pages.append(await _page_with_state(connection, keys, layout, ids))
        else:
            pages.append(layout.unpack(ids, values, None))
        if cursor == b"0":
            break
    return _concatenated(pages)


async def _page_with_state(
    connection: Connection, keys: ShardKeys, layout: RowLayout, ids: NDArray[np.uint64]
) -> RowBlock:
    """Read rows and states in one transaction: between two reads a commit could fall."""
    if not len(ids):
        return layout.unpack(ids, [], [])
    packed = [
        resp.command(b"MULTI"),
        *resp.on_ids(b"HMGET", keys.values, ids),
        *resp.on_ids(b"HMGET", keys.state, ids),
        resp.command(b"EXEC"),
    ]
    replies = _checked(await connection.exchange(packed, 4))
    values, states = cast("list[list[bytes | None]]", replies[-1])
    block = layout.unpack(ids, values, states)
    here = block.present  # deleted since the scan named them
    return RowBlock(
        ids[here], here[here], block.rows[here], block.state[here], block.lsn[here], block.ordinals[here]
    )


def _concatenated(pages: list[RowBlock]) -> RowBlock:
    return RowBlock(
        np.concatenate([page.ids for page in pages]),
        np.concatenate([page.present for page in pages]),
        np.concatenate([page.rows for page in pages]),
        np.concatenate([page.state for page in pages]),
        np.concatenate([page.lsn for page in pages]),
        np.concatenate([page.ordinals for page in pages]),
    )


def _checked(replies: list[Reply]) -> list[Reply]:
    for reply in replies:
        if isinstance(reply, Exception):
            raise StoreUnavailableError(f"Redis refused a read: {reply}")
    return replies
