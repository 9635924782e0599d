"""A log that does not continue what Redis holds stops the shard, which names the remedy.

On the embedded log; tests/integration/test_kafka_positions.py does the same on Kafka.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from driftline import TableSpec, topics
from driftline.log import open_log
from driftline.log.local import store
from tests.integration.deployment import LOCAL, Deployment
from tests.support.waiting import until

pytestmark = pytest.mark.redis
REMEDY = "`driftline table relog"


@dataclass(frozen=True, slots=True)
class Scene:
    """A table that was trained, on a log that nobody reads now."""

    deployment: Deployment
    spec: TableSpec

    @property
    def root(self) -> Path:
        return Path(self.deployment.log_url.removeprefix("local://"))

    @property
    def topic(self) -> str:
        return topics.gradients(self.spec.name)

    def push(self, steps: int) -> None:
        with self.deployment.client() as client:
            table = client.table(self.spec.name)
            for _ in range(steps):
                table.push(np.arange(32, dtype=np.uint64), np.ones((32, self.spec.dim), np.float32), read={})

    def next(self, shard: int) -> int:
        return int(self.deployment.position(self.spec, shard)[b"next"])

    def partition(self, shard: int) -> Path:
        return self.root / "log" / self.topic / f"{shard}.sqlite"


@pytest.fixture
def scene(redis_url: str, tmp_path: Path) -> Scene:
    deployment = Deployment(LOCAL, f"local://{tmp_path}/log", redis_url, tmp_path)
    with deployment.worker("first"), deployment.client() as client:
        spec = client.create_table(deployment.spec(shards=2)).spec
        made = Scene(deployment, spec)
        table = client.table(spec.name)
        for _ in range(10):
            table.push(np.arange(32, dtype=np.uint64), np.ones((32, spec.dim), np.float32), read={})
        table.wait_readable()
    return made


def recreate(scene: Scene) -> None:
    """Delete the topic and make it anew; what is pushed then stands at offsets that were applied."""
    shutil.rmtree(scene.root / "log" / scene.topic)

    async def create() -> None:
        async with open_log(scene.deployment.log_url) as log:
            await log.create_topic(scene.topic, scene.spec.shards)

    asyncio.run(create())


def recreate_and_fill(scene: Scene) -> None:
    recreate(scene)
    scene.push(40)


def expire(scene: Scene) -> None:
    """Push what nobody reads, and have retention remove a part of it."""
    scene.push(10)
    for shard in range(scene.spec.shards):
        with closing(store.open_partition(scene.partition(shard))) as opened:
            store.trim(opened, scene.next(shard) + 5)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(recreate, "the log ends at 0", id="a recreated topic, empty"),
        pytest.param(recreate_and_fill, "is not the one that was applied", id="a recreated topic, longer"),
        pytest.param(expire, "were removed unapplied", id="retention past the position"),
    ],
)
def test_the_shard_stops_with_the_remedy_and_its_rows_stay(
    scene: Scene, damage: Callable[[Scene], None], words: str
) -> None:
    before = [scene.deployment.position(scene.spec, shard)[b"next"] for shard in range(scene.spec.shards)]
    damage(scene)
    with scene.deployment.worker("second") as worker:
        until(lambda: worker.log.count("stopped: ") == scene.spec.shards, "both shards stop", seconds=30)
        stopped = [line for line in worker.log.splitlines() if "stopped: " in line]
        assert all(words in line and REMEDY in line for line in stopped), stopped
        assert worker.process.alive
    after = [scene.deployment.position(scene.spec, shard)[b"next"] for shard in range(scene.spec.shards)]
    assert after == before


def test_a_log_that_lost_its_tail_behind_redis_stops_the_shard(scene: Scene) -> None:
    with closing(store.open_partition(scene.partition(0))) as opened:
        opened.execute("DELETE FROM log WHERE offset >= ?", (scene.next(0) - 3,))
        opened.commit()
    with scene.deployment.worker("second") as worker:
        until(lambda: "stopped: " in worker.log, "the shard stops", seconds=30)
        (line,) = (line for line in worker.log.splitlines() if "stopped: " in line)
        assert f"{scene.spec.name}:0" in line
        assert "the log lost its tail" in line
        assert REMEDY in line
