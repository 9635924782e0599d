"""The synchronous client: the asynchronous one in a thread of its own, reads directly.

Invariant: what is decided (frames, sequence numbers, decoding) is decided by the
same code as in the asynchronous client; only the waiting differs.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

from numpy.typing import ArrayLike

from driftline.client.aio import AsyncClient
from driftline.client.asking import Request
from driftline.client.notices import OnRolledBack
from driftline.client.operations import Requested
from driftline.client.options import Options, Snapshot
from driftline.client.reading import Rows
from driftline.client.restoring import Restored, RestoredRows
from driftline.client.sync_asker import Decode, SyncAsker
from driftline.client.sync_table import Table
from driftline.client.versioning import BackupFact, NodeRollback
from driftline.control import VersionCommitted
from driftline.errors import ConfigError
from driftline.rows.connection import Reply
from driftline.shard.restore import ROLLBACK
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
        self,
        *,
        kind: str = "version",
        metadata: Mapping[str, object] | None = None,
        figures: Mapping[str, float] | None = None,
        scenario: str | None = None,
        branch: str | None = None,
        run: str | None = None,
        attachments: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> Snapshot:
        """Cut a barrier through all tables of the group: see `AsyncClient.snapshot`."""
        return self.run(
            self._client.snapshot(
                kind=kind,
                metadata=metadata,
                figures=figures,
                scenario=scenario,
                branch=branch,
                run=run,
                attachments=attachments,
                timeout=timeout,
            )
        )

    def version_of(self, snapshot: Snapshot, *, timeout: float = 60.0) -> VersionCommitted:
        """Return the version that a snapshot became: see `AsyncClient.version_of`."""
        return self.run(self._client.version_of(snapshot, timeout=timeout))

    def roll_back_to_backup(
        self, table: str, ids: Iterable[int], backup: int, *, timeout: float = 60.0
    ) -> NodeRollback:
        """Put rows back to a backup in memory: see `AsyncClient.roll_back_to_backup`."""
        return self.run(self._client.roll_back_to_backup(table, ids, backup, timeout=timeout))

    def backups(self) -> list[BackupFact]:
        """Return the backups that versioners hold in memory, oldest first."""
        return self.run(self._client.backups())

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

    def restore(
        self,
        version: str,
        *,
        mode: str = ROLLBACK,
        branch: str | None = None,
        scenario: str | None = None,
        timeout: float = 600.0,
    ) -> Restored:
        """Put all tables of the group back to a version: see `AsyncClient.restore`."""
        work = self._client.restore(version, mode=mode, branch=branch, scenario=scenario, timeout=timeout)
        return self.run(work)

    def restore_rows(
        self, table: str, ids: ArrayLike, version: str, *, timeout: float = 60.0
    ) -> RestoredRows:
        """Put single rows back as they were in a version: see `AsyncClient.restore_rows`."""
        return self.run(self._client.restore_rows(table, ids, version, timeout=timeout))

    def deploy(self, version: str, *, timeout: float = 600.0) -> str:
        """Have a version readable beside the live rows: see `AsyncClient.deploy`."""
        return self.run(self._client.deploy(version, timeout=timeout))

    def undeploy(self, version: str, *, timeout: float = 60.0) -> str:
        """Have a version no longer readable beside the live rows: see `AsyncClient.undeploy`."""
        return self.run(self._client.undeploy(version, timeout=timeout))

    @property
    def asynchronous(self) -> AsyncClient:
        """The client underneath, for `run`."""
        return self._client

    def on_rolled_back(self, listener: OnRolledBack) -> None:
        """Call `listener` when a read shows that its table was restored; in a thread of the client's."""
        self._client.on_rolled_back(listener)

    def note_epochs(self, spec: TableSpec, rows: Rows) -> None:
        """Tell whoever wants to know if the epochs of these rows show a restore."""
        notices = self._client.notices
        epoch = notices.news(spec.name, rows.epoch)
        if epoch is not None:
            self._loop.call_soon_threadsafe(notices.tell, spec.name, epoch, spec.shards)

    def move_shard(self, table: str, shard: int, server: str) -> Requested:
        """Ask for a shard to be moved to another Redis server: see `AsyncClient.move_shard`."""
        return self.run(self._client.move_shard(table, shard, server))
