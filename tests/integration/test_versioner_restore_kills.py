"""A versioner is killed at each step of a restore: what it becomes is one version, and the line goes on.

`DRIFTLINE_TESTS_EVERY_STEP` makes it each step on both logs; else it is those of CI.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import redis

from driftline import TableSpec
from driftline.client.options import Snapshot
from driftline.control import VersionCommitted
from driftline.frames.events import RESTORE_ROWS, Op
from driftline.rows.layout import ShardKeys
from driftline.versions import fsck
from tests.integration.deployment import LOCAL, Deployment, bits
from tests.integration.test_restore import ADAM, train
from tests.integration.versioning import VersionerProcess, events_of, repository_of, stored_rows
from tests.integration.versions import cut_version
from tests.support.dying_versioner import RESTORE_MOMENTS
from tests.support.waiting import until

DYING = "tests.support.dying_versioner"
EVERY_STEP = bool(os.environ.get("DRIFTLINE_TESTS_EVERY_STEP"))
STORE_STEPS = {
    f"change {number} to the store": {
        "DRIFTLINE_TESTS_DIE_AT": str(number),
        "DRIFTLINE_TESTS_DIE_FROM": "versions/",
    }
    for number in range(2)  # the manifest, the hint at the branch's head
}
STEPS: Mapping[str, Mapping[str, str]] = {
    **{moment: {"DRIFTLINE_TESTS_DIE_IN_RESTORE": moment} for moment in RESTORE_MOMENTS},
    **STORE_STEPS,
}
OF_CI = ("shard put back", "change 0 to the store")
OF_CI_ON_THE_BROKER = "shard put back"
_FIRST_HALF = {"DRIFTLINE_TESTS_DIE_IN_ROLLBACK": "first op asked for"}


@pytest.mark.parametrize("step", list(STEPS) if EVERY_STEP else OF_CI)
def test_a_restore_becomes_one_version_whatever_step_the_versioner_is_killed_at(
    own_deployment: Deployment, step: str
) -> None:
    deployment = own_deployment
    if deployment.kind != LOCAL and not EVERY_STEP and step != OF_CI_ON_THE_BROKER:
        pytest.skip("on the broker one step: DRIFTLINE_TESTS_EVERY_STEP makes it all")
    with deployment.worker(), deployment.client() as client:
        spec = deployment.spec(optimizer=ADAM)
        table = client.create_table(spec)
        train(table, 10)
        target = cut_version(deployment, client, [spec])
        with VersionerProcess(deployment, "dying", STEPS[step], DYING) as one:
            train(table, 5, seed=2)
            restored = client.restore(target.version)
            until(lambda: one.died, "it died", seconds=60)
        with VersionerProcess(deployment, "successor", {}):
            back = client.version_of(Snapshot(restored.op, {spec.name: spec.shards}, 0))
            train(table, 5, seed=3)
            after = client.version_of(client.snapshot())
            table.wait_readable()
    repository = repository_of(deployment)
    made = repository.manifest(back.version)
    assert (made.op, made.base, made.parent) == (restored.op, target.version, target.version)
    assert stored_rows(repository, made, spec.name) == stored_rows(repository, target, spec.name)
    newest = repository.manifest(after.version)
    assert newest.parent == back.version
    assert {
        row: (vector + at.to_bytes(8, "little") + ordinal.to_bytes(4, "little"), state)
        for row, (vector, state, at, ordinal) in stored_rows(repository, newest, spec.name).items()
    } == live_rows(deployment, spec)
    told = Counter(each.version for each in events_of(deployment) if isinstance(each, VersionCommitted))
    assert (told[back.version], told[after.version]) == (1, 1)
    assert len(repository.listing().revisions) == 3, "the target, the roll-back, the one behind it"
    assert fsck(repository) == []


@pytest.mark.slow
def test_a_node_rollback_counts_once_though_others_share_the_shards_of_who_died(
    own_deployment: Deployment,
) -> None:
    """One has both shards and dies between their ops; of its two successors each has one of them."""
    deployment = own_deployment
    if deployment.kind != LOCAL and not EVERY_STEP:
        pytest.skip("on the embedded log: DRIFTLINE_TESTS_EVERY_STEP makes it both")
    with deployment.worker(), deployment.client() as client:
        spec = deployment.spec(optimizer=ADAM)
        table = client.create_table(spec)
        ids = np.arange(50, dtype=np.uint64)
        table.push(ids, np.ones((50, spec.dim), np.float32))
        with (
            ThreadPoolExecutor(1) as pool,
            VersionerProcess(deployment, "dying", _FIRST_HALF, DYING) as one,
        ):
            cut = client.snapshot(kind="backup")
            then = table.get(ids).vectors.copy()
            table.push(ids, np.ones((50, spec.dim), np.float32))
            waiting = pool.submit(client.roll_back_to_backup, spec.name, ids.tolist(), cut.op, timeout=90)
            until(lambda: one.died, "it died", seconds=60)
            with (
                VersionerProcess(deployment, "left", {}) as left,
                VersionerProcess(deployment, "right", {}) as right,
            ):
                done = waiting.result(timeout=100)
                assert left.process.alive, left.log
                assert right.process.alive, right.log
        assert (done.rows, done.absent, len(done.ops)) == (50, (), 2)
        assert np.array_equal(bits(table.get(ids).vectors), bits(then))
    put_back = [
        row
        for shard in range(spec.shards)
        for op in restore_rows(deployment, spec, shard).values()
        for row in op
    ]
    assert sorted(put_back) == ids.tolist()


def restore_rows(deployment: Deployment, spec: TableSpec, shard: int) -> Mapping[int, list[int]]:
    """Return the ids that each restore-rows puts back in a shard, by op: a second frame of it is nothing."""
    return {
        each.origin.seq: each.ids.tolist()
        for each in deployment.events(spec, shard)
        if isinstance(each, Op) and each.kind == RESTORE_ROWS
    }


def live_rows(deployment: Deployment, spec: TableSpec) -> dict[int, tuple[bytes, bytes]]:
    """Return each row with its LSN and ordinal, and its state, as Redis holds them."""
    found: dict[int, tuple[bytes, bytes]] = {}
    for shard in range(spec.shards):
        keys = ShardKeys.of(spec.name, shard)
        with redis.Redis.from_url(deployment.home(spec, shard)) as server:
            values, states = server.hgetall(keys.values), server.hgetall(keys.state)
        assert isinstance(values, dict)
        assert isinstance(states, dict)
        found |= {int.from_bytes(row, "little"): (value, states[row]) for row, value in values.items()}
    return found
