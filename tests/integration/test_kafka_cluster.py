"""Three brokers, and the one that leads is killed: nothing is lost, nothing applied twice."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from driftline import topics
from driftline.servers import KafkaCluster
from driftline.servers.kafka import find_jars
from tests.integration.deployment import KAFKA, Deployment
from tests.integration.traffic import Traffic, assert_nothing_lost_nothing_twice
from tests.support import kafka_admin
from tests.support.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    with KafkaCluster(find_jars(), tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def deployment(cluster: KafkaCluster, redis_url: str, tmp_path: Path) -> Deployment:
    return Deployment(KAFKA, cluster.url, redis_url, tmp_path)


def _leads_another(cluster: KafkaCluster, topic: str, node: int) -> bool:
    return kafka_admin.leader(cluster.url, topic, 0) not in (-1, node)


def test_topics_have_as_many_replicas_as_the_brokers_say(deployment: Deployment) -> None:
    kafka_admin.create(deployment.log_url, "replicated", 2)
    assert kafka_admin.in_sync(deployment.log_url, "replicated") == 3


def test_the_leader_is_killed_while_a_trainer_pushes_and_an_aggregator_applies(
    cluster: KafkaCluster, deployment: Deployment
) -> None:
    spec = deployment.spec(shards=3)
    topic = topics.gradients(spec.name)
    with deployment.worker(), deployment.client() as client:
        table = client.create_table(spec)
        with Traffic(deployment, table) as traffic:
            for _ in range(2):
                traffic.wait_until_applied()
                node = kafka_admin.leader(cluster.url, topic, 0)
                cluster.broker(node).kill()
                until(partial(_leads_another, cluster, topic, node), "another broker leads", seconds=30)
                traffic.wait_until_applied()
                cluster.broker(node).start()
                until(lambda: kafka_admin.in_sync(cluster.url, topic) == 3, "it catches up", seconds=60)
        assert_nothing_lost_nothing_twice(deployment, table, traffic.steps)
