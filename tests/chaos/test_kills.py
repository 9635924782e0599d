"""kill -9 of any part while events flow: work resumes by itself, nothing lost, nothing twice.

`DRIFTLINE_TESTS_KILLS=100` makes the long run longer: so many kills of a part chosen
at random, at random moments of the stream.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from driftline import Client
from driftline.servers import KafkaBroker, RedisServer
from tests.integration.deployment import KAFKA, LOCAL, Deployment, Worker
from tests.integration.traffic import Traffic, assert_nothing_lost_nothing_twice

KILLS = int(os.environ.get("DRIFTLINE_TESTS_KILLS", "3"))
PRODUCER = "the trainer"
ON_KAFKA = pytest.param(KAFKA, marks=pytest.mark.kafka)
BOTH = (LOCAL, ON_KAFKA)
pytestmark = pytest.mark.redis


@dataclass(frozen=True, slots=True)
class Parts:
    """A deployment all of whose servers are the test's own."""

    deployment: Deployment
    worker: Worker
    redis: RedisServer
    broker: KafkaBroker | None

    def kill_worker(self) -> None:
        self.worker.restart()

    def kill_redis(self) -> None:
        self.redis.kill()
        self.redis.start()

    def kill_broker(self) -> None:
        assert self.broker is not None, "only where there is one"
        self.broker.kill()
        self.broker.start()

    def kill_broker_and_worker(self) -> None:
        assert self.broker is not None, "only where there is one"
        self.broker.kill()
        self.worker.kill()
        self.broker.start()
        self.worker.start()

    def kill_redis_and_worker(self) -> None:
        self.redis.kill()
        self.worker.kill()
        self.worker.start()
        self.redis.start()

    @property
    def kinds(self) -> list[Callable[[], None]]:
        kinds = [self.kill_worker, self.kill_redis, self.kill_redis_and_worker]
        return kinds if self.broker is None else [*kinds, self.kill_broker, self.kill_broker_and_worker]


@pytest.fixture
def parts(
    request: pytest.FixtureRequest, tmp_path: Path, redis_factory: Callable[[], RedisServer]
) -> Iterator[Parts]:
    redis = redis_factory()
    broker: KafkaBroker | None = None
    log_url = f"local://{tmp_path}/log"
    if request.param == KAFKA:
        factory: Callable[[], KafkaBroker] = request.getfixturevalue("kafka_factory")
        broker = factory()
        log_url = broker.url
    deployment = Deployment(request.param, log_url, redis.url, tmp_path)
    # a name of its own: a supervised worker is back on its shards without waiting for its session to end
    with deployment.worker(instance_id="worker") as worker:
        yield Parts(deployment, worker, redis, broker)


@pytest.fixture
def client(parts: Parts) -> Iterator[Client]:
    with parts.deployment.client(producer=PRODUCER) as connected:
        yield connected


def survive(parts: Parts, client: Client, kills: list[Callable[[], None]], shards: int = 3) -> None:
    table = client.create_table(parts.deployment.spec(shards=shards))
    with Traffic(parts.deployment, table) as traffic:
        traffic.wait_until_applied()
        for kill in kills:
            kill()
            traffic.wait_until_applied()
    assert_nothing_lost_nothing_twice(parts.deployment, table, traffic.steps)


@pytest.mark.parametrize("parts", BOTH, indirect=True)
def test_kills_of_the_aggregator(parts: Parts, client: Client) -> None:
    survive(parts, client, [parts.kill_worker] * 2)


@pytest.mark.parametrize("parts", BOTH, indirect=True)
def test_kills_of_redis(parts: Parts, client: Client) -> None:
    survive(parts, client, [parts.kill_redis] * 3)


@pytest.mark.parametrize("parts", [ON_KAFKA], indirect=True)
def test_kills_of_the_broker(parts: Parts, client: Client) -> None:
    survive(parts, client, [parts.kill_broker] * 2)


@pytest.mark.parametrize("parts", BOTH, indirect=True)
def test_kills_of_the_trainer_that_goes_on_from_its_last_checkpoint(parts: Parts) -> None:
    deployment, spec = parts.deployment, parts.deployment.spec(shards=3)
    done = 0
    for _ in range(4):
        checkpoint = done * 2 // 3  # steps behind it are pushed again
        client = deployment.client(producer=PRODUCER)
        try:
            table = client.create_table(spec)
            with Traffic(deployment, table, first_step=checkpoint) as traffic:
                traffic.wait_for_steps(done - checkpoint + 40)
            done = traffic.steps
        finally:
            client.close()  # what is queued is lost with the trainer: its checkpoint is older
    with deployment.client(producer=PRODUCER) as last:
        table = last.table(spec.name)
        with Traffic(deployment, table, first_step=0) as traffic:  # and once more from the beginning
            traffic.wait_for_steps(done + 10)
        assert_nothing_lost_nothing_twice(deployment, table, traffic.steps)


@pytest.mark.slow
@pytest.mark.timeout(120 + 30 * KILLS)
@pytest.mark.parametrize("parts", BOTH, indirect=True)
def test_kills_of_parts_chosen_at_random(parts: Parts, client: Client) -> None:
    rng = random.Random(KILLS)
    survive(parts, client, [rng.choice(parts.kinds) for _ in range(KILLS)], shards=4)
