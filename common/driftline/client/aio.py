"""The asynchronous client: tables to read, push to and snapshot.

Invariant: a push is in the log before `flush` returns, in the order of the calls
per shard; nothing queued is dropped without an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

import orjson
from numpy.typing import ArrayLike

from driftline import topics
from driftline.client.aio_table import AsyncTable
from driftline.client.asker import Asker
from driftline.client.asking import Request
from driftline.client.creating import create_table, known_tables
from driftline.client.deploying import deploy, undeploy
from driftline.client.merging import Merged
from driftline.client.notices import Notices, OnRolledBack
from driftline.client.operations import Operations, Requested
from driftline.client.options import Options, Snapshot
from driftline.client.outbox import Outbox, check_merge_steps
from driftline.client.passing import wait_for_op, wait_for_rows
from driftline.client.publisher import Publisher
from driftline.client.restoring import Restored, RestoredRows, restore, restore_rows
from driftline.client.splitting import Sender, Sequence
from driftline.client.versioning import BackupFact, NodeRollback, Outcomes, barrier_body
from driftline.control import VersionCommitted
from driftline.errors import ConfigError, HalfMergedError, InputError, TimedOutError, UnknownTableError
from driftline.frames.events import BARRIER, MOVE
from driftline.frames.headers import Keyring
from driftline.ids import producer_id
from driftline.log import Log, open_log
from driftline.rows.servers import Servers
from driftline.shard.restore import ROLLBACK
from driftline.shard.spec import TableSpec
from driftline.versions.opening import open_group
from driftline.versions.repository import Repository

RESERVED = ("ops", "ingest:", "dlq:")


class AsyncClient:
    """A connection to one group of a deployment; use it in one event loop."""

    def __init__(self, options: Options) -> None:
        name = options.producer
        if name is not None and (not name or name == "ops" or name.startswith(RESERVED[1:])):
            raise ConfigError(f"producer name {name!r} is reserved; choose another")
        self._options = options
        self._producer = producer_id(name)
        self._log: Log = open_log(options.log_url, options.security)
        self.publisher = Publisher(self._log, options.push_buffer_bytes)
        keyring = Keyring.parse(options.key) if options.key else None
        self.operations = Operations(self._log, options.group, keyring, self._producer)
        self._steps = check_merge_steps(options.merge_steps)
        self._outboxes: dict[str, Outbox] = {}
        self._outcomes = Outcomes(self._log, options.group, lambda: self.operations.keyring)
        self.asker = Asker(Servers.at(options.redis_url))
        self.notices = Notices(self)
        self._repository: Repository | None = None

    async def __aenter__(self) -> Self:
        await self._log.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await self.flush()
        finally:
            await self.close()

    async def close(self) -> None:
        """Close without waiting for what is queued; see `flush`."""
        await self.notices.close()
        await self.publisher.close()
        await self.asker.close()
        await self._log.close()

    async def table(self, name: str) -> AsyncTable:
        """Return a handle on a table. Raises UnknownTableError when Redis knows none of that name."""
        spec = await self.spec(name)
        # so that a read is one round trip from the first on
        await self.asker.locate(name, range(spec.shards))
        outbox = self._outboxes.get(name)
        if outbox is None:  # handles of one table share it: they are one producer
            outbox = self._outboxes[name] = Outbox(
                Sender(spec, self._producer, self._options.producer_epoch),
                self._options.gradient_dtype,
                merge_steps=self._steps,
                sequence=Sequence(named=self._options.producer is not None),
            )
        return AsyncTable(self, spec, outbox)

    async def spec(self, name: str) -> TableSpec:
        """Return the spec of a table, as its first shard has it. Raises UnknownTableError."""
        (found,) = await self.asker.ask(name, [Request.of(name, 0, (b"spec",))])
        reply = found[0] if isinstance(found, list) else None
        if not isinstance(reply, bytes) or not reply:
            raise UnknownTableError(f"no table {name!r} in this deployment; create_table makes one")
        return TableSpec.from_json(orjson.loads(reply))

    async def create_table(self, spec: TableSpec, *, timeout: float = 60.0) -> AsyncTable:
        """Make sure the table exists with this spec, in every shard, and return a handle on it.

        An existing table takes over changed policies and optimizer constants. Raises
        ConfigError for a change that is not allowed, PartitionCountError when a topic of the table
        exists with another number of partitions, SigningKeyError or OpRefusedError when the router
        refuses the request, TimedOutError when no aggregator answers.
        """
        return await create_table(self, self._log, spec, timeout)

    async def tables(self) -> Mapping[str, TableSpec]:
        """Return the tables of the group: those its ops log makes.

        Without the deployment's key, which tells genuine ops from forged ones: those that the ops log
        names and the shards know. Raises SigningKeyError for a key that signed none of them.
        """
        if self.operations.signs:
            return await self.operations.tables()
        return await known_tables(self, self._log)

    async def snapshot(
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
        """Cut a barrier through all tables of the group behind everything this client has pushed.

        Returns when every shard has passed it; `version_of` tells what a versioner made of it.

        `kind`: version or backup. `figures`: quality of the model at this cut, for gates. `scenario`,
        `branch`: of the version, as the one before if not given. `run`: "new" begins a training run, and
        a major. `attachments`: keys of objects in the version store, by name (dense weights). Raises
        TimedOutError, SigningKeyError, OpRefusedError.
        """
        _ = self.operations.keyring  # without one nothing is waited for
        await self.flush(timeout=timeout)
        shards = {name: spec.shards for name, spec in (await self.tables()).items()}
        more = {
            "figures": dict(figures) if figures is not None else None,
            "scenario": scenario,
            "branch": branch,
            "run": run,
            "attachments": dict(attachments) if attachments is not None else None,
        }
        since = await self._outcomes.end()
        asked = await self.operations.ask(BARRIER, self._options.group, barrier_body(kind, metadata, more))
        await self.wait_for_op(shards, asked, timeout)
        return Snapshot(asked.number, shards, since)

    async def version_of(self, snapshot: Snapshot, *, timeout: float = 60.0) -> VersionCommitted:
        """Return the version that a snapshot became, once a versioner has committed it.

        Raises VersionRejectedError if it became none, TimedOutError.
        """
        return await self._outcomes.version_of(snapshot.op, snapshot.since, timeout)

    async def roll_back_to_backup(
        self, table: str, ids: Iterable[int], backup: int, *, timeout: float = 60.0
    ) -> NodeRollback:
        """Put rows of a table back to a backup that versioners hold in memory; see `backups`.

        Returns when every shard has them. Raises InputError when refused, TimedOutError.
        """
        spec = await self.spec(table)
        found = await self._outcomes.roll_back(table, spec.shards, ids, backup, timeout)
        await wait_for_rows(self, table, spec.shards, found.ops, timeout)
        return found

    async def backups(self) -> list[BackupFact]:
        """Return the backups that versioners hold in memory, oldest first."""
        return await self._outcomes.backups()

    async def restore(
        self,
        version: str,
        *,
        mode: str = ROLLBACK,
        branch: str | None = None,
        scenario: str | None = None,
        timeout: float = 600.0,
    ) -> Restored:
        """Put all tables of the group back to a version; training goes on from there.

        Rows, optimizer state and LSNs are those at the version's barrier, to the bit. Every shard loads
        its part while training goes on, then all swap; gradients made from rows read before are dropped.
        `version` is any reference. `mode` rollback: its branch goes on; checkout: in `branch` and
        `scenario`. Raises UnknownVersionError, VersionUnloadableError, TimedOutError (nothing was
        changed in these), RestoreOvertakenError.
        """
        return await restore(self, version, mode, branch, scenario, timeout)

    async def restore_rows(
        self, table: str, ids: ArrayLike, version: str, *, timeout: float = 60.0
    ) -> RestoredRows:
        """Put single rows, with their optimizer state, back as they were in a version.

        Ids that the version has no row of are left as they are, and returned. Gradients made from
        these rows before are dropped. Raises UnknownVersionError, UnknownTableError, TimedOutError.
        """
        return await restore_rows(self, table, ids, version, timeout)

    async def deploy(self, version: str, *, timeout: float = 600.0) -> str:
        """Have a version readable beside the live rows, and return its name once every shard has it.

        It stays so over restarts, until `undeploy`. Raises UnknownVersionError, TimedOutError.
        """
        return await deploy(self, version, timeout)

    async def undeploy(self, version: str, *, timeout: float = 60.0) -> str:
        """End a deployment. Raises UnknownVersionError, TimedOutError."""
        return await undeploy(self, version, timeout)

    def on_rolled_back(self, listener: OnRolledBack) -> None:
        """Call `listener` when a read shows that its table was restored; in the client's event loop."""
        self.notices.listen(listener)

    @property
    def repository(self) -> Repository:
        """The group's versions. Blocks the first time. Raises ConfigError, ObjectStoreUnavailableError."""
        if self._repository is None:
            options = self._options
            self._repository = open_group(
                options.store_url, options.group, options.data_dir, cache_dir=options.version_cache_dir
            )
        return self._repository

    @property
    def group(self) -> str:
        """The group of tables."""
        return self._options.group

    @property
    def producer(self) -> bytes:
        """What this client is called in frames."""
        return self._producer

    async def move_shard(self, table: str, shard: int, server: str) -> Requested:
        """Ask for a shard to be moved to another Redis server and return the op.

        Training of that shard waits while it moves, nothing else does. Raises InputError.
        """
        spec = await self.spec(table)
        if not 0 <= shard < spec.shards:
            raise InputError(f"table {table} has the shards 0 to {spec.shards - 1}, not {shard}")
        return await self.operations.ask(MOVE, table, {"shard": shard, "server": server})

    async def flush(self, *, timeout: float | None = None) -> None:
        """Return when everything pushed is acknowledged by the log. Raises TimedOutError.

        Steps that wait to be merged with later ones are sent now if this producer has no name.
        For a named one that is a HalfMergedError: pushed again after a resume, these steps would
        be cut elsewhere. See `cut`.
        """
        half = self._half_merged()
        if half and self._options.producer is not None:
            name, merged = half[0]
            raise HalfMergedError(
                f"table {name}: steps {merged.first} to {merged.last} wait to be merged with later ones; "
                f"flush behind a step s with (s + 1) divisible by merge_steps = {self._steps}, or call "
                "cut() first, always at the same steps"
            )
        try:
            async with asyncio.timeout(timeout):
                await self.cut()
                await self.publisher.flush()
        except TimeoutError:
            raise TimedOutError(f"not everything pushed was acknowledged within {timeout} s") from None

    async def cut(self) -> None:
        """Queue what waits to be merged with later steps: end the merging here, in all tables.

        A named producer must cut at the same steps again after a resume: behind its last step, or
        before each checkpoint.
        """
        for name, _ in self._half_merged():
            await self.publisher.put(topics.gradients(name), self._outboxes[name].cut)

    def _half_merged(self) -> list[tuple[str, Merged]]:
        return [(name, half) for name, box in self._outboxes.items() if (half := box.half_merged) is not None]

    async def wait_for_op(self, shards: Mapping[str, int], asked: Requested, timeout: float) -> None:
        """Return once every shard has passed an op. Raises TimedOutError, and why it was refused."""
        await wait_for_op(self, shards, asked, timeout)
