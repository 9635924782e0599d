from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import numpy as np

import driftline
from driftline.config import load_settings
from driftline.log import open_log
from driftline.servers.redis import RedisServer
from driftline.stack.local import LocalStack
from tests.integration.commands import driftline as command


def stack(home: Path) -> LocalStack:
    flags = {"log_url": f"local://{home}", "data_dir": home, "http_port": 0}
    return LocalStack(load_settings(flags, cwd=home, environ={}).settings)


def client(running: LocalStack) -> driftline.Client:
    at = running.endpoints
    return driftline.Client(driftline.Options(at.log_url, at.redis_url, at.group, at.key))


def test_rows_go_on_over_a_log_that_was_made_anew_once_it_is_given_a_new_generation(tmp_path: Path) -> None:
    ids = np.arange(50, dtype=np.uint64)
    with stack(tmp_path) as running, client(running) as first:
        table = first.create_table(driftline.TableSpec("t", 4, shards=2))
        table.push(ids, np.ones((50, 4), np.float32))
        before = table.get(ids, read_your_writes=True)

    shutil.rmtree(tmp_path / "log" / "t.gradients")  # somebody deletes the topic

    asyncio.run(remake(tmp_path))
    with RedisServer(tmp_path / "redis") as redis:
        flags = ["--log-url", f"local://{tmp_path}", "--data-dir", str(tmp_path), "--redis-url", redis.url]
        done = command("table", "relog", "t", *flags, cwd=tmp_path)
        again = command("table", "relog", "t", *flags, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "generation 2" in done.stdout
    assert again.returncode != 0, "the log continues every shard now"
    with stack(tmp_path) as running, client(running) as second:
        table = second.table("t")
        np.testing.assert_array_equal(table.get(ids).vectors, before.vectors)
        table.push(ids, np.ones((50, 4), np.float32))
        after = table.get(ids, read_your_writes=True)
        assert (after.vectors < before.vectors).all()
        assert (after.lsn > before.lsn).all(), "log sequence numbers go on rising"


async def remake(home: Path) -> None:
    async with open_log(f"local://{home}") as log:
        await log.create_topic("t.gradients", 2)
