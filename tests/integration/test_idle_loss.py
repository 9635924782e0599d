from __future__ import annotations

from pathlib import Path

import numpy as np
import redis

import driftline
from driftline.config import load_settings
from driftline.ids import shard_of
from driftline.rows.layout import ShardKeys
from driftline.stack.local import LocalStack
from tests.integration.deployment import LOCAL, Deployment
from tests.support.waiting import until


def test_a_redis_emptied_while_nobody_trains_is_noticed_and_rebuilt(tmp_path: Path) -> None:
    flags = {"log_url": f"local://{tmp_path}", "data_dir": tmp_path, "http_port": 0}
    ids = np.arange(50, dtype=np.uint64)
    with LocalStack(load_settings(flags, cwd=tmp_path, environ={}).settings) as stack:
        at = stack.endpoints
        with driftline.Client(driftline.Options(at.log_url, at.redis_url, at.group, at.key)) as client:
            table = client.create_table(driftline.TableSpec("t", 4, shards=2))
            table.push(ids, np.ones((50, 4), np.float32))
            before = table.get(ids, read_your_writes=True)

            with redis.Redis.from_url(at.redis_url) as server:
                server.flushall()

            until(lambda: bool(table.get(ids).found.all()), "the rows are back")
            after = table.get(ids)
    np.testing.assert_array_equal(after.vectors, before.vectors)
    np.testing.assert_array_equal(after.lsn, before.lsn)


def test_separate_state_that_is_deleted_while_nobody_trains_stops_its_shard_until_it_is_rebuilt(
    tmp_path: Path, redis_url: str
) -> None:
    deployment = Deployment(LOCAL, f"local://{tmp_path}/log", redis_url, tmp_path)
    spec = deployment.spec(optimizer={"kind": "adam", "lr": 0.01})
    ids = np.arange(50, dtype=np.uint64)
    shard = int(shard_of(ids[:1], spec.shards)[0])
    keys = ShardKeys.of(spec.name, shard)
    with (
        deployment.worker() as worker,
        deployment.client() as client,
        redis.Redis.from_url(redis_url) as server,
    ):
        table = client.create_table(spec)
        table.push(ids, np.ones((50, 4), np.float32))
        table.wait_readable()

        server.delete(keys.state)

        stopped = f"shard {spec.name}:{shard} stopped: {keys.state.decode()} holds 0 rows"
        until(lambda: stopped in worker.log, "the shard stops", seconds=20)
        server.delete(keys.position, keys.values, keys.state)  # as the message says
        client.create_table(deployment.spec())  # a rebalance: every shard is taken over again
        until(lambda: deployment.audit(spec).ok, "the shard is as the log says", seconds=20)
