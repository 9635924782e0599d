"""A Redis that runs out of memory stops commits and loses nothing; one that evicts is refused."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from driftline.servers.local import HOST, free_ports
from tests.integration.deployment import LOCAL, Deployment, bits, pushed
from tests.integration.plain import PlainTable
from tests.support.redis_variants import TunedRedis
from tests.support.waiting import until

pytestmark = pytest.mark.redis


@pytest.fixture
def small(tmp_path: Path) -> Iterator[TunedRedis]:
    with TunedRedis(tmp_path / "redis", {}) as server:
        yield server


def reasons(port: int) -> list[str]:
    """Return the codes for which the worker is not ready."""
    try:
        urllib.request.urlopen(f"http://{HOST}:{port}/readyz", timeout=5).close()
    except urllib.error.HTTPError as error:
        return [each["code"] for each in json.load(error)["reasons"]]
    except OSError:
        return ["absent"]
    return []


def test_a_full_redis_is_named_and_everything_resumes_once_there_is_room(
    small: TunedRedis, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    deployment = Deployment(
        LOCAL, f"local://{tmp_path}/log", small.url, tmp_path, more={"DRIFTLINE_HTTP_PORT": str(port)}
    )
    spec = deployment.spec(dim=64, shards=2)
    plain = PlainTable(spec)
    with deployment.worker(), deployment.client() as client, small.client() as admin:
        table = client.create_table(spec)
        until(lambda: reasons(port) == [], "the worker is ready", seconds=30)
        admin.config_set("maxmemory", int(admin.info("memory")["used_memory"]) + 100_000)
        rng = np.random.default_rng(2)
        for begin in range(0, 3000, 500):
            ids = np.arange(begin, begin + 500, dtype=np.uint64)
            grads = rng.standard_normal((500, 64)).astype(np.float32)
            table.push(ids, grads)
            plain.push(ids, grads)
        until(lambda: "store_full" in reasons(port), "readiness names the full store", seconds=30)
        client.flush()  # the log still takes pushes
        table.push(ids, grads)
        plain.push(ids, grads)
        client.flush()
        admin.config_set("maxmemory", 0)
        found = pushed(table, plain.ids())
        assert np.array_equal(bits(found), bits(plain.get(plain.ids())))
        until(lambda: reasons(port) == [], "the worker is ready again", seconds=30)
    assert deployment.audit(spec).ok


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random", "volatile-lru"])
def test_a_redis_that_evicts_is_refused_with_the_setting_to_change(
    small: TunedRedis, tmp_path: Path, policy: str
) -> None:
    with small.client() as admin:
        admin.config_set("maxmemory", 100 << 20)
        admin.config_set("maxmemory-policy", policy)
    deployment = Deployment(LOCAL, f"local://{tmp_path}/log", small.url, tmp_path)
    with deployment.worker() as worker:
        assert not worker.process.wait_until(lambda: False, 60)
        assert f"maxmemory-policy {policy}" in worker.log
        assert "`maxmemory-policy noeviction`" in worker.log


def test_a_policy_without_a_limit_evicts_nothing_and_is_taken(small: TunedRedis, tmp_path: Path) -> None:
    with small.client() as admin:
        admin.config_set("maxmemory-policy", "allkeys-lru")
    deployment = Deployment(LOCAL, f"local://{tmp_path}/log", small.url, tmp_path)
    with deployment.worker(), deployment.client() as client:
        client.create_table(deployment.spec())
