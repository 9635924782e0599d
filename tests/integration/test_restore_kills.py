"""Restores while aggregators are killed, shards move and Redis is a cluster: exact all the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from driftline import Client, TableSpec
from driftline.client.operations import Requested
from driftline.frames.events import PREPARE, RESTORE
from driftline.servers import RedisServer
from driftline.versions import Manifest
from tests.integration.deployment import LOCAL, Deployment, Worker
from tests.integration.test_restore import ADAM, image, train
from tests.integration.versions import cut_version
from tests.support.redis_variants import redis_cluster
from tests.support.waiting import until

pytestmark = pytest.mark.redis


def ask(client: Client, kind: str, body: dict[str, object]) -> Requested:
    operations = client.asynchronous.operations
    return client.run(operations.ask(kind, client.asynchronous.group, body))


def prepare(client: Client, version: str) -> int:
    return ask(client, PREPARE, {"version": version}).number


def swap(client: Client, spec: TableSpec, version: Manifest, prepared: int, epoch: int) -> int:
    body = {
        "version": version.version,
        "prepare": prepared,
        "from_epoch": {spec.name: epoch},
        "mode": "rollback",
    }
    return ask(client, RESTORE, body).number


def ready(deployment: Deployment, spec: TableSpec, op: int) -> bool:
    found = [deployment.position(spec, shard).get(b"ready") for shard in range(spec.shards)]
    return found == [b"%d" % op] * spec.shards


def passed(deployment: Deployment, spec: TableSpec, op: int, *, some: bool = False) -> bool:
    found = [int(deployment.position(spec, shard).get(b"op", b"0")) >= op for shard in range(spec.shards)]
    return any(found) if some else all(found)


@pytest.fixture
def supervised(own_deployment: Deployment) -> Iterator[Worker]:
    with own_deployment.worker(instance_id="worker") as worker:
        yield worker


def test_kills_of_the_aggregator_at_every_step_of_prepare_and_restore(
    own_deployment: Deployment, supervised: Worker
) -> None:
    deployment, worker = own_deployment, supervised
    with deployment.client() as client:
        spec = deployment.spec(shards=3, optimizer=ADAM)
        table = client.create_table(spec)
        train(table, 20)
        version = cut_version(deployment, client, [spec])
        at_the_barrier = image(deployment, spec)
        moments: list[Callable[[int, int], bool]] = [
            lambda prepared, restored: True,  # at once
            lambda prepared, restored: passed(deployment, spec, prepared, some=True),  # loading
            lambda prepared, restored: ready(deployment, spec, prepared),  # ready
            lambda prepared, restored: passed(deployment, spec, restored, some=True),  # swapped in somewhere
            lambda prepared, restored: passed(deployment, spec, restored),
        ]
        for epoch, moment in enumerate(moments):
            train(table, 5, seed=epoch + 2)
            prepared = prepare(client, version.version)
            restored = 1 << 40
            if epoch < 3:
                until(lambda: moment(prepared, restored), "the moment of the kill", seconds=30)  # noqa: B023
                worker.restart()
                until(lambda: ready(deployment, spec, prepared), "the successor loads it", seconds=60)  # noqa: B023
            else:
                until(lambda: ready(deployment, spec, prepared), "it is loaded", seconds=60)  # noqa: B023
            restored = swap(client, spec, version, prepared, epoch)
            if epoch >= 3:
                until(lambda: moment(prepared, restored), "the moment of the kill", seconds=30)  # noqa: B023
                worker.restart()
            until(lambda: passed(deployment, spec, restored), "it is restored", seconds=60)  # noqa: B023
            assert image(deployment, spec) == at_the_barrier
        assert deployment.audit(spec).ok


def test_kills_of_the_aggregator_at_any_moment_of_many_restores(
    own_deployment: Deployment, supervised: Worker
) -> None:
    deployment = own_deployment
    with deployment.client() as client:
        spec = deployment.spec(shards=3)
        table = client.create_table(spec)
        train(table, 10)
        version = cut_version(deployment, client, [spec])
        at_the_barrier = image(deployment, spec)
        rng, over = np.random.default_rng(4), threading.Event()

        def kill() -> None:
            while not over.wait(float(rng.uniform(0.1, 1.2)) + (3.0 if deployment.kind != LOCAL else 0.0)):
                supervised.restart()

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            for seed in range(4):
                train(table, 3, seed=seed)
                client.restore(version.version, timeout=100)
                assert image(deployment, spec) == at_the_barrier
        finally:
            over.set()
            killer.join()
        assert deployment.audit(spec).ok


def test_a_shard_that_moves_while_it_is_prepared_is_loaded_where_it_goes(
    tmp_path: Path, redis_factory: Callable[[], RedisServer]
) -> None:
    one, two = redis_factory(), redis_factory()
    url = f"a={one.url},b={two.url}"
    deployment = Deployment(LOCAL, f"local://{tmp_path}/log", url, tmp_path)
    with deployment.worker(), deployment.client() as client:
        spec = deployment.spec(shards=2, optimizer=ADAM)
        table = client.create_table(spec)
        train(table, 5)
        version = cut_version(deployment, client, [spec])
        at_the_barrier = image(deployment, spec)
        train(table, 5, seed=2)
        prepared = prepare(client, version.version)
        until(lambda: ready(deployment, spec, prepared), "it is loaded")
        home = client.home(spec.name, 0)
        target = "b" if home.startswith(one.url) else "a"
        moved = client.move_shard(spec.name, 0, target).number
        until(lambda: passed(deployment, spec, moved), "the shard has moved", seconds=30)
        until(lambda: ready(deployment, spec, prepared), "it is loaded at its new place", seconds=30)
        restored = swap(client, spec, version, prepared, 0)
        until(lambda: passed(deployment, spec, restored), "it is restored", seconds=30)
        assert image(deployment, spec) == at_the_barrier
        assert deployment.audit(spec).ok


@pytest.mark.slow
def test_a_restore_on_a_redis_cluster(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        deployment = Deployment(LOCAL, f"local://{tmp_path}/log", cluster.url, tmp_path)
        with deployment.worker(), deployment.client() as client:
            spec = deployment.spec(shards=6, optimizer=ADAM)
            table = client.create_table(spec)
            train(table, 5)
            version = cut_version(deployment, client, [spec])
            frozen = table.get(np.arange(120)).vectors
            train(table, 5, seed=2)
            client.deploy(version.version)
            client.restore(version.version)
            assert np.array_equal(table.get(np.arange(120), consistent="epoch").vectors, frozen)
            assert np.array_equal(table.get(np.arange(120), version=version.version).vectors, frozen)
            assert deployment.audit(spec).ok
