"""A group with one table and an ingest router, on a log and a store of the test's own.

Invariant: the log may doubt what it did, once per shard, and the store knows two commands.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import hiredis
import pytest

from driftline import Policy, TableSpec, topics
from driftline.config import new_key
from driftline.errors import LogUnavailableError
from driftline.frames.events import SPEC, Gradient, read_event
from driftline.frames.headers import Keyring
from driftline.log import Outgoing, Record
from driftline.log.local import LocalLog
from driftline.ops.catalogue import Catalogue
from driftline.ops.requests import Signer
from driftline.rows.connection import Reply
from driftline.rows.resp import Bytes
from driftline.shard.screen import MAX_FRAME
from driftline_services.aggregator.ingest import IngestRouter
from driftline_services.aggregator.router import Router
from driftline_services.chassis import Batch

GROUP, TOPIC = "g", "g.ingest"


ITEMS = TableSpec("items", 2, GROUP, shards=3, policy=Policy(max_frame=4096))


class OneHash:
    """A Redis that knows HSET and HMGET of hashes."""

    def __init__(self) -> None:
        self.hashes: dict[bytes, dict[bytes, bytes]] = {}

    async def connect(self) -> OneHash:
        return self

    async def exchange(self, packed: Sequence[Bytes], replies: int) -> list[Reply]:
        parser = hiredis.Reader()
        parser.feed(b"".join(packed))
        name, key, *rest = parser.gets()
        stored = self.hashes.setdefault(key, {})
        if name == b"HMGET":
            return [[stored.get(field) for field in rest]]
        stored |= dict(zip(rest[::2], rest[1::2], strict=True))
        return [0]

    async def close(self) -> None:
        pass

    def position(self, partition: int) -> int | None:
        found = self.hashes.get(b"dl:{%s:%d}:w" % (TOPIC.encode(), partition), {}).get(b"next")
        return None if found is None else int(found)


class Doubtful(LocalLog):
    """A log whose first append to each shard happens, and is reported as of unknown outcome."""

    doubted: set[int] | None = None
    gate: asyncio.Event | None = None

    async def append(self, topic: str, partition: int, records: Sequence[Outgoing]) -> int:
        if self.gate is not None and topic == topics.gradients("items") and partition == 1:
            await self.gate.wait()
        offset = await super().append(topic, partition, records)
        if self.doubted is not None and topic.endswith(".gradients") and partition not in self.doubted:
            self.doubted.add(partition)
            raise LogUnavailableError("no answer")
        return offset


class Setting:
    """One group with the table `items`, on a log and a store of its own."""

    def __init__(self, log: Doubtful) -> None:
        self.log, self.redis, self.keyring = log, OneHash(), Keyring.parse(new_key())
        self.catalogue = Catalogue(log, GROUP, self.keyring)
        self.ops = Router(log, GROUP, self.keyring, self.catalogue.tables)

    def router(self, incarnation: int = 0) -> IngestRouter:
        return IngestRouter(
            GROUP, self.log, self.keyring, self.catalogue, lambda keys: self.redis.connect, incarnation
        )

    async def make_table(self, spec: TableSpec) -> None:
        asked = Signer(GROUP, bytes(16), self.keyring).request(SPEC, spec.name, spec.to_json(), 0)
        offset = await self.log.append(topics.ops(GROUP), 0, [asked])
        await self.ops.forward((await self.records(topics.ops(GROUP), 0))[offset])

    async def records(self, topic: str, partition: int) -> list[Record]:
        end = (await self.log.bounds(topic, partition)).end
        reader = self.log.reader(topic, partition, 0)
        found: list[Record] = []
        while len(found) < end:
            found += await reader.read()
        return found

    async def send(self, *messages: object, partition: int = 0) -> Batch:
        values = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in messages]
        first = await self.log.append(TOPIC, partition, [Outgoing(value) for value in values])
        records = (await self.records(TOPIC, partition))[first:]
        return Batch(TOPIC, partition, first, first + len(records), records)

    async def frames(self, shard: int, table: str = "items") -> list[Gradient]:
        events = [
            read_event(each.value, limit=MAX_FRAME)
            for each in await self.records(topics.gradients(table), shard)
        ]
        return [event for event in events if isinstance(event, Gradient)]

    async def letters(self) -> list[tuple[bytes | None, bytes]]:
        found = await self.records(topics.refused_ingest(GROUP), 0)
        return [(each.key, dict(each.headers)["dl-reason"]) for each in found]


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    async with Doubtful(tmp_path) as log:
        for topic, partitions in (
            (topics.ops(GROUP), 1),
            (topics.refused_ops(GROUP), 1),
            (topics.ingest(GROUP), 2),
            (topics.refused_ingest(GROUP), 1),
        ):
            await log.create_topic(topic, partitions)
        made = Setting(log)
        await made.make_table(ITEMS)
        yield made
        await made.catalogue.close()


def gradient(row: int, table: str = "items") -> dict[str, object]:
    return {"table": table, "id": row, "grad": [1, 2]}
