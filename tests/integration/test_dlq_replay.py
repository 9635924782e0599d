"""Replaying dead letters through the library, on both logs."""

from __future__ import annotations

import asyncio
import functools

import numpy as np

from driftline import Client, topics
from driftline.dlq import DeadLetters, Outcome, Place, Replayed, wait_for
from driftline.frames.events import Gradient, Origin, write_event
from driftline.ids import producer_id, shard_of
from driftline.log import Outgoing, open_log
from driftline.rows.connection import RedisConnection
from tests.integration.deployment import Deployment, pushed

IDS = np.arange(20, dtype=np.uint64)
MINE = IDS[shard_of(IDS, 2) == 1]


def test_a_frame_in_the_wrong_partition_is_replayed_to_the_right_one_and_applied_once(
    deployment: Deployment, client: Client
) -> None:
    spec = deployment.spec(optimizer={"kind": "sgd", "lr": 1.0}, scale=0.0)
    table = client.create_table(spec)
    ones = np.ones((len(MINE), spec.dim), np.float32)
    frame = write_event(Gradient(spec.name, 1, Origin(producer_id(), 0, 1), MINE, ones))
    offset = deployment.append(topics.gradients(spec.name), 0, Outgoing(frame))
    table.push(IDS, np.ones((len(IDS), spec.dim), np.float32))
    assert (pushed(table, MINE) == -1).all()

    async def replay() -> tuple[Outcome, ...]:
        connect = functools.partial(RedisConnection.open, deployment.redis_url)
        async with open_log(deployment.log_url) as log:
            dead = await DeadLetters.of(log, spec.name)
            (letter,) = await dead.letters(reason="wrong_shard")
            assert letter.place == Place(0, offset)
            (done,) = await dead.replay([letter.place])
            assert isinstance(done, Replayed)
            await log.append(topics.gradients(spec.name), 1, await published(deployment, spec.name, done))
            return tuple(await wait_for(dead, spec.name, [done], connect))

    (outcome,) = asyncio.run(replay())
    assert outcome.refused is None
    table.push(IDS, np.zeros((len(IDS), spec.dim), np.float32))
    assert (pushed(table, MINE) == -2).all(), (
        "the second copy, as of a replay that died before its mark, is a no-op"
    )
    assert deployment.audit(spec).ok


async def published(deployment: Deployment, table: str, done: Replayed) -> list[Outgoing]:
    """Return the record that a replay wrote, to be written once more."""
    async with open_log(deployment.log_url) as log:
        reader = log.reader(topics.gradients(table), done.again.partition, done.again.offset)
        try:
            record, *_ = await reader.read(wait=10.0)
        finally:
            await reader.close()
    return [Outgoing(record.value, record.key, record.headers)]
