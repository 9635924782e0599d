"""One owner's fenced access to one shard in Redis.

Invariants: rows, optimizer state and the position they stand for change in ONE
transaction, which takes effect only while (next, owner) is what this owner last
wrote. Rows are read on the same connection while the fence is armed, so a row
read and a later commit stand on the same position, or the commit fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from driftline.errors import FenceLostError, PositionError, StoreUnavailableError
from driftline.rows import resp
from driftline.rows.fence import FENCE, Fence
from driftline.rows.fields import delays, names_and_values, pairs
from driftline.rows.layout import RowLayout
from driftline.rows.resp import Bytes
from driftline.rows.staging import BESIDE, RELOGGED, STAGED, Copy, StagedLostError, Swap
from driftline.rows.transaction import restoration, transaction
from driftline.shard.cache import RowBlock
from driftline.shard.machine import Delta
from driftline.shard.position import Position, StoredFields

_READ_ATTEMPTS = 5
MOVED = b"moved:"
"""Begins the owner of a shard that has left its server: no writer has such a token."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What Redis says of a shard."""

    position: Position | None  # None: nothing stored yet
    published: int  # states of all records below it are acknowledged on the updates topic
    owner: bytes
    staged: bytes = b""  # copies that an earlier owner began, with spaces between their names
    relogged: bytes = b""  # what the updates are still to be told of a relog


