"""A Redis that comes back empty or behind: the log gives the same bits again."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from driftline.servers import RedisServer
from tests.integration.deployment import Deployment
from tests.integration.traffic import Traffic, assert_nothing_lost_nothing_twice


def emptied(server: RedisServer) -> None:
    shutil.rmtree(server.data_dir / "appendonlydir")


def cut(server: RedisServer) -> None:
    """Cut the tail off the append-only file, as a power cut does: the middle of a command at best."""
    (log,) = server.data_dir.glob("appendonlydir/*.incr.aof")
    size = log.stat().st_size
    with log.open("r+b") as file:
        file.truncate(size * 2 // 3 + 1)


@pytest.mark.parametrize("damage", [emptied, cut])
def test_rows_are_rebuilt_from_the_log_bit_for_bit(
    own_deployment: Deployment,
    redis_factory: Callable[[], RedisServer],
    damage: Callable[[RedisServer], None],
) -> None:
    server = redis_factory()
    deployment = own_deployment.with_redis(server.url)
    with deployment.worker(), deployment.client() as client:
        table = client.create_table(deployment.spec(shards=2))
        with Traffic(deployment, table) as traffic:
            traffic.wait_for_steps(100)
            traffic.wait_until_applied()
            before = int(deployment.position(table.spec, 0)[b"next"])
            server.kill()
            damage(server)
            server.start()
            assert int(deployment.position(table.spec, 0).get(b"next", b"0")) < before
            traffic.wait_until_applied()
        assert_nothing_lost_nothing_twice(deployment, table, traffic.steps)


def test_a_worker_that_starts_on_an_empty_redis_rebuilds_it(
    own_deployment: Deployment, redis_factory: Callable[[], RedisServer]
) -> None:
    first, second = (own_deployment.with_redis(redis_factory().url) for _ in range(2))
    with first.worker("one"), first.client() as client:
        spec = first.spec(shards=2)
        with Traffic(first, client.create_table(spec)) as before:
            before.wait_for_steps(60)
            before.wait_until_applied()
    with second.worker("two"), second.client(producer="another") as client:
        table = client.create_table(spec)  # waits until the shards know their spec again
        with Traffic(second, table, first_step=before.steps) as after:
            after.wait_until_applied()
        assert_nothing_lost_nothing_twice(second, table, after.steps)
