from __future__ import annotations

from pathlib import Path

import numpy as np
import redis

import driftline
from driftline.config import load_settings
from driftline.stack.local import LocalStack
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
