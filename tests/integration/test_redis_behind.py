"""A Redis that comes back empty or behind: the log gives the same bits again."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np
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
    first, second = redis_factory(), redis_factory()
    with own_deployment.with_redis(first.url).client() as client:
        with own_deployment.with_redis(first.url).worker("one"):
            table = client.create_table(own_deployment.spec(shards=2))
            with Traffic(own_deployment.with_redis(first.url), table) as traffic:
                traffic.wait_for_steps(60)
            expected = table.get(np.arange(400, dtype=np.uint64), read_your_writes=True)
    moved = own_deployment.with_redis(second.url)
    with moved.worker("two"), moved.client(producer="reader") as client:
        client.create_table(table.spec)  # waits until the shards know their spec again
        with Traffic(moved, client.table(table.spec.name), first_step=traffic.steps) as more:
            more.wait_until_applied()
        found = client.table(table.spec.name)
        assert_nothing_lost_nothing_twice(moved, found, more.steps)
    assert expected.found.any()
