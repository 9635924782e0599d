"""A table as one producer sees it, for threads that wait.

Invariant: what is decided (frames, sequence numbers, decoding) is decided by the
same code as in the asynchronous table; only the waiting differs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from numpy.typing import ArrayLike

from driftline.client.aio_table import READ_POLL, AsyncTable
from driftline.client.asking import Request
from driftline.client.consistent import ConsistentQuery, check_reading, mixed_for
from driftline.client.pinned import PinnedQuery
from driftline.client.reading import INIT, PositionQuery, Query, Rows
from driftline.client.splitting import as_ids
from driftline.client.sync_asker import Decode
from driftline.errors import StoreUnavailableError, TimedOutError
from driftline.rows.layout import RowLayout
from driftline.shard.spec import TableSpec

if TYPE_CHECKING:
    from driftline.client.sync import Client

_Result = TypeVar("_Result")


class Table:
    """A table as one producer sees it."""

    def __init__(self, client: Client, table: AsyncTable) -> None:
        self._client, self._table = client, table
        self._value_bytes = RowLayout.of(table.spec).value_bytes

    @property
    def spec(self) -> TableSpec:
        """The table's spec when the handle was made."""
        return self._table.spec

    def get(
        self,
        ids: ArrayLike,
        *,
        on_missing: str = INIT,
        read_your_writes: bool = False,
        version: str | None = None,
        consistent: str | None = None,
        timeout: float = 30.0,
    ) -> Rows:
        """Return the rows of `ids`, in their order; one round trip: see `AsyncTable.get`."""
        check_reading(on_missing, consistent, version)
        query = Query.of(as_ids(ids), self.spec.shards)
        if read_your_writes:
            self.wait_readable(timeout=timeout)
        if version is not None:
            pinned = PinnedQuery(query, self.spec, version)
            return self._read(
                pinned.requests(), lambda answers, landed: pinned.decode(answers, on_missing, landed)
            )
        if consistent is None:
            rows = self._read(
                query.requests(self.spec.name),
                lambda answers, landed: query.decode(answers, self.spec, on_missing, landed),
            )
        else:
            rows = self._read_consistently(ConsistentQuery(query, self.spec), on_missing, timeout)
        self._table.pending.note_read(rows)
        self._client.note_epochs(self.spec, rows)
        return rows

    def _read(self, requests: Sequence[Request], decode: Decode[_Result]) -> _Result:
        return self._client.read(self.spec.name, requests, self._value_bytes, decode)

    def _read_consistently(self, query: ConsistentQuery, on_missing: str, timeout: float) -> Rows:
        deadline, requests = time.monotonic() + timeout, query.requests()
        while True:
            rows = self._read(requests, lambda answers, landed: query.decode(answers, on_missing, landed))
            if rows is not None:
                return rows
            if time.monotonic() > deadline:
                raise TimedOutError(mixed_for(self.spec.name, timeout))
            time.sleep(READ_POLL)

    def wait_readable(self, *, timeout: float = 30.0) -> None:
        """Return once a read includes everything this client has pushed: see `AsyncTable.wait_readable`."""
        deadline = time.monotonic() + timeout
        self._client.flush(timeout=timeout)
        while (query := self._table.unread()) is not None:
            if self._settled(query):
                return
            if time.monotonic() > deadline:
                raise TimedOutError(f"table {self.spec.name}: own pushes not readable within {timeout} s")
            time.sleep(READ_POLL)

    def _settled(self, query: PositionQuery) -> bool:
        try:
            return query.settled(self._client.ask(self.spec.name, query.requests))
        except StoreUnavailableError:  # a failover, a restart: waited out until the time-out
            return False

    def push(
        self,
        ids: ArrayLike,
        grads: ArrayLike,
        *,
        step: int | None = None,
        read: Mapping[int, int] | None = None,
        lr: float | None = None,
        traceparent: str | None = None,
    ) -> None:
        """Queue gradients, applied exactly once: see `AsyncTable.push`."""
        self._client.run(self._table.push(ids, grads, step=step, read=read, lr=lr, traceparent=traceparent))

    def upsert(
        self,
        ids: ArrayLike,
        rows: ArrayLike,
        *,
        state: ArrayLike | None = None,
        step: int | None = None,
        traceparent: str | None = None,
    ) -> None:
        """Queue explicit rows: see `AsyncTable.upsert`."""
        self._client.run(self._table.upsert(ids, rows, state=state, step=step, traceparent=traceparent))

    def delete(self, ids: ArrayLike, *, step: int | None = None, traceparent: str | None = None) -> None:
        """Queue the removal of rows: see `AsyncTable.delete`."""
        self._client.run(self._table.delete(ids, step=step, traceparent=traceparent))

    def flush(self) -> None:
        """Return when everything pushed is acknowledged by the log."""
        self._client.flush()
