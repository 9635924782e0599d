from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import hiredis
import numpy as np
import pytest

from driftline import Policy, TableSpec, topics
from driftline.config import new_key
from driftline.errors import LogUnavailableError, PositionError
from driftline.frames.events import SPEC, Gradient, Origin, read_event, write_event
from driftline.frames.headers import Keyring
from driftline.ids import ingest_producer, shard_of
from driftline.log import Outgoing, Record
from driftline.log.local import LocalLog
from driftline.ops.catalogue import Catalogue
from driftline.ops.requests import Signer
from driftline.rows.connection import Reply
from driftline.rows.resp import Bytes
from driftline.shard.machine import Shard
from driftline.shard.screen import MAX_FRAME
from driftline_services.aggregator.ingest import IngestRouter
from driftline_services.aggregator.router import Router
from driftline_services.chassis import Batch
from tests.support.samples import f32, feed, rows_of, u64

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
        signer = Signer(GROUP, bytes(16), self.keyring)
        asked = signer.request(SPEC, spec.name, spec.to_json(), 0)
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


def test_the_default_group_has_the_documented_topic() -> None:
    assert topics.ingest("default") == "driftline.ingest"
    assert topics.ingest("films") == "films.ingest"
    assert topics.refused_ingest("default") == "driftline.ingest.dlq"


async def test_a_message_becomes_a_signed_frame_per_shard_numbered_by_its_offset(setting: Setting) -> None:
    rows = list(range(20))
    batch = await setting.send(
        gradient(1), {"table": "items", "ids": rows, "grads": [[1, 2]] * 20}, partition=1
    )
    await setting.router(incarnation=3).forward(batch)
    for shard in range(3):
        frame = (await setting.frames(shard))[-1]
        assert (frame.origin.producer, frame.origin.epoch, frame.origin.seq) == (ingest_producer(1), 3, 1)
        record = (await setting.records(topics.gradients("items"), shard))[-1]
        assert setting.keyring.verifies(record.value, record.headers)


async def test_partitions_are_different_producers(setting: Setting) -> None:
    assert ingest_producer(0) != ingest_producer(1)


async def test_the_position_moves_only_when_every_shard_has_acknowledged(setting: Setting) -> None:
    batch = await setting.send({"table": "items", "ids": list(range(20)), "grads": [[1, 2]] * 20})
    setting.log.gate = asyncio.Event()
    forwarding = asyncio.create_task(setting.router().forward(batch))
    async with asyncio.timeout(10):
        while not await setting.frames(0) or not await setting.frames(2):
            await asyncio.sleep(0.01)
    assert setting.redis.position(0) is None
    setting.log.gate.set()
    await forwarding
    assert setting.redis.position(0) == 1


async def test_frames_sent_again_keep_their_order(setting: Setting) -> None:
    setting.log.doubted = set()
    router = setting.router()
    for _ in range(2):
        await router.forward(await setting.send(*(gradient(row) for row in range(30))))
    for shard in range(3):
        seqs = [frame.origin.seq for frame in await setting.frames(shard)]
        fresh = list(dict.fromkeys(seqs))
        assert len(fresh) < len(seqs)  # the first batch stands there twice
        assert fresh == sorted(fresh)


async def test_bad_messages_become_dead_letters_and_the_others_are_forwarded(setting: Setting) -> None:
    router = setting.router()
    await router.forward(
        await setting.send(
            gradient(1), b"", gradient(2, table="nobody"), gradient(1), {"table": "items", "id": 5}
        )
    )
    assert await setting.letters() == [
        (b"0:1", b"undecodable"),
        (b"0:2", b"unknown_table"),
        (b"0:4", b"bad_message"),
    ]
    sent = [frame.origin.seq for shard in range(3) for frame in await setting.frames(shard)]
    assert sent == [0, 3]
    assert setting.redis.position(0) == 5
    assert router.refused == {"undecodable": 1, "unknown_table": 1, "bad_message": 1}
    assert router.forwarded[0] == 2


async def test_a_message_one_of_whose_frames_is_too_large_is_refused_whole(setting: Setting) -> None:
    rows = list(range(1000))
    await setting.router().forward(
        await setting.send({"table": "items", "ids": rows, "grads": [[1, 2]] * len(rows)})
    )
    assert await setting.letters() == [(b"0:0", b"oversized")]
    assert not any([await setting.frames(shard) for shard in range(3)])


async def test_a_table_made_before_the_message_was_sent_is_known(setting: Setting) -> None:
    router = setting.router()
    await router.forward(await setting.send(gradient(1)))
    await setting.make_table(TableSpec("later", 2, GROUP, shards=1))
    await router.forward(await setting.send(gradient(1, table="later")))
    assert [frame.origin.seq for frame in await setting.frames(0, "later")] == [1]


async def test_frames_wait_for_the_spec_of_a_table_that_is_just_being_made(setting: Setting) -> None:
    spec = TableSpec("young", 2, GROUP, shards=1)
    asked = Signer(GROUP, bytes(16), setting.keyring).request(SPEC, spec.name, spec.to_json(), 0)
    offset = await setting.log.append(topics.ops(GROUP), 0, [asked])
    forwarding = asyncio.create_task(setting.router().forward(await setting.send(gradient(1, "young"))))
    async with asyncio.timeout(10):
        while "young" not in setting.catalogue.tables:
            await asyncio.sleep(0.01)
        await setting.ops.forward((await setting.records(topics.ops(GROUP), 0))[offset])
        await forwarding
    assert len(await setting.frames(0, "young")) == 1
    assert not await setting.letters()


