"""A table whose Redis is empty begins again with a version: exactly where the log still has the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import redis

from driftline import TableSpec, topics
from driftline.frames.states import RELOG, Marker
from driftline.log import open_log
from driftline.log.local import LocalLog
from driftline.rows.layout import ShardKeys
from driftline.servers import RedisServer
from driftline.versions import Manifest, fsck
from tests.integration.commands import driftline as command
from tests.integration.deployment import LOCAL, Deployment, Ids, pushed
from tests.integration.versioning import VersionerProcess, stored_rows
from tests.integration.versions import cut_version
from tests.support import kafka_admin
from tests.support.waiting import until

IDS: Ids = np.arange(60, dtype=np.uint64)
ADAM = {"kind": "adam", "lr": 0.01}
_NOT_FROM_LOG = {b"owner", b"published"}
Image = list[tuple[Mapping[bytes, bytes], Mapping[bytes, bytes], Mapping[bytes, bytes]]]


@dataclass(frozen=True, slots=True)
class Scene:
    """A table that was trained, cut, trained on and lost by Redis; no worker runs."""

    deployment: Deployment
    spec: TableSpec
    older: Manifest
    version: Manifest
    before: Image  # as Redis held it before it was lost
    cut_at: list[int]  # offsets at which the version was cut, by shard
    ends: list[int]

    @property
    def topic(self) -> str:
        return topics.gradients(self.spec.name)

    def expire(self, shard: int, before: int) -> None:
        expire(self.deployment, self.topic, shard, before)

    def relog(self, *more: str) -> str:
        done = relog(self.deployment, self.spec, *more)
        assert done[0] == 0, done[1]
        return done[1]


def image(deployment: Deployment, spec: TableSpec) -> Image:
    found: Image = []
    with redis.Redis.from_url(deployment.redis_url) as server:
        for shard in range(spec.shards):
            keys = ShardKeys.of(spec.name, shard)
            position = server.hgetall(keys.position)
            assert isinstance(position, dict)
            from_log = {name: value for name, value in position.items() if name not in _NOT_FROM_LOG}
            found.append((server.hgetall(keys.values), server.hgetall(keys.state), from_log))
    return found


def expire(deployment: Deployment, topic: str, shard: int, before: int) -> None:
    """Remove the records below `before`, as retention does."""
    if deployment.kind != LOCAL:
        kafka_admin.expire(deployment.log_url, topic, shard, before)
        return

    async def run() -> None:
        async with open_log(deployment.log_url) as log:
            assert isinstance(log, LocalLog)
            await log.trim(topic, shard, before)

    asyncio.run(run())


def relog(deployment: Deployment, spec: TableSpec, *more: str) -> tuple[int, str]:
    directory = deployment.directory
    done = command("table", "relog", spec.name, *more, cwd=directory, settings=deployment.environment())
    return done.returncode, done.stdout + done.stderr


def train(deployment: Deployment, spec: TableSpec, steps: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    with deployment.client() as client:
        table = client.table(spec.name)
        for _ in range(steps):
            ids = np.unique(rng.choice(IDS, 30))
            table.push(ids, rng.normal(size=(len(ids), spec.dim)).astype(np.float32))
        table.delete(rng.choice(IDS, 3))
        table.flush()


def applied(deployment: Deployment, spec: TableSpec) -> bool:
    return all(
        int(deployment.position(spec, shard).get(b"next", b"0")) == deployment.end(spec, shard)
        for shard in range(spec.shards)
    )


def wait_until_applied(deployment: Deployment, spec: TableSpec) -> None:
    until(lambda: applied(deployment, spec), "every record is applied", seconds=60)


def wipe(deployment: Deployment) -> None:
    with redis.Redis.from_url(deployment.redis_url) as server:
        server.flushall()


@pytest.fixture
def scene(own_deployment: Deployment, redis_factory: Callable[[], RedisServer]) -> Scene:
    deployment = own_deployment.with_redis(redis_factory().url)
    spec = deployment.spec(optimizer=ADAM)
    with deployment.worker(), deployment.client() as client:
        client.create_table(spec)
        train(deployment, spec, 5, 1)
        older = cut_version(deployment, client, [spec])
        train(deployment, spec, 5, 6)
        version = cut_version(deployment, client, [spec])
        train(deployment, spec, 10, 2)
        wait_until_applied(deployment, spec)
    before = image(deployment, spec)
    wipe(deployment)
    parts = version.tables[spec.name].parts
    cut_at = [part.place.number("next") for part in parts]
    ends = [deployment.end(spec, shard) for shard in range(spec.shards)]
    return Scene(deployment, spec, older, version, before, cut_at, ends)


def test_a_version_and_the_log_behind_it_give_the_run_without_loss(scene: Scene) -> None:
    deployment, spec = scene.deployment, scene.spec
    for shard, cut in enumerate(scene.cut_at):
        scene.expire(shard, cut - 2 * shard)  # of one shard right up to the version
    with deployment.worker("refused") as worker:
        named = f"`driftline table relog {spec.name} --from {scene.version.version}` begins with that version"
        until(lambda: worker.log.count(named) >= spec.shards, "every shard names the version", seconds=40)
        assert "replay from it loses nothing" in worker.log
    told = scene.relog("--from", "latest")
    assert told.count("nothing is lost") == spec.shards
    with deployment.worker("again"):
        wait_until_applied(deployment, spec)
    assert image(deployment, spec) == scene.before
    assert not [
        each for each in deployment.updates(spec, 0) if isinstance(each, Marker) and each.kind == RELOG
    ]


def test_the_audit_agrees_where_the_log_still_begins_at_the_beginning(scene: Scene) -> None:
    deployment, spec = scene.deployment, scene.spec
    scene.relog("--from", scene.version.version)
    with deployment.worker("again"):
        train(deployment, spec, 5, 3)
        wait_until_applied(deployment, spec)
        audit = deployment.audit(spec)
    assert audit.ok, [difference for shard in audit.shards for difference in shard.differences]


def test_records_that_are_lost_are_named_asked_for_and_given_up(scene: Scene) -> None:
    deployment, spec = scene.deployment, scene.spec
    scene.expire(0, scene.cut_at[0] + 4)  # shard 1 has everything
    lost = f"records [{scene.cut_at[0]}, {scene.cut_at[0] + 4}) of {scene.topic}, 4 in all"
    with deployment.worker("refused") as worker:
        until(lambda: f"lost are {lost}" in worker.log, "the shard says what is lost", seconds=40)
    wipe(deployment)  # what the worker rebuilt of shard 1
    status, told = relog(deployment, spec, "--from", "latest")
    assert (status != 0, lost in told) == (True, True)
    assert image(deployment, spec)[0][0] == {}, "nothing was changed"
    scene.relog("--from", "latest", "--yes")
    kept = set(stored_rows(deployment.repository, scene.version, spec.name))
    stored = {int.from_bytes(row, "little") for values, _, _ in image(deployment, spec) for row in values}
    assert stored == kept
    with deployment.worker("again"):
        wait_until_applied(deployment, spec)
        train(deployment, spec, 3, 4)
        wait_until_applied(deployment, spec)
        with deployment.client() as client:
            pushed(client.table(spec.name), IDS)
    assert [deployment.position(spec, shard)[b"gen"] for shard in range(2)] == [b"2", b"1"]
    audit = deployment.audit(spec)
    assert audit.ok, [(shard.reason, shard.differences) for shard in audit.shards]
    begun = (
        f"version {scene.version.version}, offset {scene.cut_at[0] + 4} of generation 2, where a relog put it"
    )
    assert [shard.start for shard in audit.shards] == [begun, None]
    again = relog(deployment, spec, "--from", "latest", "--yes")
    assert again[0] != 0
    assert "continues every shard" in again[1]


def test_the_next_version_holds_what_redis_holds(scene: Scene) -> None:
    """Begun from a version that is not the newest: the line goes on, its shards on older rows."""
    deployment, spec = scene.deployment, scene.spec
    for shard in range(spec.shards):
        scene.expire(shard, scene.ends[shard] - 2)
    scene.relog("--from", scene.older.version, "--yes")
    with (
        deployment.worker("again"),
        VersionerProcess(deployment, "versioner", {}) as versioner,
        deployment.client() as client,
    ):
        wait_until_applied(deployment, spec)
        train(deployment, spec, 2, 5)
        cut = client.snapshot()
        made = client.version_of(cut, timeout=60)
        then = image(deployment, spec)
        train(deployment, spec, 2, 7)
        wait_until_applied(deployment, spec)
        assert versioner.process.alive, versioner.log
    repository = deployment.repository
    assert made.parents == (scene.version.version,)
    assert [
        each for each in fsck(repository) if made.version in each.object
    ] == []  # the older are the test's
    audit = deployment.audit(spec)
    assert audit.ok, [(shard.reason, shard.differences) for shard in audit.shards]
    assert all(f"version {made.version}, " in str(shard.start) for shard in audit.shards)
    rows = stored_rows(repository, repository.manifest(made.version), spec.name)
    live = {int.from_bytes(row, "little"): value for values, _, _ in then for row, value in values.items()}
    assert rows.keys() == live.keys()
    for row, (vector, _, at, ordinal) in rows.items():
        assert live[row] == vector + at.to_bytes(8, "little") + ordinal.to_bytes(4, "little")


def test_without_a_version_the_shard_says_that_there_is_no_start(
    own_deployment: Deployment, redis_factory: Callable[[], RedisServer], tmp_path: Path
) -> None:
    deployment = own_deployment.with_redis(redis_factory().url)
    spec = deployment.spec()
    with deployment.worker(), deployment.client() as client:
        client.create_table(spec)
        train(deployment, spec, 3, 1)
        wait_until_applied(deployment, spec)
    wipe(deployment)
    expire(deployment, topics.gradients(spec.name), 0, deployment.end(spec, 0))
    with deployment.worker("refused") as worker:
        until(lambda: "There is no version to begin from" in worker.log, "it is said", seconds=40)
    status, told = relog(deployment, spec)
    assert (status != 0, "name a version with --from" in told) == (True, True)
