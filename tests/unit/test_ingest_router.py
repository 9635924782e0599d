from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from driftline import TableSpec, topics
from driftline.errors import PositionError
from driftline.frames.events import SPEC, Gradient, Origin, write_event
from driftline.ids import ingest_producer, shard_of
from driftline.log import Record
from driftline.ops.requests import Signer
from driftline.shard.machine import Shard
from tests.support.ingest_setting import GROUP, ITEMS, Setting, gradient, setting
from tests.support.samples import f32, feed, rows_of, u64

__all__ = ["setting"]  # a fixture


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
