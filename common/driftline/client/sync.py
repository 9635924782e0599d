"""The synchronous client: the asynchronous one in a thread of its own, reads directly.

Invariant: what is decided (frames, sequence numbers, decoding) is decided by the
same code as in the asynchronous client; only the waiting differs.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

from numpy.typing import ArrayLike

from driftline.client.aio import AsyncClient
from driftline.client.aio_table import READ_POLL, AsyncTable
from driftline.client.asking import Request
from driftline.client.operations import Requested
from driftline.client.options import Options, Snapshot
from driftline.client.reading import INIT, PositionQuery, Query, Rows, check_on_missing
from driftline.client.splitting import as_ids
from driftline.client.sync_asker import Decode, SyncAsker
from driftline.errors import ConfigError, StoreUnavailableError, TimedOutError
from driftline.rows.connection import Reply
from driftline.rows.layout import RowLayout
from driftline.shard.spec import TableSpec

_Result = TypeVar("_Result")


class Client:
    """A connection to one group of a deployment; safe to use from several threads."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._client = AsyncClient(options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="driftline client", daemon=True)
        self._thread.start()
        self._process = os.getpid()
        self._asker = SyncAsker(self._client.asker, self.run)
        try:
            self.run(self._client.__aenter__())
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self.close()

    def close(self) -> None:
        """Close without waiting for what is queued; see `flush`. Closing twice is fine."""
        if self._loop.is_closed():
            return
        self.run(self._client.close())
        self._end()
        self._asker.close()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def table(self, name: str) -> Table:
        """Return a handle on a table. Raises UnknownTableError."""
        return Table(self, self.run(self._client.table(name)))

    def create_table(self, spec: TableSpec, *, timeout: float = 60.0) -> Table:
        """Make sure the table exists with this spec: see `AsyncClient.create_table`."""
        return Table(self, self.run(self._client.create_table(spec, timeout=timeout)))

    def tables(self) -> Mapping[str, TableSpec]:
        """Return the tables of the group."""
        return self.run(self._client.tables())

    def snapshot(
        self, *, kind: str = "version", metadata: Mapping[str, object] | None = None, timeout: float = 60.0
    ) -> Snapshot:
        """Cut a barrier through all tables of the group: see `AsyncClient.snapshot`."""
        return self.run(self._client.snapshot(kind=kind, metadata=metadata, timeout=timeout))

    def flush(self, *, timeout: float | None = None) -> None:
        """Return when everything pushed is acknowledged by the log: see `AsyncClient.flush`."""
        self.run(self._client.flush(timeout=timeout))

    def cut(self) -> None:
        """Queue what waits to be merged with later steps: see `AsyncClient.cut`."""
        self.run(self._client.cut())

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Run `work` in the client's own loop and return its result; Ctrl-C cancels it.

        Raises ConfigError in a process forked from the one that made the client.
        """
        if self._loop.is_closed():
            work.close()
            raise ConfigError("this client is closed: make another one")
        if os.getpid() != self._process:  # the loop's thread did not come along
            work.close()
            raise ConfigError("a client does not survive a fork: make one in the child process")
        future: Future[_Result] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def ask(self, table: str, requests: Sequence[Request]) -> list[Reply]:
        """Return the replies of shards, one round trip per server: see `Asker.ask`."""
        return self._asker.ask(table, requests)

    def read(
        self, table: str, requests: Sequence[Request], value_bytes: int, decode: Decode[_Result]
    ) -> _Result:
        """Return what `decode` makes of the replies of shards: see `SyncAsker.read`."""
        return self._asker.read(table, requests, value_bytes, decode)

    def home(self, table: str, shard: int) -> str:
        """Return the URL of the Redis process that holds a shard, with its credentials."""
        return self.run(self._client.asker.locate(table, [shard]))[shard]

    def move_shard(self, table: str, shard: int, server: str) -> Requested:
        """Ask for a shard to be moved to another Redis server: see `AsyncClient.move_shard`."""
        return self.run(self._client.move_shard(table, shard, server))


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
        self, ids: ArrayLike, *, on_missing: str = INIT, read_your_writes: bool = False, timeout: float = 30.0
    ) -> Rows:
        """Return the rows of `ids`, in their order; one round trip: see `AsyncTable.get`."""
        check_on_missing(on_missing)
        query = Query.of(as_ids(ids), self.spec.shards)
        if read_your_writes:
            self.wait_readable(timeout=timeout)
        rows = self._client.read(
            self.spec.name,
            query.requests(self.spec.name),
            self._value_bytes,
            lambda answers, landed: query.decode(answers, self.spec, on_missing, landed),
        )
        self._table.pending.note_read(rows)
        return rows

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
