"""A whole deployment for tests: a log, Redis, aggregators as processes, and clients.

Invariant: what a test gets here is what a user gets: the public library, and
`python -m driftline_services.aggregator` configured by its environment. Groups and
tables have names of their own, so tests share servers without meeting.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import redis
from numpy.typing import NDArray

from driftline import Client, Init, Options, Policy, Table, TableSpec, topics
from driftline.audit import TableAudit, audit_table
from driftline.config import kafka_environment, new_key
from driftline.frames.events import Event, read_event
from driftline.frames.headers import Keyring
from driftline.frames.states import Marker, States, read_update
from driftline.log import KafkaSecurity, Outgoing, Record, open_log
from driftline.log.security import OPEN
from driftline.rows.layout import ShardKeys
from driftline.rows.servers import Servers
from driftline.servers.child import Child, Command, spawn
from driftline.shard.screen import MAX_FRAME
from driftline.versions import Repository
from driftline.versions.opening import open_group
from driftline.versions.source import StoredVersions

LOCAL, KAFKA = "local", "kafka"
AGGREGATOR = "driftline_services.aggregator"
_numbers = itertools.count()

Ids = NDArray[np.uint64]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Deployment:
    """One group of tables on one log and one Redis; `kind` is LOCAL or KAFKA."""

    kind: str
    log_url: str
    redis_url: str
    directory: Path  # of this test's processes
    group: str = field(default_factory=lambda: f"g-{secrets.token_hex(4)}")
    key: str = field(default_factory=new_key)
    session_timeout: float = 3.0
    more: Mapping[str, str] = field(default_factory=dict)  # further environment of its workers
    security: KafkaSecurity = OPEN
    http_port: int = 0  # of the workers' health checks; none

    @property
    def store_url(self) -> str:
        """The version store of this deployment's groups."""
        return f"file://{self.directory}/versions"

    @property
    def repository(self) -> Repository:
        """The versions of the group, opened anew."""
        return open_group(self.store_url, self.group, self.directory / "test")

    @property
    def keyring(self) -> Keyring:
        return Keyring.parse(self.key)

    def options(
        self,
        *,
        producer: str | None = None,
        epoch: int = 0,
        gradient_dtype: str = "F32",
        merge_steps: int = 1,
    ) -> Options:
        return Options(
            self.log_url,
            self.redis_url,
            self.group,
            self.key,
            producer,
            epoch,
            gradient_dtype=gradient_dtype,
            security=self.security,
            store_url=self.store_url,
            data_dir=self.directory / "client",
            merge_steps=merge_steps,
        )

    def client(
        self,
        *,
        producer: str | None = None,
        epoch: int = 0,
        gradient_dtype: str = "F32",
        merge_steps: int = 1,
    ) -> Client:
        return Client(
            self.options(
                producer=producer, epoch=epoch, gradient_dtype=gradient_dtype, merge_steps=merge_steps
            )
        )

    def spec(
        self,
        *,
        dim: int = 4,
        shards: int = 2,
        optimizer: Mapping[str, object] | None = None,
        seed: int = 7,
        scale: float = 0.1,
        policy: Policy | None = None,
    ) -> TableSpec:
        """Return the spec of a table that no other test uses."""
        rule = {"kind": "rowwise_adagrad", "lr": 0.05} if optimizer is None else optimizer
        name = f"t{next(_numbers)}-{secrets.token_hex(4)}"
        bounds = policy or Policy()
        return TableSpec(
            name, dim, self.group, shards, rule, Init(seed, scale), bounds, frame_bytes=bounds.max_frame
        )

    @contextmanager
    def worker(
        self, name: str = "worker", *, instance_id: str | None = None, module: str = AGGREGATOR
    ) -> Iterator[Worker]:
        """Run an aggregator while inside."""
        worker = Worker(self, name, instance_id, module)
        worker.start()
        try:
            yield worker
        finally:
            worker.end()

    def environment(self) -> dict[str, str]:
        """Return the settings of this deployment as environment variables."""
        return {
            "DRIFTLINE_LOG_URL": self.log_url,
            "DRIFTLINE_REDIS_URL": self.redis_url,
            "DRIFTLINE_GROUP": self.group,
            "DRIFTLINE_KEY": self.key,
            "DRIFTLINE_STORE_URL": self.store_url,
            "DRIFTLINE_HTTP_PORT": str(self.http_port),
            "DRIFTLINE_SESSION_TIMEOUT_S": str(self.session_timeout),
            "OPENBLAS_NUM_THREADS": "1",
            **kafka_environment(self.security),
            **self.more,
        }

    def audit(self, spec: TableSpec) -> TableAudit:
        """Replay the table's log and compare it with Redis."""

        async def run() -> TableAudit:
            servers = Servers.at(self.redis_url)
            async with open_log(self.log_url, self.security) as log:
                versions = StoredVersions(lambda: self.repository)
                return await audit_table(
                    log, servers, self.keyring, spec.name, spec.shards, versions=versions
                )

        return asyncio.run(run())

    def records(self, topic: str, partition: int) -> list[Record]:
        """Return everything that a partition holds now."""

        async def run() -> list[Record]:
            async with open_log(self.log_url, self.security) as log:
                bounds = await log.bounds(topic, partition)
                reader = log.reader(topic, partition, bounds.begin)
                found: list[Record] = []
                try:
                    while reader.position < bounds.end:
                        found += await reader.read(wait=5.0)
                finally:
                    await reader.close()
                return found

        return asyncio.run(run())

    def end(self, spec: TableSpec, shard: int) -> int:
        """Return the offset behind the last record of a shard's gradients log."""

        async def run() -> int:
            async with open_log(self.log_url, self.security) as log:
                return (await log.bounds(topics.gradients(spec.name), shard)).end

        return asyncio.run(run())

    def append(self, topic: str, partition: int, *records: Outgoing) -> int:
        """Write records straight to the log, as a producer that does not use the client would."""

        async def run() -> int:
            async with open_log(self.log_url, self.security) as log:
                return await log.append(topic, partition, records)

        return asyncio.run(run())

    def events(self, spec: TableSpec, shard: int) -> list[Event]:
        """Return what the gradients log of a shard holds; every record must be a frame."""
        found = self.records(topics.gradients(spec.name), shard)
        return [read_event(record.value, limit=MAX_FRAME) for record in found]

    def dead_letters(self, spec: TableSpec, shard: int) -> list[Record]:
        return self.records(topics.dead_letters(spec.name), shard)

    def updates(self, spec: TableSpec, shard: int) -> list[States | Marker]:
        found = self.records(topics.updates(spec.name), shard)
        return [read_update(record.value, limit=MAX_FRAME) for record in found]

    def position(self, spec: TableSpec, shard: int) -> dict[bytes, bytes]:
        """Return `w` of a shard as Redis holds it."""
        with redis.Redis.from_url(self.home(spec, shard)) as client:
            found = client.hgetall(ShardKeys.of(spec.name, shard).position)
        assert isinstance(found, dict)
        return found

    def with_session_timeout(self, seconds: float) -> Deployment:
        """Return this deployment with workers that may be silent for `seconds`."""
        return replace(self, session_timeout=seconds)

    def home(self, spec: TableSpec, shard: int) -> str:
        """Return the URL of the Redis process that holds a shard."""
        return asyncio.run(Servers.at(self.redis_url).locate(spec.name, [shard]))[shard]

    def with_redis(self, url: str) -> Deployment:
        """Return this deployment with its Redis reached by another way."""
        return replace(self, redis_url=url)

    def owners(self, spec: TableSpec) -> set[bytes]:
        """Return the workers that own shards of the table."""
        stored = (self.position(spec, shard).get(b"owner", b"") for shard in range(spec.shards))
        return {owner.partition(b":")[0] for owner in stored if owner}


