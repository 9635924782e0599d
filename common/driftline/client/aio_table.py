"""A table as one producer sees it, asynchronously.

Invariant: pushes are queued in the order of the calls; what a read includes is
said by the position that came with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from driftline import topics
from driftline.client.asking import Request
from driftline.client.consistent import ConsistentQuery, check_reading, mixed_for
from driftline.client.outbox import Outbox
from driftline.client.pending import Pending
from driftline.client.pinned import PinnedQuery
from driftline.client.reading import INIT, PositionQuery, Query, Rows
from driftline.client.splitting import as_ids
from driftline.errors import StoreUnavailableError, TimedOutError
from driftline.rows.connection import Reply
from driftline.shard.spec import TableSpec

if TYPE_CHECKING:
    from driftline.client.aio import AsyncClient

READ_POLL = 0.001


class AsyncTable:
    """A table as one producer sees it."""

    def __init__(self, client: AsyncClient, spec: TableSpec, outbox: Outbox) -> None:
        self._client, self.spec = client, spec
        self._topic = topics.gradients(spec.name)
        self.pending = Pending(outbox)

    async def get(
        self,
        ids: ArrayLike,
        *,
        on_missing: str = INIT,
        read_your_writes: bool = False,
        version: str | None = None,
        consistent: str | None = None,
        timeout: float = 30.0,
    ) -> Rows:
        """Return the rows of `ids`, in their order; one round trip.

        An id without a row gets the row it will be born with (`init`), zeros, NaN (`mask`), or
        an InputError (`raise`). `read_your_writes` waits until the rows include everything this
        client has pushed. `version` reads a deployed version instead of the live rows. With
        `consistent="epoch"` no row is from before a restore and another from behind it: such answers
        are asked for again. Raises StoreUnavailableError, TimedOutError, NotDeployedError.
        """
        check_reading(on_missing, consistent, version)
        query = Query.of(as_ids(ids), self.spec.shards)
        if read_your_writes:
            await self.wait_readable(timeout=timeout)
        if version is not None:
            pinned = PinnedQuery(query, self.spec, version)
            return pinned.decode(await self._ask(pinned.requests()), on_missing)
        if consistent is None:
            replies = await self._ask(query.requests(self.spec.name))
            rows = query.decode(replies, self.spec, on_missing)
        else:
            rows = await self._read_consistently(ConsistentQuery(query, self.spec), on_missing, timeout)
        self.pending.note_read(rows)
        self.note_epochs(rows)
        return rows

    async def _ask(self, requests: Sequence[Request]) -> list[Reply]:
        return await self._client.asker.ask(self.spec.name, requests)

    async def _read_consistently(self, query: ConsistentQuery, on_missing: str, timeout: float) -> Rows:
        requests = query.requests()
        try:
            async with asyncio.timeout(timeout):
                while True:
                    rows = query.decode(await self._ask(requests), on_missing)
                    if rows is not None:
                        return rows
                    await asyncio.sleep(READ_POLL)
        except TimeoutError:
            raise TimedOutError(mixed_for(self.spec.name, timeout)) from None

    def note_epochs(self, rows: Rows) -> None:
        """Tell whoever wants to know if the epochs of these rows show a restore. In the client's loop."""
        epoch = self._client.notices.news(self.spec.name, rows.epoch)
        if epoch is not None:
            self._client.notices.tell(self.spec.name, epoch, self.spec.shards)

    async def wait_readable(self, *, timeout: float = 30.0) -> None:
        """Return once a read includes everything this client has pushed to this table.

        Raises TimedOutError, and HalfMergedError like `AsyncClient.flush`.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._client.flush()
                while (query := self.unread()) is not None:
                    if await self._settled(query):
                        return
                    await asyncio.sleep(READ_POLL)
        except TimeoutError:
            raise TimedOutError(
                f"table {self.spec.name}: own pushes not readable within {timeout} s"
            ) from None

    async def _settled(self, query: PositionQuery) -> bool:
        try:
            return query.settled(await self._ask(query.requests))
        except StoreUnavailableError:  # a failover, a restart: waited out until the time-out
            return False

    async def push(
        self,
        ids: ArrayLike,
        grads: ArrayLike,
        *,
        step: int | None = None,
        read: Mapping[int, int] | None = None,
        lr: float | None = None,
        traceparent: str | None = None,
    ) -> None:
        """Queue gradients; they are applied exactly once, however often they are sent.

        Duplicates are summed, over all of the `merge_steps` steps that travel together. `read` is
        `rows.read` of the rows the gradients were made from (default: the oldest read since the
        last push). `step` must rise (default: a counter). `traceparent` travels as a header.
        Raises InputError, RepeatedStepError. Waits only while the push buffer is full.
        """
        await self._client.publisher.put(
            self._topic, lambda: self.pending.push(ids, grads, step, read, lr, traceparent)
        )

    async def upsert(
        self,
        ids: ArrayLike,
        rows: ArrayLike,
        *,
        state: ArrayLike | None = None,
        step: int | None = None,
        traceparent: str | None = None,
    ) -> None:
        """Queue explicit rows; their optimizer state starts anew unless given. Raises InputError."""
        await self._client.publisher.put(
            self._topic, lambda: self.pending.upsert(ids, rows, state, traceparent, step)
        )

    async def delete(
        self, ids: ArrayLike, *, step: int | None = None, traceparent: str | None = None
    ) -> None:
        """Queue the removal of rows; a later gradient gives birth anew. Raises InputError."""
        await self._client.publisher.put(self._topic, lambda: self.pending.delete(ids, traceparent, step))

    async def flush(self) -> None:
        """Return when everything pushed is acknowledged by the log."""
        await self._client.flush()

    def unread(self) -> PositionQuery | None:
        """Return the question whether acknowledged pushes can be read; None if none were made."""
        acknowledged = self._client.publisher.acknowledged(self._topic)
        return PositionQuery.of(self.spec.name, acknowledged) if acknowledged else None