async def test_without_a_stored_position_forwarding_begins_at_the_begin_of_the_log(setting: Setting) -> None:
    await setting.send(gradient(1))
    assert await setting.router().start(0) == 0


async def test_a_router_goes_on_behind_what_is_acknowledged(setting: Setting) -> None:
    await setting.router().forward(await setting.send(gradient(1), gradient(2)))
    await setting.send(gradient(3))
    assert await setting.router().start(0) == 2
    assert await setting.router().start(1) == 0


async def make_anew(setting: Setting, tmp_path: Path, *messages: object) -> Setting:
    """Return the setting with an ingest topic that was deleted and made anew."""
    log = Doubtful(tmp_path / "anew")
    await log.start()
    await log.create_topic(topics.ops(GROUP), 1)
    await log.create_topic(TOPIC, 2)
    other = Setting(log)
    other.redis = setting.redis
    if messages:
        await other.send(*messages)
    return other


@pytest.mark.parametrize("held", [0, 1, 5])
async def test_a_topic_made_anew_stops_the_partition(setting: Setting, tmp_path: Path, held: int) -> None:
    await setting.router().forward(await setting.send(gradient(1), gradient(2)))
    anew = await make_anew(setting, tmp_path, *(gradient(row) for row in range(held)))
    router = anew.router()
    with pytest.raises(PositionError, match="raise ingest_incarnation to 1"):
        await router.start(0)
    assert 0 not in router.positions
    await anew.log.close()


async def test_a_raised_incarnation_takes_the_new_topic_from_its_begin(
    setting: Setting, tmp_path: Path
) -> None:
    await setting.router().forward(await setting.send(gradient(1), gradient(2)))
    anew = await make_anew(setting, tmp_path, gradient(1))
    assert await anew.router(incarnation=1).start(0) == 0
    await anew.log.close()


async def test_a_worker_with_an_older_incarnation_does_not_forward(setting: Setting) -> None:
    await setting.router(incarnation=1).forward(await setting.send(gradient(1)))
    with pytest.raises(PositionError, match="incarnation 1 has been forwarded"):
        await setting.router(incarnation=0).start(0)


async def test_messages_lost_to_retention_stop_the_partition(setting: Setting) -> None:
    await setting.router().forward(await setting.send(gradient(1)))
    await setting.send(gradient(2), gradient(3))
    await setting.log.trim(TOPIC, 0, 2)
    with pytest.raises(PositionError, match="removed 1 messages that were never forwarded"):
        await setting.router().start(0)


async def test_forwarded_messages_may_go_by_retention(setting: Setting) -> None:
    await setting.router().forward(await setting.send(gradient(1)))
    await setting.send(gradient(2), gradient(3))
    await setting.log.trim(TOPIC, 0, 1)
    assert await setting.router().start(0) == 1


async def test_a_damaged_position_is_not_taken_for_none(setting: Setting) -> None:
    await setting.router().forward(await setting.send(gradient(1)))
    next(iter(setting.redis.hashes.values()))[b"last"] = b"?"
    with pytest.raises(PositionError, match="damaged"):
        await setting.router().start(0)


async def test_a_partition_whose_producer_shards_would_forget_is_stopped(setting: Setting) -> None:
    with pytest.raises(PositionError, match="1024 ingest partitions"):
        await setting.router().start(1024)


async def test_letters_of_a_topic_made_anew_have_places_of_their_own(setting: Setting) -> None:
    batch = await setting.send(b"x")
    for incarnation in (0, 1):
        await setting.router(incarnation).forward(batch)
    assert [key for key, _ in await setting.letters()] == [b"0:0", b"2:0:0"]


async def test_frames_forwarded_again_long_after_change_nothing(setting: Setting) -> None:
    """The shard has seen nothing of the partition for ten times the ttl, and others train on."""
    message = {"table": "items", "id": 1, "grad": [1, 1]}
    batch = await setting.send(message)
    router = setting.router()
    await router.forward(batch)
    home = int(shard_of(np.array([1], np.uint64), 3)[0])
    shard = Shard("items", home, setting.keyring)
    ttl = ITEMS.policy.producer_ttl_ms
    (spec, first), time = (await setting.records(topics.gradients("items"), home))[:2], 1000
    feed(shard, [replace(spec, timestamp=time), replace(first, timestamp=time)])
    producer = ingest_producer(0)
    for n in range(10):
        time += ttl
        value = write_event(Gradient("items", home, Origin(b"t" * 16, 0, n), u64([]), f32([])))
        feed(shard, [Record(2 + n, time, None, value)])
        assert producer in shard.position.producers
    before = rows_of(shard)
    await setting.router().forward(batch)  # Redis came back empty: from the begin of the topic
    again = (await setting.records(topics.gradients("items"), home))[2]
    assert again.value == first.value
    plan = shard.screen([replace(again, offset=12, timestamp=time)])
    assert plan.counts == {"duplicate": 1}
    assert rows_of(shard) == before
