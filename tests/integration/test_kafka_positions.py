"""A log that does not continue the stored position: the shard stops, says why, and resets nothing.

The other shards and tables of the worker go on.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from driftline import TableSpec, topics
from driftline.errors import PartitionCountError
from driftline.frames.events import BARRIER
from driftline.ops.requests import Signer
from driftline.servers.local import free_ports
from tests.integration.deployment import KAFKA, Deployment, Floats, Worker, bits, pushed
from tests.support import kafka_admin
from tests.support.waiting import until

pytestmark = pytest.mark.kafka
IDS = np.arange(40, dtype=np.uint64)
STEPS = 12


@pytest.fixture
def deployment(kafka_url: str, redis_url: str, tmp_path: Path) -> Deployment:
    return Deployment(KAFKA, kafka_url, redis_url, tmp_path, http_port=free_ports(1)[0])


@dataclass(frozen=True, slots=True)
class Scene:
    """Two tables of two shards each that have been trained, and no worker."""

    deployment: Deployment
    hit: TableSpec  # the one whose log is tampered with
    other: TableSpec

    @property
    def topic(self) -> str:
        return topics.gradients(self.hit.name)


@pytest.fixture
def scene(deployment: Deployment) -> Scene:
    made = Scene(deployment, deployment.spec(), deployment.spec())
    with deployment.worker(), deployment.client() as client:
        for spec in (made.hit, made.other):
            table = client.create_table(spec)
            for _ in range(STEPS):
                table.push(IDS, np.ones((len(IDS), spec.dim), np.float32))
            table.wait_readable()
    return made


def push_behind_the_worker(deployment: Deployment, spec: TableSpec, steps: int = STEPS) -> None:
    with deployment.client() as client:
        table = client.table(spec.name)
        for _ in range(steps):
            table.push(IDS, np.ones((len(IDS), spec.dim), np.float32))


def readiness(deployment: Deployment) -> str:
    """Return what /readyz answers; empty while nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{deployment.http_port}/readyz", timeout=5.0) as reply:
            return str(json.loads(reply.read()))
    except urllib.error.HTTPError as refused:
        return str(json.loads(refused.read()))
    except OSError:
        return ""


def wait_for(worker: Worker, deployment: Deployment, *words: str) -> None:
    """Return once /readyz and the log say all of `words`; fail if the worker ends."""

    def told() -> bool:
        assert worker.process.alive, worker.log
        ready = readiness(deployment)
        return all(word in ready and word in worker.log for word in words)

    until(told, f"/readyz and the log say {words}", seconds=30)


def assert_still_served(deployment: Deployment, spec: TableSpec) -> None:
    with deployment.client() as client:
        table = client.table(spec.name)
        before = pushed(table, IDS)
        table.push(IDS, np.ones((len(IDS), spec.dim), np.float32))
        assert not np.array_equal(bits(pushed(table, IDS)), bits(before))


def rows(deployment: Deployment, spec: TableSpec) -> Floats:
    with deployment.client() as client:
        return client.table(spec.name).get(IDS).vectors


def test_a_shard_whose_position_retention_overtook_says_which_records_are_lost(scene: Scene) -> None:
    deployment = scene.deployment
    applied = deployment.position(scene.hit, 0)
    position = int(applied[b"next"])
    push_behind_the_worker(deployment, scene.hit)
    kafka_admin.expire(deployment.log_url, scene.topic, 0, position + 5)
    with deployment.worker() as worker:
        lost = f"records [{position}, {position + 5}) of {scene.topic}, 5 in all"
        wait_for(worker, deployment, f"shard {scene.hit.name}:0", lost, "relog")
        until(
            lambda: int(deployment.position(scene.hit, 1)[b"next"]) == deployment.end(scene.hit, 1),
            "the other shard of the table goes on",
            seconds=20,
        )
        assert_still_served(deployment, scene.other)
    assert deployment.position(scene.hit, 0)[b"next"] == applied[b"next"]


