from __future__ import annotations

import asyncio

from driftline import TableSpec, topics
from driftline.frames.events import SPEC
from driftline.ops.requests import request
from driftline_services.aggregator.ingest import ingest_producer
from tests.support.ingest_setting import GROUP, Setting, gradient, setting

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
    asked = request(SPEC, spec.name, spec.to_json(), bytes(16), setting.keyring)
    offset = await setting.log.append(topics.ops(GROUP), 0, [asked])
    forwarding = asyncio.create_task(setting.router().forward(await setting.send(gradient(1, "young"))))
    async with asyncio.timeout(10):
        while "young" not in setting.catalogue.tables:
            await asyncio.sleep(0.01)
        await setting.ops.forward((await setting.records(topics.ops(GROUP), 0))[offset])
        await forwarding
    assert len(await setting.frames(0, "young")) == 1
    assert not await setting.letters()