class ShardStore(Fence):
    """Owner `owner`'s hands on one shard; not usable before `take`."""

    async def take(self) -> Stored:
        """Become the owner and return what is stored.

        Waits for Redis as long as it takes. Raises PositionError when rows and position do
        not belong together; what another owner has not committed by now it never will.
        FenceLostError: the shard is not on this server any more.
        """
        async with self._lock:
            for delay in delays():
                try:
                    stored = await self._read()
                    if await self._write_owner(stored):
                        self.full = None
                        return stored
                except StoreUnavailableError:
                    await self._drop()
                await asyncio.sleep(delay)
        raise AssertionError("unreachable: delays never end")

    async def fetch(self, layout: RowLayout, ids: NDArray[np.uint64]) -> RowBlock:
        """Return the rows of distinct `ids` at the fence. Raises FenceLostError."""
        packed: list[Bytes] = [*resp.on_ids(b"HMGET", self._keys.values, ids)]
        if layout.separate_state:
            packed += resp.on_ids(b"HMGET", self._keys.state, ids)
        packed.append(resp.command(b"HMGET", self._keys.position, *FENCE))
        async with self._lock:
            for delay in delays():
                try:
                    *columns, fence = await self._exchange(packed, 3 if layout.separate_state else 2)
                    self._check_fence(fence, self._fence)
                    values = [cast("Sequence[bytes | None]", column) for column in columns]
                    return layout.unpack(ids, values[0], values[1] if layout.separate_state else None)
                except StoreUnavailableError:
                    await self._drop()
                    await asyncio.sleep(delay)
                    await self._rearm(self._fence)
        raise AssertionError("unreachable: delays never end")

    async def commit(self, layout: RowLayout, delta: Delta, published: int) -> None:
        """Make `delta` durable in one transaction. Returns once Redis has it.

        A lost reply is settled by reading the position back: the transaction is sent again
        or is known to have happened. Raises FenceLostError when neither can be.
        """
        after = (b"%d" % delta.next, self._owner)
        body, commands = transaction(self._keys, layout, delta, published)
        packed = [resp.command(b"MULTI"), *body, resp.command(b"EXEC"), *self._arm()]
        async with self._lock:
            for delay in delays():
                try:
                    replies = await self._exchange(packed, commands + 4)
                    if replies[commands + 1] is None:
                        raise self._lose("another writer moved the position")
                    self._check_fence(replies[-1], after)
                    self._check_executed(replies[commands + 1])
                    self._fence, self.full = after, None
                    return
                except StoreUnavailableError:
                    await self._drop()
                    await asyncio.sleep(delay)
                    if await self._rearm(self._fence, after) == after and after != self._fence:
                        self._fence, self.full = after, None
                        return
        raise AssertionError("unreachable: delays never end")

    async def swap(self, delta: Delta, published: int, swap: Swap) -> None:
        """Make a restore durable in one transaction: the staged copy takes the place of all rows.

        Lost replies as in `commit`. Raises StagedLostError, with nothing changed, when the copy is not
        whole any more; FenceLostError.
        """
        assert not len(delta.states), "an op is a full stop: no row has changed since the last commit"
        staged = swap.staged
        after, copy = (b"%d" % delta.next, self._owner), staged.copy
        look = [
            resp.command(b"WATCH", self._keys.position, copy.values, copy.state),
            *(resp.command(b"HLEN", key) for key in (copy.values, copy.state)),
            # last: an earlier EXEC that comes late shows here, and not as a copy that was lost
            resp.command(b"HMGET", self._keys.position, *FENCE),
        ]
        body = restoration(self._keys, delta, published, swap)
        packed = [resp.command(b"MULTI"), *body, resp.command(b"EXEC"), *self._arm()]
        async with self._lock:
            for delay in delays():
                try:
                    _, values, states, fence = await self._exchange(look, 4)
                    if fence == list(after):  # an earlier attempt, whose reply was lost
                        break
                    self._check_fence(fence, self._fence)
                    if (values, states) != (staged.rows, staged.states):
                        raise StagedLostError(
                            f"{self._name}: the copy of {staged.version} has {values!r} of {staged.rows} rows"
                        )
                    replies = await self._exchange(packed, len(body) + 4)
                    if (done := replies[len(body) + 1]) is not None:  # else the next look says who was there
                        self._check_fence(replies[-1], after)
                        self._check_executed(done)
                        break
                except StoreUnavailableError:
                    await self._drop()
                await asyncio.sleep(delay)
            self._fence, self.full = after, None

    async def note(self, *commands: bytes) -> None:
        """Run commands that leave the position alone, while the fence holds. Raises FenceLostError."""
        packed = [resp.command(b"MULTI"), *commands, resp.command(b"EXEC"), *self._arm()]
        async with self._lock:
            for delay in delays():
                try:
                    replies = await self._exchange(packed, len(commands) + 4)
                    if replies[len(commands) + 1] is None:
                        raise self._lose("another writer moved the position")
                    self._check_fence(replies[-1], self._fence)
                    return
                except StoreUnavailableError:
                    await self._drop()
                    await asyncio.sleep(delay)
                    await self._rearm(self._fence)

    async def check(self, layout: RowLayout, rows: int) -> None:
        """Make sure that the fence still holds and that `rows` rows are stored. Raises FenceLostError.

        For an owner that has nothing to commit: a Redis that was emptied, or lost keys, would
        otherwise go unnoticed until it has.
        """
        packed = [*self._arm(), *self._count()]
        async with self._lock:
            for delay in delays():
                try:
                    _, fence, values, states = await self._exchange(packed, 4)
                    self._check_fence(fence, self._fence)
                    if lost := self._keys.lost(layout, rows, values, states):
                        raise self._lose(lost)
                    return
                except StoreUnavailableError:
                    await self._drop()
                    await asyncio.sleep(delay)
        raise AssertionError("unreachable: delays never end")

    async def resume(self, following: int) -> None:
        """Go on as the owner that left the position at `following`. Raises FenceLostError."""
        async with self._lock:
            self._fence = (b"%d" % following, self._owner)
            await self._rearm(self._fence)

    async def leave(self, target: str) -> dict[bytes, bytes]:
        """Make this server a signpost to `target` and return the position as it was left.

        From then on no commit of anybody can take effect here. Raises FenceLostError.
        """
        token = MOVED + self._owner
        after = (self._fence[0], token)
        key = self._keys.position
        packed = [
            resp.command(b"MULTI"),
            resp.command(b"HSET", key, b"moved_to", target.encode(), b"owner", token),
            resp.command(b"EXEC"),
        ]
        async with self._lock:
            for delay in delays():
                try:
                    if self._fence != after:
                        replies = await self._exchange(packed, 3)
                        if replies[2] is None:
                            raise self._lose("another writer moved the position")
                        self._fence = after
                    (flat,) = await self._exchange([resp.command(b"HGETALL", key)], 1)
                    left = pairs(flat)
                    # much may have happened between the two: the shard may have been back here and gone on
                    self._check_fence([left.get(name) for name in FENCE], after)
                    self._lose(f"it has left for server {target}")  # nothing more goes out from here
                    return left
                except StoreUnavailableError:
                    await self._drop()
                    await asyncio.sleep(delay)
                    self._fence = await self._rearm(self._fence, after)
        raise AssertionError("unreachable: delays never end")

    async def _read(self) -> Stored:
        keys = self._keys
        packed = [
            resp.command(b"WATCH", keys.position),
            resp.command(b"HGETALL", keys.position),
            *self._count(),
        ]
        for _ in range(_READ_ATTEMPTS):  # another owner may commit between the reads
            _, flat, values, states = await self._exchange(packed, 4)
            stored = StoredFields.of(*names_and_values(flat))
            fixed = stored.fixed
            if b"moved_to" in fixed:
                raise FenceLostError(f"{self._name} has moved to server {fixed[b'moved_to'].decode()}")
            position = Position.from_stored(stored) if stored.names else None
            layout = RowLayout.of(position.table_spec() if position else None)
            lost = keys.lost(layout, position.rows if position else 0, values, states)
            if lost is None:
                self._fence = (fixed.get(b"next", b""), fixed.get(b"owner", b""))
                published, staged = int(fixed.get(b"published", b"0")), fixed.get(STAGED, b"")
                return Stored(position, published, self._fence[1], staged, fixed.get(RELOGGED, b""))
        raise PositionError(
            f"{lost}: Redis lost keys (evicted or deleted). Delete {keys.position.decode()}, "
            f"{keys.values.decode()} and {keys.state.decode()} to rebuild the shard from the log"
        )

    def _count(self) -> list[Bytes]:
        return [resp.command(b"HLEN", key) for key in (self._keys.values, self._keys.state)]

    async def _write_owner(self, stored: Stored) -> bool:
        fields = {b"owner": self._owner}
        if stored.position is None:
            fields |= Position().fields() | {b"published": b"0"}
        pairs = [part for item in fields.items() for part in item]
        written = [resp.command(b"HSET", self._keys.position, *pairs)]
        if stored.staged:  # of no use to anybody else
            copies = [Copy.of(self._keys, name) for name in stored.staged.split()]
            left = [key for copy in copies for key in (copy.values, copy.state)]
            written.append(resp.command(b"UNLINK", *left))
            written.append(resp.command(b"HDEL", self._keys.position, *BESIDE))
        packed = [resp.command(b"MULTI"), *written, resp.command(b"EXEC"), *self._arm()]
        replies = await self._exchange(packed, len(written) + 4)
        if replies[len(written) + 1] is None:
            return False
        self._fence = (self._fence[0] or b"0", self._owner)
        return replies[-1] == list(self._fence)  # else another one took it between EXEC and WATCH
