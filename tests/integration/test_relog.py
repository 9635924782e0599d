from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import numpy as np

import driftline
from driftline.config import load_settings
from driftline.dlq import DeadLetters, Place, Refused, Replayed
from driftline.frames.events import Gradient, Origin, write_event
from driftline.ids import producer_id, shard_of
from driftline.log import Outgoing, open_log
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
        (old,) = asyncio.run(refuse(tmp_path, 1))

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

        new = asyncio.run(refuse(tmp_path, old.offset - asyncio.run(end_of(tmp_path)) + 1))[-1]
        assert (new.partition, new.offset) == (old.partition, old.offset)
        assert (str(old), str(new)) == (f"0:{old.offset}", f"2:0:{old.offset}")
        before = table.get(ids, read_your_writes=True)
        outcomes = asyncio.run(replay(tmp_path, [old, new]))
        assert [type(each) for each in outcomes] == [Replayed, Replayed]
        second.snapshot()  # behind what was published again
        moved = ids[table.get(ids).lsn > before.lsn]
        assert moved.tolist() == ROWS.tolist(), "each frame was applied: neither took the other for itself"


_ALL = np.arange(50, dtype=np.uint64)
ROWS = _ALL[shard_of(_ALL, 2) == 1][:2]
"""Two rows of shard 1: the frame refused before the relog names the first, the one after it the second."""


async def refuse(home: Path, count: int) -> list[Place]:
    """Write `count` frames of shard 1 to the log of shard 0 and return where their letters are."""
    async with open_log(f"local://{home}") as log:
        dead = await DeadLetters.of(log, "t")
        known = len(await dead.letters())
        row = ROWS[1:] if known else ROWS[:1]
        for n in range(count):
            origin = Origin(producer_id(), 0, n)
            frame = write_event(Gradient("t", 1, origin, row, np.ones((1, 4), np.float32)))
            await log.append("t.gradients", 0, [Outgoing(frame)])
        async with asyncio.timeout(30):
            while len(await dead.letters()) < known + count:
                await asyncio.sleep(0.01)
        return [letter.place for letter in await dead.letters()][known:]


async def end_of(home: Path) -> int:
    async with open_log(f"local://{home}") as log:
        return (await log.bounds("t.gradients", 0)).end


async def replay(home: Path, places: list[Place]) -> list[Replayed | Refused]:
    async with open_log(f"local://{home}") as log:
        return list(await (await DeadLetters.of(log, "t")).replay(places))


async def remake(home: Path) -> None:
    async with open_log(f"local://{home}") as log:
        await log.create_topic("t.gradients", 2)