@pytest.mark.parametrize("refilled", [0, STEPS + 10], ids=["empty", "with other records"])
def test_shards_whose_topic_was_made_anew_stop_and_name_the_remedy(scene: Scene, refilled: int) -> None:
    deployment = scene.deployment
    before = rows(deployment, scene.hit)
    kafka_admin.recreate(deployment.log_url, scene.topic, scene.hit.shards)
    push_behind_the_worker(deployment, scene.hit, refilled)
    with deployment.worker() as worker:
        reason = "another log" if refilled else "the topic was made anew"
        wait_for(
            worker, deployment, *(f"shard {scene.hit.name}:{shard}" for shard in range(2)), reason, "relog"
        )
        assert_still_served(deployment, scene.other)
    assert np.array_equal(bits(rows(deployment, scene.hit)), bits(before))


def test_shards_whose_topic_has_another_number_of_partitions_stop(scene: Scene) -> None:
    deployment = scene.deployment
    kafka_admin.recreate(deployment.log_url, scene.topic, 1)
    with deployment.worker() as worker:
        wait_for(worker, deployment, f"{scene.topic} has 1 partitions, the table 2 shards")
        assert_still_served(deployment, scene.other)


@pytest.mark.parametrize("name", [topics.gradients, topics.updates, topics.dead_letters])
def test_a_table_whose_topic_exists_with_too_few_partitions_is_refused_by_name(
    deployment: Deployment, name: object
) -> None:
    assert callable(name)
    spec = deployment.spec()
    topic = name(spec.name)
    kafka_admin.create(deployment.log_url, topic, 1)
    with deployment.client() as client:
        with pytest.raises(PartitionCountError, match=f"{topic} exists with 1 partitions.*2 shards"):
            client.create_table(spec)
        assert spec.name not in client.tables()


def test_a_shard_whose_records_expire_before_it_has_read_them_stops_and_the_others_go_on(
    scene: Scene,
) -> None:
    deployment = scene.deployment
    with deployment.worker() as worker:
        until(lambda: "'ready'" in readiness(deployment), "the worker is ready", seconds=30)
        worker.freeze()
        push_behind_the_worker(deployment, scene.hit, 1)  # the answer to the fetch under way
        push_behind_the_worker(deployment, scene.hit)
        kept = deployment.end(scene.hit, 0) - 3
        kafka_admin.expire(deployment.log_url, scene.topic, 0, kept)
        worker.thaw()
        wait_for(worker, deployment, f", {kept}) of {scene.topic}", "were removed unapplied", "relog")
        assert_still_served(deployment, scene.other)
        until(
            lambda: int(deployment.position(scene.hit, 1)[b"next"]) == deployment.end(scene.hit, 1),
            "the other shard of the table goes on",
            seconds=20,
        )


def test_ops_pass_a_table_by_whose_topic_was_deleted_and_say_so(scene: Scene) -> None:
    deployment, ops = scene.deployment, topics.ops(scene.deployment.group)
    with deployment.worker() as worker:
        until(lambda: "'ready'" in readiness(deployment), "the worker is ready", seconds=30)
        kafka_admin.delete(deployment.log_url, scene.topic)
        signer = Signer(deployment.group, bytes(16), deployment.keyring)
        op = signer.request(BARRIER, deployment.group, {"kind": "version"}, 1)
        number = deployment.append(ops, 0, op) + 1
        wait_for(worker, deployment, f"topic {scene.topic} does not exist")
        until(
            lambda: all(int(deployment.position(scene.other, shard)[b"op"]) == number for shard in range(2)),
            "the other table has the op",
            seconds=30,
        )
        with deployment.client() as client:  # the next op is not held up either
            client.create_table(deployment.spec())
        letters = deployment.records(topics.refused_ops(deployment.group), 0)
        assert {letter.key for letter in letters} == {b"0:%d" % (number - 1)}  # again after a rebalance
        assert {dict(letter.headers)["dl-reason"] for letter in letters} == {b"no_topic"}
        kafka_admin.create(deployment.log_url, scene.topic, scene.hit.shards)
        until(lambda: "does not exist" not in readiness(deployment), "the topic is seen again", seconds=30)
