"""JSON through the ingest topic: applied exactly once, whatever becomes of the router."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import redis

from driftline import Client, Policy, TableSpec, topics
from driftline.frames.events import Gradient, read_event
from driftline.frames.tensors import decode
from driftline.ids import producer_id
from driftline.log import Outgoing, open_log
from driftline.rows.layout import ShardKeys
from driftline.shard.screen import MAX_FRAME
from tests.integration.deployment import Deployment, Worker, bits, pushed
from tests.integration.ingesting import wait_applied
from tests.integration.plain import PlainTable
from tests.support.waiting import until

PARTITIONS = 4
IDS = np.arange(64, dtype=np.uint64)
MESSAGES = 1200


class Stream:
    """JSON messages, and the plain loop over the same gradients.

    An id keeps to one partition: only so is the order of its gradients known.
    """

    def __init__(self, deployment: Deployment, spec: TableSpec) -> None:
        self.topic, self.spec, self.plain = topics.ingest(deployment.group), spec, PlainTable(spec)
        self._rng = np.random.default_rng(3)

    def message(self, partition: int) -> Outgoing:
        ids = self._rng.choice(IDS[partition == IDS % PARTITIONS], 6)  # with duplicates
        grads = self._rng.standard_normal((len(ids), self.spec.dim)).astype(np.float32)
        self.plain.push(ids, grads)
        body = {"table": self.spec.name, "ids": ids.tolist(), "grads": grads.tolist()}
        return Outgoing(json.dumps(body).encode(), key=b"any")


async def send(log_url: str, stream: Stream, progress: Sequence[asyncio.Event]) -> None:
    """Send everything, in one stream per partition; `progress` tells when another part of it is out."""
    async with open_log(log_url) as log:
        for count in range(MESSAGES // PARTITIONS):
            for partition in range(PARTITIONS):
                await log.append(stream.topic, partition, [stream.message(partition)])
            part = (count + 1) * (len(progress) + 1) * PARTITIONS // MESSAGES
            for event in progress[:part]:
                event.set()


@pytest.mark.slow
def test_killing_the_router_again_and_again_loses_nothing_and_repeats_nothing(
    own_deployment: Deployment,
) -> None:
    deployment = own_deployment
    spec = deployment.spec(dim=4, shards=3, optimizer={"kind": "adam", "lr": 0.05})
    stream = Stream(deployment, spec)
    with deployment.worker() as worker, deployment.client() as client:
        client.create_table(spec)

        async def run() -> None:
            kills = [asyncio.Event() for _ in range(3)]
            sending = asyncio.create_task(send(deployment.log_url, stream, kills))
            for kill in kills:
                await kill.wait()
                await asyncio.to_thread(worker.restart)
            await sending

        asyncio.run(run())
        wait_applied(deployment, client)
        table = client.table(spec.name)
        assert np.array_equal(bits(table.get(IDS).vectors), bits(stream.plain.get(IDS)))
        assert deployment.audit(spec).ok
        assert not deployment.records(topics.refused_ingest(deployment.group), 0)


def test_messages_forwarded_a_second_time_change_nothing(own_deployment: Deployment) -> None:
    deployment = own_deployment
    spec = deployment.spec()
    stream = Stream(deployment, spec)
    with deployment.client() as client:
        with deployment.worker():
            client.create_table(spec)
            deployment.append(stream.topic, 1, *(stream.message(1) for _ in range(20)))
            wait_applied(deployment, client)
        with redis.Redis.from_url(deployment.redis_url) as store:  # as if it had died just before writing it
            store.delete(ShardKeys.of(stream.topic, 1).position)
        with deployment.worker():
            wait_applied(deployment, client)
            table = client.table(spec.name)
            assert np.array_equal(bits(table.get(IDS).vectors), bits(stream.plain.get(IDS)))
    seqs = [
        event.origin.seq
        for record in deployment.records(topics.gradients(spec.name), 0)
        if isinstance(event := read_event(record.value, limit=MAX_FRAME), Gradient)
        and event.origin.producer == producer_id("ingest:1")
    ]
    assert max(Counter(seqs).values()) == 2


def test_messages_forwarded_again_long_after_into_an_empty_redis_change_nothing(
    own_deployment: Deployment,
) -> None:
    deployment = own_deployment
    spec = deployment.spec(policy=Policy(producer_ttl_ms=1000))
    stream, others = Stream(deployment, spec), np.arange(1000, 1064, dtype=np.uint64)
    with deployment.client() as client:
        with deployment.worker():
            table = client.create_table(spec)
            deployment.append(stream.topic, 1, *(stream.message(1) for _ in range(20)))
            wait_applied(deployment, client)

            def silent() -> bool:
                """Train on; tell whether the ingest partition has been silent for longer than the ttl."""
                table.push(others, np.ones((64, 4), np.float32))
                client.flush()
                return all(_silence(deployment, spec, shard) > 2000 for shard in range(spec.shards))

            until(silent, "log time has gone on", seconds=30)
            before = pushed(table, others)
        with redis.Redis.from_url(deployment.redis_url) as store:
            for name in (spec.name, stream.topic):
                store.delete(*store.scan_iter(f"dl:{{{name}:*"))
        with deployment.worker():
            wait_applied(deployment, client)
            assert np.array_equal(bits(table.get(IDS).vectors), bits(stream.plain.get(IDS)))
            assert np.array_equal(bits(table.get(others).vectors), bits(before))
        assert deployment.audit(spec).ok


def _silence(deployment: Deployment, spec: TableSpec, shard: int) -> int:
    """Return the log time since the shard's first frame of ingest partition 1, in milliseconds."""
    sent = [
        record.timestamp
        for record in deployment.records(topics.gradients(spec.name), shard)
        if decode(record.value, limit=MAX_FRAME).metadata["producer"] == producer_id("ingest:1").hex()
    ]
    return int(deployment.position(spec, shard)[b"time"]) - max(sent)


def test_bad_messages_are_kept_with_their_reason_and_the_others_applied(
    deployment: Deployment, worker: Worker, client: Client
) -> None:
    spec = deployment.spec(dim=2, optimizer={"kind": "sgd", "lr": 1.0}, scale=0.0)
    client.create_table(spec)
    topic = topics.ingest(deployment.group)

    def message(**body: object) -> Outgoing:
        return Outgoing(json.dumps({"table": spec.name} | body).encode(), b"key", (("trace", b"7"),))

    first = deployment.append(
        topic,
        2,
        message(id=1, grad=[1, 2]),
        Outgoing(b"not JSON", b"key", (("trace", b"7"),)),
        message(id=1, grad=[1, 2, 3]),
        message(type="delete", ids=[1]),
        message(table="nobody", id=1, grad=[1, 2]),
        message(type="upsert", ids=[5, "18446744073709551615"], rows=[[1, 2], [3, 4]]),
    )
    wait_applied(deployment, client)
    table = client.table(spec.name)
    ids = np.array([1, 5, 2**64 - 1], np.uint64)
    assert table.get(ids).vectors.tolist() == [[-1, -2], [1, 2], [3, 4]]
    letters = deployment.records(topics.refused_ingest(deployment.group), 0)
    reasons = {each.key: dict(each.headers)["dl-reason"] for each in letters}
    assert reasons == {
        f"2:{first + 1}".encode(): b"undecodable",
        f"2:{first + 2}".encode(): b"wrong_dim",
        f"2:{first + 3}".encode(): b"unsupported",
        f"2:{first + 4}".encode(): b"unknown_table",
    }
    assert letters[0].value == b"not JSON"
    assert dict(letters[0].headers)["dl-original-trace"] == b"7"
