"""Redis Cluster: three masters with replicas, and a failover under load."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from driftline.rows.layout import ShardKeys
from tests.integration.deployment import LOCAL, Deployment, bits, pushed
from tests.integration.plain import PlainTable
from tests.integration.test_redis_servers import IDS, driftline, step, training
from tests.support.redis_variants import RedisCluster, redis_cluster
from tests.support.waiting import until

pytestmark = [pytest.mark.redis, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def clustered(cluster: RedisCluster, tmp_path: Path) -> Deployment:
    return Deployment(LOCAL, f"local://{tmp_path}/log", cluster.url, tmp_path)


def test_rows_are_spread_over_masters_and_equal_a_plain_loop(clustered: Deployment) -> None:
    spec = clustered.spec(shards=6)
    with clustered.worker(), clustered.client() as client:
        table, plain = client.create_table(spec), PlainTable(spec)
        rng = np.random.default_rng(4)
        for _ in range(25):
            step(table, plain, rng)
        assert np.array_equal(bits(pushed(table, IDS)), bits(plain.get(IDS)))
        client.snapshot()
        assert len({clustered.home(spec, shard) for shard in range(6)}) > 1
        assert "cluster" in driftline(clustered, "shards", "ls", spec.name)
    assert clustered.audit(spec).ok


def test_a_slot_that_moves_to_another_master_takes_its_shard_along(
    cluster: RedisCluster, clustered: Deployment
) -> None:
    spec = clustered.spec(shards=1)
    key = ShardKeys.of(spec.name, 0).position
    with clustered.worker(), clustered.client() as client:
        client.create_table(spec)
        with training(clustered, spec) as plain:
            source = cluster.master_of(clustered.home(spec, 0))
            others = (node for node in cluster.nodes if node is not source)
            target = next(node for node in others if node.client().info("replication")["role"] == "master")
            slot = source.tell("CLUSTER", "KEYSLOT", key)
            names = [node.tell("CLUSTER", "MYID") for node in (source, target)]
            target.tell("CLUSTER", "SETSLOT", slot, "IMPORTING", names[0])
            source.tell("CLUSTER", "SETSLOT", slot, "MIGRATING", names[1])
            keys = source.tell("CLUSTER", "GETKEYSINSLOT", slot, 100)
            assert isinstance(keys, list)
            source.tell("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            for node in (target, source):
                node.tell("CLUSTER", "SETSLOT", slot, "NODE", names[1])
            until(lambda: cluster.master_of(clustered.home(spec, 0)) is target, "the map shows the target")
            before = len(plain.ids())
            until(lambda: len(plain.ids()) > before or before == len(IDS), "training goes on", seconds=30)
        with clustered.client() as reader:
            assert np.array_equal(bits(reader.table(spec.name).get(IDS).vectors), bits(plain.get(IDS)))
    assert clustered.audit(spec).ok


def test_a_failover_under_load_loses_nothing(cluster: RedisCluster, clustered: Deployment) -> None:
    spec = clustered.spec(shards=4)
    with clustered.worker(), clustered.client() as client:
        client.create_table(spec)
        with training(clustered, spec) as plain:
            until(lambda: len(plain.ids()) > 100, "training has begun")
            dead = cluster.master_of(clustered.home(spec, 0))
            dead.kill()  # what its replica had not seen is lost in Redis, not in the log
            until(lambda: f":{dead.port}" not in clustered.home(spec, 0), "a replica took over", seconds=60)
            seen = len(plain.ids())
            until(lambda: len(plain.ids()) == len(IDS) or len(plain.ids()) > seen, "on it goes", seconds=60)
            dead.start()
        with clustered.client() as reader:
            assert np.array_equal(bits(reader.table(spec.name).get(IDS).vectors), bits(plain.get(IDS)))
    assert clustered.audit(spec).ok


def test_an_aggregator_killed_on_a_cluster_repeats_and_loses_nothing(clustered: Deployment) -> None:
    spec = clustered.spec(shards=6)
    with clustered.worker() as worker, clustered.client() as client:
        client.create_table(spec)
        with training(clustered, spec) as plain:
            for wanted in (40, 80, 120):
                until(functools.partial(_has_more_rows, plain, wanted), "training goes on", seconds=60)
                worker.restart()
        with clustered.client() as reader:
            assert np.array_equal(bits(reader.table(spec.name).get(IDS).vectors), bits(plain.get(IDS)))
    assert clustered.audit(spec).ok


def _has_more_rows(plain: PlainTable, than: int) -> bool:
    return len(plain.ids()) > than