class Worker:
    """An aggregator process: killed, frozen, started again."""

    def __init__(
        self, deployment: Deployment, name: str, instance_id: str | None, module: str = AGGREGATOR
    ) -> None:
        self._directory, self._module = deployment.directory / name, module
        self._environment = deployment.environment() | {"DRIFTLINE_DATA_DIR": str(self._directory)}
        if instance_id is not None:
            self._environment["DRIFTLINE_INSTANCE_ID"] = instance_id
        self._child: Child | None = None

    def start(self) -> None:
        arguments = [sys.executable, "-m", self._module]
        self._child = spawn("aggregator", Command(arguments, self._environment), self._directory)

    @property
    def process(self) -> Child:
        assert self._child is not None, "started by whoever made it"
        return self._child

    @property
    def log(self) -> str:
        """What all processes of this name have written."""
        return (self._directory / "server.log").read_text()

    @property
    def died(self) -> bool:
        """Whether it was killed by SIGKILL. Raises AssertionError where it ended in another way."""
        status = self.process.exit_status
        assert status in (None, -signal.SIGKILL), f"it ended with {status}: {self.log[-2000:]}"
        return status is not None

    def kill(self) -> None:
        """SIGKILL, and start nothing."""
        self.process.kill()

    def freeze(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def restart(self) -> None:
        """SIGKILL and start again, as a supervisor would."""
        self.kill()
        self.start()

    def end(self) -> None:
        if self._child is not None and self._child.alive:
            self.thaw()
            self._child.stop(20.0)


def bits(rows: Floats) -> NDArray[np.uint32]:
    """Return float32 as the bits they are: -0 is not 0, and every NaN is itself."""
    return np.ascontiguousarray(rows, np.float32).view(np.uint32)


def pushed(table: Table, ids: Ids) -> Floats:
    """Return the rows of `ids`, including all that this client pushed."""
    return table.get(ids, read_your_writes=True).vectors
